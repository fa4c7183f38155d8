"""Training: one LightningModule for all forecasters, objectives, fits, refits and ensembles."""

from qtorch.training.allocation_objectives import (
    LeastShortfall,
    LeastTrackingError,
    LeastVariance,
    MeanVariance,
    MostDifferentialSharpe,
    MostSharpe,
    MostSortino,
    MostWealth,
)
from qtorch.training.allocator import Allocator, Episodes, EpisodeSet, fit_allocator
from qtorch.training.augmentation import HideInputs
from qtorch.training.decision_focused import DecisionFocused
from qtorch.training.decisions import Decisions, DecisionSource
from qtorch.training.ensemble import Ensemble, mixed
from qtorch.training.evaluation import evaluate
from qtorch.training.fit import fit
from qtorch.training.forecaster import Forecaster
from qtorch.training.laplace import Laplace
from qtorch.training.last_layer_sampling import SGHMC, SGLD, sample_last_layer
from qtorch.training.network import Network
from qtorch.training.objectives import CRPS, FZ0, LogScore, Mix, Objective, Pinball
from qtorch.training.optimisation import Schedule
from qtorch.training.refit import refit, refit_allocator
from qtorch.training.shape_likelihood import ShapeLikelihood
from qtorch.training.swag import Swag
from qtorch.training.trained_on import TrainedOn

__all__ = [
    "CRPS",
    "FZ0",
    "SGHMC",
    "SGLD",
    "Allocator",
    "DecisionFocused",
    "DecisionSource",
    "Decisions",
    "Ensemble",
    "EpisodeSet",
    "Episodes",
    "Forecaster",
    "HideInputs",
    "Laplace",
    "LeastShortfall",
    "LeastTrackingError",
    "LeastVariance",
    "LogScore",
    "MeanVariance",
    "Mix",
    "MostDifferentialSharpe",
    "MostSharpe",
    "MostSortino",
    "MostWealth",
    "Network",
    "Objective",
    "Pinball",
    "Schedule",
    "ShapeLikelihood",
    "Swag",
    "TrainedOn",
    "evaluate",
    "fit",
    "fit_allocator",
    "mixed",
    "refit",
    "refit_allocator",
    "sample_last_layer",
]
