"""What the univariate laws of this room share."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Float64
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.types import _size

from qtorch.distributions.parameters import broadcast, check
from qtorch.distributions.quadrature import entropy
from qtorch.distributions.tails import register_tail_mean

Double = Float64[Tensor, "..."]


class Univariate(Distribution, ABC):
    """A law on the line whose parameters, named in `arg_constraints`, are tensors of the batch shape.

    Subclasses define in float64 `_log_prob`, `_cdf`, `_icdf`, `_mean`, `_variance` and what else has a closed form.
    This class broadcasts and checks the parameters, casts (float32 in, float32 out, float64 between, because in float32
    a tail probability has no correct digit) and draws by inversion, so that draws differentiate in every parameter.
    Outside the support densities are 0 and distribution functions 0 or 1; nothing raises.

    Args:
        validate_args: False skips the check of the parameters, as torch.compile does, which can't stop on a value.
        parameters: numbers or tensors; numbers take the dtype and device of the tensors.

    Raises:
        ValueError: a parameter is outside its domain or not finite.
    """

    support = constraints.real
    has_rsample = True

    def __init__(self, *, validate_args: bool | None = None, **parameters: Tensor | float) -> None:
        for name, value in zip(parameters, broadcast(*parameters.values()), strict=True):
            setattr(self, name, value)
        if validate_args is not False and not torch.compiler.is_compiling():
            self._check()
        super().__init__(getattr(self, next(iter(parameters))).shape, validate_args=False)

    def _check(self) -> None:
        for name, constraint in self.arg_constraints.items():
            check(self, name, constraint)

    def expand(self, batch_shape: _size, _instance: object = None) -> "Univariate":
        """The distribution with its parameters expanded to a batch shape."""
        parameters = {name: getattr(self, name).expand(batch_shape) for name in self.arg_constraints}
        return type(self)(**parameters, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """Mean; NaN or infinite where the law has none."""
        return self._mean().to(self._dtype)

    @property
    def variance(self) -> Tensor:
        """Variance; infinite or NaN where the law has none."""
        return self._variance().to(self._dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density at `value`, which broadcasts against the batch shape."""
        return self._cast(self._log_prob, value)

    def entropy(self) -> Tensor:
        """Differential entropy; where there is no closed form by quadrature of -log f(icdf(u)), to 1e-8."""
        return entropy(self._log_prob, self._icdf, self._first).to(self._dtype)

    def cdf(self, value: Tensor) -> Tensor:
        """Distribution function at `value`, which broadcasts against the batch shape."""
        return self._cast(self._cdf, value)

    def icdf(self, value: Tensor) -> Tensor:
        """Quantile at left-tail mass `value` in [0, 1]; NaN outside."""
        return self._cast(self._icdf, value)

    def log_cdf(self, value: Tensor) -> Tensor:
        """Log of the distribution function, a number however far in the left tail."""
        return self._cast(self._log_cdf, value)

    def log_sf(self, value: Tensor) -> Tensor:
        """Log of P(X > value), a number however far in the right tail."""
        return self._cast(self._log_sf, value)

    def log_tails(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """`log_cdf` and `log_sf`, which share most of their work."""
        dtype = torch.promote_types(self._dtype, value.dtype)
        below, above = self._log_tails(value.double())
        return below.to(dtype), above.to(dtype)

    def partial_mean(self, value: Tensor) -> Tensor:
        """E[X 1{X <= value}], the lower partial expectation."""
        return self._cast(self._partial_mean, value)

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:
        """Draws by inverting the distribution function, from torch's generator."""
        u = torch.rand(self._extended_shape(torch.Size(sample_shape)), dtype=torch.float64, device=self._device)
        return self._icdf(u.clamp(1e-16, 1 - 1e-16)).to(self._dtype)

    @property
    def _first(self) -> Tensor:
        return getattr(self, next(iter(self.arg_constraints)))

    @property
    def _dtype(self) -> torch.dtype:
        return self._first.dtype

    @property
    def _device(self) -> torch.device:
        return self._first.device

    def _doubles(self) -> tuple[Double, ...]:
        """The parameters in float64, in the order of `arg_constraints`."""
        return tuple(getattr(self, name).double() for name in self.arg_constraints)

    def _cast(self, function: Callable[[Double], Double], value: Tensor) -> Tensor:
        # A number may lie on the CPU whatever the law's device, but not everything that follows takes it from there.
        x = value.double() if value.ndim else value.to(self._device, torch.float64)
        return function(x).to(torch.promote_types(self._dtype, value.dtype))

    @abstractmethod
    def _log_prob(self, x: Double) -> Double:
        """Log density."""

    @abstractmethod
    def _log_cdf(self, x: Double) -> Double:
        """Log of P(X <= x)."""

    @abstractmethod
    def _log_sf(self, x: Double) -> Double:
        """Log of P(X > x)."""

    def _log_tails(self, x: Double) -> tuple[Double, Double]:
        """Both of them."""
        return self._log_cdf(x), self._log_sf(x)

    @abstractmethod
    def _cdf(self, x: Double) -> Double:
        """P(X <= x)."""

    @abstractmethod
    def _icdf(self, p: Double) -> Double:
        """Quantile at left-tail mass p."""

    @abstractmethod
    def _partial_mean(self, x: Double) -> Double:
        """E[X 1{X <= x}]."""

    @abstractmethod
    def _mean(self) -> Double:
        """Mean."""

    @abstractmethod
    def _variance(self) -> Double:
        """Variance."""


@register_tail_mean(Univariate)  # type: ignore[type-abstract]
def _tail_mean(distribution: Univariate, p: Tensor) -> Tensor:
    p = p.to(distribution._device)
    return (distribution._partial_mean(distribution._icdf(p)) / p).to(distribution._dtype)
