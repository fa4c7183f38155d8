"""Scores of forecasts: the lower the better, and lowest in expectation for the true forecast.

Scores are elementwise over any shape and differentiable in the forecast, so that they serve as training losses; the
elements that a mask leaves out, and those without an outcome or a forecast, are NaN.
"""

from qtorch.risk.scores.crps import crps, quantile_weighted_crps, register_crps
from qtorch.risk.scores.density import log_score
from qtorch.risk.scores.joint import energy_score, variogram_score
from qtorch.risk.scores.quantiles import interval_score, pinball, weighted_quantile_loss
from qtorch.risk.scores.shortfall import asymmetric_laplace_score, fz0
from qtorch.risk.scores.volatility import qlike

__all__ = [
    "asymmetric_laplace_score",
    "crps",
    "energy_score",
    "fz0",
    "interval_score",
    "log_score",
    "pinball",
    "qlike",
    "quantile_weighted_crps",
    "register_crps",
    "variogram_score",
    "weighted_quantile_loss",
]
