"""Backtests of forecasts of risk over a whole panel at once.

Tensors are `[T, *series]`, time first. Rows outside the mask, and NaN, are skipped: a series' consecutive usable
observations are neighbours. Random numbers are common to all series. A test that cannot be computed for a series has
the p-value NaN there.
"""

from qtorch.risk.backtests.acerbi_szekely import AcerbiSzekely, acerbi_szekely
from qtorch.risk.backtests.acerbi_szekely_z3 import acerbi_szekely_z3
from qtorch.risk.backtests.attribution import Attribution, pl_attribution
from qtorch.risk.backtests.basel import TrafficLight, shortfall_traffic_light, traffic_light
from qtorch.risk.backtests.calibration import nolde_ziegel
from qtorch.risk.backtests.comparison import diebold_mariano
from qtorch.risk.backtests.confidence_set import ConfidenceSet, model_confidence_set
from qtorch.risk.backtests.coverage import exceedances, kupiec, time_until_first_failure
from qtorch.risk.backtests.cumulative import DuEscanciano, du_escanciano
from qtorch.risk.backtests.density import Uniformity, berkowitz, pit_uniformity
from qtorch.risk.backtests.duration import duration
from qtorch.risk.backtests.dynamic_quantile import dynamic_quantile
from qtorch.risk.backtests.es_regression import EsRegression, es_regression
from qtorch.risk.backtests.exceedance_residuals import mcneil_frey
from qtorch.risk.backtests.independence import Christoffersen, christoffersen
from qtorch.risk.backtests.multiplicity import benjamini_hochberg
from qtorch.risk.backtests.result import BacktestResult, PanelResult

__all__ = [
    "AcerbiSzekely",
    "Attribution",
    "BacktestResult",
    "Christoffersen",
    "ConfidenceSet",
    "DuEscanciano",
    "EsRegression",
    "PanelResult",
    "TrafficLight",
    "Uniformity",
    "acerbi_szekely",
    "acerbi_szekely_z3",
    "benjamini_hochberg",
    "berkowitz",
    "christoffersen",
    "diebold_mariano",
    "du_escanciano",
    "duration",
    "dynamic_quantile",
    "es_regression",
    "exceedances",
    "kupiec",
    "mcneil_frey",
    "model_confidence_set",
    "nolde_ziegel",
    "pit_uniformity",
    "pl_attribution",
    "shortfall_traffic_light",
    "time_until_first_failure",
    "traffic_light",
]
