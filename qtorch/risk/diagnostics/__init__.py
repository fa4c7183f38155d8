"""Whether a forecast's uncertainty can be trusted: calibration, sharpness, coverage by regime, selective risk."""

from qtorch.risk.diagnostics.calibration_error import CalibrationError, calibration_error
from qtorch.risk.diagnostics.clustered import ClusteredMean, clustered_mean
from qtorch.risk.diagnostics.coverage import coverage_by_group
from qtorch.risk.diagnostics.groups import history_length, volatility_regimes
from qtorch.risk.diagnostics.report import report
from qtorch.risk.diagnostics.selective import RankCorrelation, SelectiveRisk, rank_correlation, selective_risk
from qtorch.risk.diagnostics.sharpness import Sharpness, interval_width, sharpness

__all__ = [
    "CalibrationError",
    "ClusteredMean",
    "RankCorrelation",
    "SelectiveRisk",
    "Sharpness",
    "calibration_error",
    "clustered_mean",
    "coverage_by_group",
    "history_length",
    "interval_width",
    "rank_correlation",
    "report",
    "selective_risk",
    "sharpness",
    "volatility_regimes",
]
