"""Baselines with a forecaster's interface that need no training: what a risk desk runs today."""

from qtorch.models.baselines.historical_simulation import HistoricalSimulation
from qtorch.models.baselines.riskmetrics import RiskMetrics

__all__ = ["HistoricalSimulation", "RiskMetrics"]
