"""Joint scores of value at risk and expected shortfall, which is not elicitable by itself."""

import math

import torch
from torch import Tensor

from qtorch.errors import ArgumentError
from qtorch.risk.measures.tail import checked_level
from qtorch.risk.scores.observed import observed


def fz0(
    returns: Tensor, value_at_risk: Tensor, expected_shortfall: Tensor, level: float, mask: Tensor | None = None
) -> Tensor:
    """Joint loss of value at risk and expected shortfall, homogeneous of degree zero.

    L = -1{y <= v} (v - y) / (p e) + v / e + log(-e) - 1 with v = -VaR, e = -ES and p = 1 - level. Returns in per cent
    instead of decimals add log(100) to every loss.

    Args:
        returns: realised, in any unit.
        value_at_risk: positive losses at confidence `level`, in that unit; the shapes broadcast.
        expected_shortfall: positive losses, in that unit.
        level: confidence, such as 0.975.
        mask: which elements count; all by default.

    Returns:
        A loss for each element; NaN where a return or forecast is, and outside the mask.

    Raises:
        ValueError: an expected shortfall is not positive, where the loss has no value; or the level is not inside
            (0, 1).

    References:
        Patton, Ziegel and Chen (2019), Dynamic semiparametric models for expected shortfall (and value-at-risk),
        Journal of Econometrics 211, equation 6.
    """
    there, y, v, e, p = _observed("fz0", returns, value_at_risk, expected_shortfall, level, mask)
    loss = -(y <= v).to(v.dtype) * (v - y) / (p * e) + v / e + torch.log(-e) - 1
    return torch.where(there, loss, torch.nan)


def asymmetric_laplace_score(
    returns: Tensor, value_at_risk: Tensor, expected_shortfall: Tensor, level: float, mask: Tensor | None = None
) -> Tensor:
    """Joint loss of value at risk and expected shortfall: minus the log of an asymmetric Laplace density.

    L = -log((p - 1) / e) - (y - v)(p - 1{y <= v}) / (p e) with v = -VaR, e = -ES and p = 1 - level. It is FZ0 plus
    1 - log(1 - p) - y / e, whose last term has a constant mean only if the mean return is zero.

    Args:
        returns: realised, in any unit.
        value_at_risk: positive losses at confidence `level`, in that unit; the shapes broadcast.
        expected_shortfall: positive losses, in that unit.
        level: confidence, such as 0.975.
        mask: which elements count; all by default.

    Returns:
        A loss for each element; NaN where a return or forecast is, and outside the mask.

    Raises:
        ValueError: an expected shortfall is not positive, where the loss has no value; or the level is not inside
            (0, 1).

    References:
        Taylor (2019), Forecasting value at risk and expected shortfall using a semiparametric approach based on the
        asymmetric Laplace distribution, Journal of Business and Economic Statistics 37, equation 9.
    """
    there, y, v, e, p = _observed("asymmetric_laplace_score", returns, value_at_risk, expected_shortfall, level, mask)
    loss = torch.log(-e) - math.log1p(-p) - (y - v) * (p - (y <= v).to(v.dtype)) / (p * e)
    return torch.where(there, loss, torch.nan)


def _observed(
    name: str, returns: Tensor, value_at_risk: Tensor, expected_shortfall: Tensor, level: float, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, float]:
    p = 1 - checked_level(level)
    there, (y, var, es) = observed(mask, returns, value_at_risk, expected_shortfall)
    bad = es <= 0
    if bad.any():
        raise ArgumentError(
            f"{name} needs positive expected shortfalls; {int(bad.sum())} of {bad.numel()} are not, the first at "
            f"{tuple(bad.nonzero()[0].tolist())}. Mask them, or give losses as positive numbers."
        )
    return there, y, -var, -es, p
