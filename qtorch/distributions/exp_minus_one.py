"""From log returns to simple returns."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal, constraints
from torch.types import _size

from qtorch.distributions.cumulative import cdf, has_atoms, icdf
from qtorch.distributions.indexing import take
from qtorch.distributions.log_tails import log_cdf, log_sf
from qtorch.distributions.moment_generating import log_moment_generating
from qtorch.distributions.tails import by_quadrature, register_tail_mean


class ExpMinusOne(Distribution):
    """The law of exp(Y) - 1 for Y of a univariate base distribution: simple returns where Y is a log return.

    Distribution function, quantiles and density follow the base's. Tail means are closed forms for a normal base and
    quadrature else; mean and variance are those of normal and normal inverse Gaussian laws and their mixtures and
    affine maps (of a Student-t base neither exists).

    Args:
        base: a distribution with batch shape `[...]` and no event dimension.

    Example:
        >>> d = ExpMinusOne(Normal(0.0, 0.2))
        >>> round(d.mean.item(), 6)
        0.020201
    """

    arg_constraints = {}
    support = constraints.greater_than(-1.0)

    def __init__(self, base: Distribution, *, validate_args: bool | None = None) -> None:
        self.base = base
        super().__init__(base.batch_shape, validate_args=False)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """As the base."""
        return self.base.has_rsample

    def expand(self, batch_shape: _size, _instance: object = None) -> "ExpMinusOne":
        """The distribution expanded to a batch shape."""
        return ExpMinusOne(self.base.expand(batch_shape))

    @property
    def has_atoms(self) -> bool:
        """As the base."""
        return has_atoms(self.base)

    @property
    def mean(self) -> Tensor:
        """Mean: the base's moment generating function at 1, less 1; infinite where that is.

        Raises:
            NotImplementedError: the base's is not known; see `log_moment_generating`.
        """
        return torch.expm1(log_moment_generating(self.base, 1.0))

    @property
    def variance(self) -> Tensor:
        """Variance: exp(2 K(1)) (exp(K(2) - 2 K(1)) - 1), K the log of the base's moment generating function.

        Raises:
            NotImplementedError: the base's is not known; see `log_moment_generating`.
        """
        once, twice = log_moment_generating(self.base, 1.0), log_moment_generating(self.base, 2.0)
        finite = torch.isfinite(twice)
        once, twice = torch.where(finite, once, 0.0), torch.where(finite, twice, 0.0)
        return torch.where(finite, torch.exp(2 * once) * torch.expm1(twice - 2 * once), torch.inf)

    def entropy(self) -> Tensor:
        """Differential entropy: the base's plus its mean."""
        return self.base.entropy() + self.base.mean

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density; minus infinity at and below -1."""
        return self._follow(lambda y: self.base.log_prob(y) - y, value, -torch.inf)

    def cdf(self, value: Tensor) -> Tensor:
        """Distribution function."""
        return self._follow(lambda y: cdf(self.base, y), value, 0.0)

    def log_cdf(self, value: Tensor) -> Tensor:
        """Log of the distribution function, a number however far in the left tail."""
        return self._follow(lambda y: log_cdf(self.base, y), value, -torch.inf)

    def log_sf(self, value: Tensor) -> Tensor:
        """Log of P(X > value), a number however far in the right tail."""
        return self._follow(lambda y: log_sf(self.base, y), value, 0.0)

    def icdf(self, value: Tensor) -> Tensor:
        """Quantile at left-tail mass `value`."""
        return torch.expm1(icdf(self.base, value))

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:
        """Draws without gradients."""
        with torch.no_grad():
            return torch.expm1(self.base.sample(torch.Size(sample_shape)))

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:
        """Draws with gradients."""
        return torch.expm1(self.base.rsample(torch.Size(sample_shape)))

    def _follow(self, function: Callable[[Tensor], Tensor], value: Tensor, below: float) -> Tensor:
        """A function of the log return; at and below -1 the value given for there, NaN at NaN."""
        inside = value > -1
        result = function(torch.log1p(torch.where(inside, value, 0.0)))
        return torch.where(inside, result, torch.where(value.isnan(), torch.nan, below))


@register_tail_mean(ExpMinusOne)
def _tail_mean(distribution: ExpMinusOne, p: Tensor) -> Tensor:
    """For Y normal E[exp(Y); Y <= y] = exp(mu + sigma^2 / 2) Phi(z - sigma)."""
    base = distribution.base
    if isinstance(base, Normal):
        loc, scale = base.loc.double(), base.scale.double()
        share = torch.special.log_ndtr(torch.special.ndtri(p) - scale) - torch.log(p)
        return torch.expm1(loc + 0.5 * scale**2 + share).to(base.loc.dtype)
    return by_quadrature(distribution, p)


@take.register
def _exp_minus_one(distribution: ExpMinusOne, index: Any) -> ExpMinusOne:
    return ExpMinusOne(take(distribution.base, index))
