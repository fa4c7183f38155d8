"""Shifted and scaled distributions that keep cdf, icdf and tail means."""

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.types import _size

from qtorch.distributions.cumulative import cdf, has_atoms, icdf
from qtorch.distributions.log_tails import log_cdf, log_sf, log_tails
from qtorch.distributions.moment_generating import log_moment_generating
from qtorch.distributions.parameters import broadcast, tensor_of
from qtorch.distributions.tails import partial_mean, register_tail_mean, tail_mean
from qtorch.errors import ArgumentError


class Affine(Distribution):
    """The law of loc + scale * X for X of a univariate base distribution.

    torch's TransformedDistribution loses mean, variance and tail means; this keeps them.

    Args:
        base: a distribution with batch shape `[...]` and no event dimension.
        loc: shift, broadcast against the batch shape; a number takes the dtype and device of the tensors.
        scale: positive factor, broadcast against the batch shape.
        validate_args: False skips the check of the scale, as torch.compile does.

    Raises:
        ValueError: a scale is not positive and finite.
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.real

    def __init__(
        self,
        base: Distribution,
        loc: Tensor | float,
        scale: Tensor | float,
        *,
        validate_args: bool | None = None,
    ) -> None:
        numbers = not isinstance(loc, Tensor) and not isinstance(scale, Tensor)
        *_, loc, scale = broadcast(*([tensor_of(base).new_empty(())] if numbers else []), loc, scale)
        checked = validate_args is not False and not torch.compiler.is_compiling()
        if checked and not ((scale > 0) & torch.isfinite(scale)).all():
            raise ArgumentError("Affine needs positive, finite scales.")
        shape = torch.broadcast_shapes(base.batch_shape, loc.shape, scale.shape)
        self.base = base.expand(shape) if shape != base.batch_shape else base
        self.loc, self.scale = loc.expand(shape), scale.expand(shape)
        super().__init__(shape, validate_args=False)

    def __getattr__(self, name: str) -> Any:
        """Shape parameters (such as `df`), which an affine map leaves as they are, are the base's."""
        base = vars(self).get("base")
        if name.startswith("_") or base is None or name not in base.arg_constraints:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return getattr(base, name)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """As the base."""
        return self.base.has_rsample

    def expand(self, batch_shape: _size, _instance: object = None) -> "Affine":
        """The distribution expanded to a batch shape."""
        return Affine(self.base.expand(batch_shape), self.loc.expand(batch_shape), self.scale.expand(batch_shape))

    @property
    def has_atoms(self) -> bool:
        """As the base."""
        return has_atoms(self.base)

    @property
    def mean(self) -> Tensor:
        """Mean."""
        return self.loc + self.scale * self.base.mean

    @property
    def variance(self) -> Tensor:
        """Variance."""
        return self.scale**2 * self.base.variance

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density."""
        return self.base.log_prob(self._standard(value)) - torch.log(self.scale)

    def entropy(self) -> Tensor:
        """Differential entropy."""
        return self.base.entropy() + torch.log(self.scale)

    def cdf(self, value: Tensor) -> Tensor:
        """Distribution function."""
        return cdf(self.base, self._standard(value))

    def log_cdf(self, value: Tensor) -> Tensor:
        """Log of the distribution function, a number however far in the left tail."""
        return log_cdf(self.base, self._standard(value))

    def log_sf(self, value: Tensor) -> Tensor:
        """Log of P(X > value), a number however far in the right tail."""
        return log_sf(self.base, self._standard(value))

    def log_tails(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """`log_cdf` and `log_sf`, which share most of their work."""
        return log_tails(self.base, self._standard(value))

    def log_moment_generating(self, t: Tensor) -> Tensor:
        """Log of E[exp(t X)], of a base that has one."""
        return t * self.loc + log_moment_generating(self.base, t * self.scale)

    def partial_mean(self, value: Tensor) -> Tensor:
        """E[X 1{X <= value}], the lower partial expectation."""
        z = self._standard(value)
        return self.loc * cdf(self.base, z) + self.scale * partial_mean(self.base, z)

    def icdf(self, value: Tensor) -> Tensor:
        """Quantile at left-tail mass `value`."""
        return self.loc + self.scale * icdf(self.base, value)

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:
        """Draws without gradients."""
        with torch.no_grad():
            return self.loc + self.scale * self.base.sample(torch.Size(sample_shape))

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:
        """Draws with gradients."""
        return self.loc + self.scale * self.base.rsample(torch.Size(sample_shape))

    def _standard(self, value: Tensor) -> Tensor:
        return (value - self.loc) / self.scale


@register_tail_mean(Affine)
def _tail_mean(distribution: Affine, probability: Tensor) -> Tensor:
    return distribution.loc + distribution.scale * tail_mean(distribution.base, probability)
