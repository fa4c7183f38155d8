"""Market data: calendars, point-in-time panels, causal features and masked windows."""

from qtorch.data.calendars import sessions
from qtorch.data.datamodule import DataModule
from qtorch.data.errors import DataError
from qtorch.data.features import Features
from qtorch.data.panel import Panel, State
from qtorch.data.sample import load_sample
from qtorch.data.windows import Window, WindowSource, WindowSpec

__all__ = [
    "DataError",
    "DataModule",
    "Features",
    "Panel",
    "State",
    "Window",
    "WindowSource",
    "WindowSpec",
    "load_sample",
    "sessions",
]
