"""Training: one LightningModule for all forecasters, objectives and fits."""

from qtorch.training.fit import fit
from qtorch.training.forecaster import Forecaster
from qtorch.training.network import Network
from qtorch.training.objectives import CRPS, FZ0, LogScore, Mix, Objective, Pinball
from qtorch.training.optimisation import Schedule

__all__ = ["CRPS", "FZ0", "Forecaster", "LogScore", "Mix", "Network", "Objective", "Pinball", "Schedule", "fit"]
