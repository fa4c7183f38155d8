"""Scores of variance forecasts against noisy proxies of the variance."""

import torch
from torch import Tensor

from qtorch.errors import ArgumentError
from qtorch.risk.scores.observed import observed


def qlike(proxy: Tensor, variance: Tensor, mask: Tensor | None = None, normalised: bool = True) -> Tensor:
    """Quasi-likelihood loss of a variance forecast h: s / h - log(s / h) - 1 with s the proxy.

    It ranks forecasts as it would against the true variance, for any proxy that is right on average: a squared
    return less its mean, a range, a realised variance. Where a proxy is zero the normalised loss is infinite; the one
    that is not, log(h) + s / h, differs from it by a term of the proxy alone.

    Args:
        proxy: of the realised variance, not negative, in any unit.
        variance: forecast, positive, in that unit; the shapes broadcast.
        mask: which elements count; all by default.
        normalised: whether the loss of a perfect forecast is zero.

    Returns:
        A loss for each element; NaN where a proxy or forecast is, and outside the mask.

    Raises:
        ValueError: a forecast is not positive, or a proxy is negative.

    References:
        Patton (2011), Volatility forecast comparison using imperfect volatility proxies, Journal of Econometrics 160,
        equation 24 at b = -2.
    """
    there, (s, h) = observed(mask, proxy, variance)
    if (h <= 0).any() or (s < 0).any():
        raise ArgumentError(
            f"qlike needs positive variance forecasts ({int((h <= 0).sum())} are not) and proxies that are not "
            f"negative ({int((s < 0).sum())} are). Mask them, or give variances instead of returns."
        )
    ratio = s / h
    return torch.where(there, ratio - torch.log(ratio) - 1 if normalised else torch.log(h) + ratio, torch.nan)
