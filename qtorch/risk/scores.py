"""Scores of risk forecasts: the lower the better, and lowest in expectation for the true forecast."""

import torch
from torch import Tensor


def pinball(returns: Tensor, value_at_risk: Tensor, level: float) -> Tensor:
    """Tick loss of a value at risk: (1{y <= v} - p)(v - y) with v = -VaR and p = 1 - level.

    Args:
        returns: realised, in any unit.
        value_at_risk: positive losses at confidence `level`, in that unit; the shapes broadcast.
        level: confidence, such as 0.975.

    Returns:
        A loss for each element; NaN where a return or forecast is.

    References:
        Koenker and Bassett (1978), Regression quantiles, Econometrica 46.
    """
    v = -value_at_risk
    return ((returns <= v).to(v.dtype) - (1 - level)) * (v - returns)


def fz0(returns: Tensor, value_at_risk: Tensor, expected_shortfall: Tensor, level: float) -> Tensor:
    """Joint loss of value at risk and expected shortfall, homogeneous of degree zero.

    L = -1{y <= v} (v - y) / (p e) + v / e + log(-e) - 1 with v = -VaR, e = -ES and p = 1 - level. Returns in per cent
    instead of decimals add log(100) to every loss.

    Args:
        returns: realised, in any unit.
        value_at_risk: positive losses at confidence `level`, in that unit; the shapes broadcast.
        expected_shortfall: positive losses, in that unit.
        level: confidence, such as 0.975.

    Returns:
        A loss for each element; NaN where a return or forecast is.

    Raises:
        ValueError: an expected shortfall is not positive, where the loss has no value.

    References:
        Patton, Ziegel and Chen (2019), Dynamic semiparametric models for expected shortfall (and value-at-risk),
        Journal of Econometrics 211, equation 6.
    """
    v, e, p = -value_at_risk, -expected_shortfall, 1 - level
    if (e >= 0).any():
        raise ValueError(f"fz0 needs positive expected shortfalls; {int((e >= 0).sum())} of {e.numel()} are not.")
    return -(returns <= v).to(v.dtype) * (v - returns) / (p * e) + v / e + torch.log(-e) - 1
