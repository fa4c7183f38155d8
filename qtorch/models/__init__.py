"""Encoders, which map windows to hidden states, and baselines, which forecast without training."""

from qtorch.models.baselines import HistoricalSimulation, RiskMetrics
from qtorch.models.transformer import Transformer

__all__ = ["HistoricalSimulation", "RiskMetrics", "Transformer"]
