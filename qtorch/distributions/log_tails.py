"""Logs of distribution functions and of their complements, of any univariate law, and scores from them."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal

from qtorch.distributions.cumulative import log_ndtr


def log_cdf(distribution: Distribution, value: Tensor) -> Tensor:
    """Log of P(X <= value): the law's own where it has one, so that far tails are numbers; else the log of its cdf."""
    own = getattr(distribution, "log_cdf", None)
    if own is not None:
        return own(value)
    if isinstance(distribution, Normal):
        return log_ndtr((value - distribution.loc) / distribution.scale)
    return torch.log(distribution.cdf(value))


def log_tails(distribution: Distribution, value: Tensor) -> tuple[Tensor, Tensor]:
    """Logs of P(X <= value) and of P(X > value), at the price of one of them where the law knows how."""
    own = getattr(distribution, "log_tails", None)
    return own(value) if own is not None else (log_cdf(distribution, value), log_sf(distribution, value))


def log_sf(distribution: Distribution, value: Tensor) -> Tensor:
    """Log of P(X > value), as `log_cdf`."""
    own = getattr(distribution, "log_sf", None)
    if own is not None:
        return own(value)
    if isinstance(distribution, Normal):
        return log_ndtr((distribution.loc - value) / distribution.scale)
    return torch.log1p(-distribution.cdf(value))


def score(distribution: Distribution, value: Tensor, quantile: Callable[[Tensor], Tensor]) -> Tensor:
    """The score, of a law symmetric about zero, of the same left-tail mass as a value of another law, in float64.

    From the lighter side, where a mass has digits: float64 knows masses of 1e-300, but none between 1 - 1e-16 and 1.

    Args:
        distribution: of the value.
        value: `[...]`, broadcasts against the batch shape.
        quantile: of the symmetric law, at left-tail masses.
    """
    below, above = log_tails(distribution, value.double())
    left = below < above
    found = quantile(torch.exp(torch.where(left, below, above)).clamp(min=1e-300))
    return torch.where(left, found, -found)
