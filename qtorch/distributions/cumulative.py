"""Distribution functions and quantiles of any univariate law, of full relative accuracy in the left tail."""

import math

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal


def cdf(distribution: Distribution, value: Tensor) -> Tensor:
    """P(X <= value): the law's own, but for torch's Normal, whose own has no digit below 1e-16."""
    if isinstance(distribution, Normal):
        return ndtr((value - distribution.loc) / distribution.scale)
    return distribution.cdf(value)


def icdf(distribution: Distribution, p: Tensor) -> Tensor:
    """Quantile at left-tail mass p, as `cdf`."""
    if isinstance(distribution, Normal):
        return distribution.loc + distribution.scale * torch.special.ndtri(p)
    return distribution.icdf(p)


def has_atoms(distribution: Distribution) -> bool:
    """Whether single values may have mass: of an `Empirical`, and of laws made of one."""
    return bool(getattr(distribution, "has_atoms", False))


def ndtr(x: Tensor) -> Tensor:
    """The standard normal distribution function; torch's ndtr, 1 + erf, has no digit left where this is below 1e-16."""
    return 0.5 * torch.erfc(x * -math.sqrt(0.5))


def log_ndtr(x: Tensor) -> Tensor:
    """Its log; on the right from the other tail, of which torch's log_ndtr has no digit left at 9."""
    return torch.where(x > 1, torch.log1p(-ndtr(-x.clamp(min=1))), torch.special.log_ndtr(x.clamp(max=1)))
