"""Training: one LightningModule for all forecasters, objectives, fits, walks through time and ensembles."""

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
from qtorch.training.decisions import Decisions, DecisionSource
from qtorch.training.ensemble import Ensemble, mixed
from qtorch.training.evaluation import evaluate
from qtorch.training.fit import fit
from qtorch.training.forecaster import Forecaster
from qtorch.training.network import Network
from qtorch.training.objectives import CRPS, FZ0, LogScore, Mix, Objective, Pinball
from qtorch.training.optimisation import Schedule
from qtorch.training.shape_likelihood import ShapeLikelihood
from qtorch.training.walk_forward import refit, walk_forward

__all__ = [
    "CRPS",
    "FZ0",
    "Allocator",
    "DecisionSource",
    "Decisions",
    "Ensemble",
    "EpisodeSet",
    "Episodes",
    "Forecaster",
    "HideInputs",
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
    "evaluate",
    "fit",
    "fit_allocator",
    "mixed",
    "refit",
    "walk_forward",
]
