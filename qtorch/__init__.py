"""qtorch: masked market windows in, distributions and portfolio weights out."""

from qtorch import calibration, data, distributions, heads, models, nn, risk, training
from qtorch.forecast import Forecast
from qtorch.training import Allocator, Forecaster

__version__ = "0.1.0"

__all__ = [
    "Allocator",
    "Forecast",
    "Forecaster",
    "calibration",
    "data",
    "distributions",
    "heads",
    "models",
    "nn",
    "risk",
    "training",
]
