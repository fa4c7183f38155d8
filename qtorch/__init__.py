"""qtorch: masked market windows in, distributions and portfolio weights out."""

from qtorch import data, distributions, heads, models, nn, risk, training
from qtorch.forecast import Forecast
from qtorch.training import Forecaster

__version__ = "0.1.0"

__all__ = ["Forecast", "Forecaster", "data", "distributions", "heads", "models", "nn", "risk", "training"]
