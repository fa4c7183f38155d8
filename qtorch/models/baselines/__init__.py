"""Baselines with a forecaster's interface that need no training: what a risk desk runs today."""

from qtorch.models.baselines.filtered_historical_simulation import FilteredHistoricalSimulation
from qtorch.models.baselines.filters import Ewma
from qtorch.models.baselines.garch import Garch
from qtorch.models.baselines.har import HAR
from qtorch.models.baselines.historical_simulation import HistoricalSimulation
from qtorch.models.baselines.riskmetrics import RiskMetrics

__all__ = ["HAR", "Ewma", "FilteredHistoricalSimulation", "Garch", "HistoricalSimulation", "RiskMetrics"]
