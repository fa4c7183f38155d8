"""Training: one LightningModule for all forecasters, objectives, fits, walks through time and ensembles."""

from qtorch.training.augmentation import HideInputs
from qtorch.training.ensemble import Ensemble, mixed
from qtorch.training.evaluation import evaluate
from qtorch.training.fit import fit
from qtorch.training.forecaster import Forecaster
from qtorch.training.network import Network
from qtorch.training.objectives import CRPS, FZ0, LogScore, Mix, Objective, Pinball
from qtorch.training.optimisation import Schedule
from qtorch.training.walk_forward import refit, walk_forward

__all__ = [
    "CRPS",
    "FZ0",
    "Ensemble",
    "Forecaster",
    "HideInputs",
    "LogScore",
    "Mix",
    "Network",
    "Objective",
    "Pinball",
    "Schedule",
    "evaluate",
    "fit",
    "mixed",
    "refit",
    "walk_forward",
]
