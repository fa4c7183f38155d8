"""Market data: calendars, point-in-time panels, causal features and masked windows."""

from qtorch.data.calendars import Calendar, sessions
from qtorch.data.datamodule import DataModule, WindowDataset, chronological_split, whole
from qtorch.data.errors import DataError
from qtorch.data.features import Features
from qtorch.data.panel import Panel
from qtorch.data.panel_windows import PanelWindowSource
from qtorch.data.portfolio import portfolio_panel
from qtorch.data.recent import SessionState, recent_source
from qtorch.data.sample import load_sample
from qtorch.data.samples import Samples
from qtorch.data.sampling import BucketBatches, WindowBatches, sampling_weights
from qtorch.data.splits import CombinatorialPurged, WalkForward
from qtorch.data.states import State
from qtorch.data.synthetic import SyntheticMarket
from qtorch.data.window import Window, WindowSpec
from qtorch.data.windows import WindowSource

__all__ = [
    "BucketBatches",
    "Calendar",
    "CombinatorialPurged",
    "DataError",
    "DataModule",
    "Features",
    "Panel",
    "PanelWindowSource",
    "Samples",
    "SessionState",
    "State",
    "SyntheticMarket",
    "WalkForward",
    "Window",
    "WindowBatches",
    "WindowDataset",
    "WindowSource",
    "WindowSpec",
    "chronological_split",
    "load_sample",
    "portfolio_panel",
    "recent_source",
    "sampling_weights",
    "sessions",
    "whole",
]
