"""Training: one LightningModule for all forecasters."""

from qtorch.training.fit import fit
from qtorch.training.forecaster import Forecaster, Network

__all__ = ["Forecaster", "Network", "fit"]
