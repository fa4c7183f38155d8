"""One refit of a walk: a model fit at a row of a panel, and what it forecasts of the dates up to the next."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from qtorch.backtest.walk.result import Walk
from qtorch.data import Panel
from qtorch.data.sampling import Source
from qtorch.data.whole_folder import whole_folder
from qtorch.deploy import load_weights, save
from qtorch.forecast import Forecast
from qtorch.training import Allocator, Forecaster
from qtorch.training.ensemble import Model
from qtorch.training.refit import modules

Walkable = Forecaster | Allocator | Model
"""What can be walked: a network to be trained, or a baseline, which is estimated in the course of a forecast."""

Weights = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Refitting:
    """A pure function of a row, the row after its last date, a seed and the weights of the refit before.

    A refit that a folder has already is taken from there. A baseline has no weights, and is estimated again. An
    allocator gives its weights alone, since what it decides depends on what refits before it did.

    Attributes:
        make_model: makes a fresh model.
        fit: gives a model for a row, a seed, and weights to start from.
        panel: the market.
        source: its windows.
        forecasting: further arguments of a forecast.
        folder: for what the refits gave; None keeps nothing.
    """

    make_model: Callable[[], Walkable]
    fit: Callable[[int, int, Weights | None], Walkable]
    panel: Panel
    source: Source | None
    forecasting: Mapping[str, Any]
    folder: Path | None

    def __call__(
        self, row: int, stop: int, seed: int, weights: Weights | None
    ) -> tuple[Forecast | Weights, Weights | None]:
        """Forecasts for the rows up to `stop`, or an allocator's weights, and weights for the refit after this."""
        home = None if self.folder is None else home_of(self.folder, self.panel.dates[row], seed)
        kept = home is not None and home.exists()
        with torch.random.fork_rng(devices=[]):
            model = self.make_model() if kept else self.fit(row, seed, weights)
        network = model if isinstance(model, Forecaster | Allocator) else None
        if home is not None and kept and network is not None:
            load_weights(network, home)
        forecast = None
        if not isinstance(model, Allocator):
            forecast = model.forecast(self.panel, self.panel.dates[row:stop], source=self.source, **self.forecasting)
        if home is not None and not kept:
            with whole_folder(home) as part:
                if network is not None:
                    save(network, part, {"refit": f"{self.panel.dates[row]:%Y-%m-%d}", "seed": seed})
                if forecast is not None:
                    Walk.of(forecast, self.panel, [row], stop).to_parquet(part / "walk.parquet")
        if network is None:
            assert forecast is not None
            return forecast, None
        state = modules(network).state_dict()
        return state if forecast is None else forecast, state


def home_of(folder: Path, date: pd.Timestamp, seed: int) -> Path:
    """Where the refit of a date and a seed is kept."""
    return folder / f"refit={date:%Y-%m-%d}" / f"seed={seed}"
