"""Scores of quantile and interval forecasts."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qtorch.distributions.checks import require
from qtorch.risk.measures.tail import checked_level
from qtorch.risk.scores.observed import observed


def pinball(returns: Tensor, value_at_risk: Tensor, level: float, mask: Tensor | None = None) -> Tensor:
    """Tick loss of a value at risk: (1{y <= v} - p)(v - y) with v = -VaR and p = 1 - level.

    Args:
        returns: realised, in any unit.
        value_at_risk: positive losses at confidence `level`, in that unit; the shapes broadcast.
        level: confidence, such as 0.975.
        mask: which elements count; all by default.

    Returns:
        A loss for each element; NaN where a return or forecast is, and outside the mask.

    Raises:
        ValueError: the level is not inside (0, 1).

    References:
        Koenker and Bassett (1978), Regression quantiles, Econometrica 46.
    """
    there, (y, v) = observed(mask, returns, -value_at_risk)
    return torch.where(there, tick_loss(y, v, 1 - checked_level(level)), torch.nan)


def weighted_quantile_loss(
    outcomes: Float[Tensor, "T *series"],
    quantiles: Float[Tensor, "T *series Q"],
    probabilities: Sequence[float],
    mask: Bool[Tensor, "T *series"] | None = None,
    per_series: bool = False,
) -> Float[Tensor, "*kept Q"]:
    """Twice the pinball losses over the sizes of the outcomes: 2 sum_t rho_p(y_t - q_t) / sum_t |y_t|.

    The mean over Q is what the forecasting literature calls the mean weighted quantile loss.

    Args:
        outcomes: realised, in any unit.
        quantiles: forecast at `probabilities`, in that unit.
        probabilities: left-tail masses of the quantiles.
        mask: which outcomes count; all by default.
        per_series: sum over T only, instead of over all series too.

    Returns:
        A loss for each probability, `[Q]` or `[*series, Q]`; NaN where all outcomes that count are zero or none is.

    Raises:
        ValueError: the probabilities are not inside (0, 1), or not one for each quantile.

    References:
        Salinas, Flunkert, Gasthaus and Januschowski (2020), DeepAR, International Journal of Forecasting 36,
        section 4 (rho-risk).
    """
    p = torch.tensor(probabilities, dtype=quantiles.dtype, device=quantiles.device)
    inside = len(p) == quantiles.shape[-1] and bool(((p > 0) & (p < 1)).all())
    require(inside, "probabilities", tuple(probabilities), f"give {quantiles.shape[-1]} left-tail masses inside (0, 1)")
    y, mask = outcomes.unsqueeze(-1), None if mask is None else mask.unsqueeze(-1)
    there, (y, q) = observed(mask, y, quantiles)
    dims = 0 if per_series else tuple(range(outcomes.ndim))
    loss = torch.where(there, tick_loss(y, q, p), 0.0).sum(dims)
    size = torch.where(there, y.abs(), 0.0).sum(dims)
    return torch.where(size > 0, 2 * loss / torch.where(size > 0, size, 1.0), torch.nan)


def interval_score(
    outcomes: Tensor, lower: Tensor, upper: Tensor, coverage: float, mask: Tensor | None = None
) -> Tensor:
    """Width of a central interval plus 2 / alpha times the distance of an outcome outside it, alpha = 1 - coverage.

    Args:
        outcomes: realised, in any unit.
        lower: quantiles at left-tail mass alpha / 2, in that unit; the shapes broadcast.
        upper: quantiles at left-tail mass 1 - alpha / 2.
        coverage: probability that the interval is forecast to hold, such as 0.9.
        mask: which elements count; all by default.

    Returns:
        A loss for each element; NaN where an outcome or forecast is, and outside the mask.

    Raises:
        ValueError: the coverage is not inside (0, 1).

    References:
        Gneiting and Raftery (2007), Strictly proper scoring rules, prediction, and estimation, JASA 102, equation 43.
    """
    require(0 < coverage < 1, "coverage", coverage, "give a probability inside (0, 1), such as 0.9")
    there, (y, low, high) = observed(mask, outcomes, lower, upper)
    outside = (low - y).clamp(min=0) + (y - high).clamp(min=0)
    return torch.where(there, high - low + 2 / (1 - coverage) * outside, torch.nan)


def tick_loss(y: Tensor, quantile: Tensor, probability: float | Tensor) -> Tensor:
    """(1{y <= q} - p)(q - y) of a quantile at left-tail mass p."""
    return ((y <= quantile).to(quantile.dtype) - probability) * (quantile - y)
