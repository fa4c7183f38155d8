"""Forecasts put right by what came: adaptive conformal values at risk and recalibrated laws."""

from qtorch.calibration.adaptive import AdaptiveConformal
from qtorch.calibration.aggregated import AggregatedAdaptiveConformal
from qtorch.calibration.backtest import backtest, replay
from qtorch.calibration.calibrated import CalibratedForecast
from qtorch.calibration.conformal_quantile import conformal_quantile
from qtorch.calibration.fitting import fit_recalibration, recalibrate
from qtorch.calibration.online import OnlineCalibrator
from qtorch.calibration.pid import ConformalPID
from qtorch.calibration.quantiles import ConformalisedQuantiles, conformal_interval
from qtorch.calibration.recalibrated import PitMap, Recalibrated

__all__ = [
    "AdaptiveConformal",
    "AggregatedAdaptiveConformal",
    "CalibratedForecast",
    "ConformalPID",
    "ConformalisedQuantiles",
    "OnlineCalibrator",
    "PitMap",
    "Recalibrated",
    "backtest",
    "conformal_interval",
    "conformal_quantile",
    "fit_recalibration",
    "recalibrate",
    "replay",
]
