"""Baselines with a forecaster's interface that need no training: what a risk desk runs today."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.distributions import Normal

from qtorch.data.panel import Panel
from qtorch.data.window import WindowSpec
from qtorch.data.windows import WindowSource
from qtorch.distributions import Empirical
from qtorch.forecast import Forecast

Dates = Iterable[str | pd.Timestamp] | str | pd.Timestamp


@dataclass(frozen=True)
class RiskMetrics:
    """Normal returns with an EWMA volatility, scaled by the square root of the horizon.

    Attributes:
        spec: horizons, and in its features the decay (.94).
        min_history: returns that an asset needs.
        stale: after this many sessions of its exchange without a price an asset has no forecast.

    References:
        J.P. Morgan (1996), RiskMetrics Technical Document, section 5.2.
    """

    spec: WindowSpec = WindowSpec()
    min_history: int = 60
    stale: int = 5

    def forecast(self, panel: Panel, dates: Dates, *, source: WindowSource | None = None) -> Forecast:
        """Forecasts every asset of a panel at some of its dates; `source` as of `Forecaster.forecast`."""
        source = WindowSource(panel, self.spec) if source is None else source
        dates, rows, position, valid = _positions(panel, dates, source, self.min_history, self.stale)
        root = torch.tensor([math.sqrt(h) for h in self.spec.horizons], device=valid.device)
        sigma = torch.where(valid, source.table.scale[position], 1.0)[:, None, :] * root[:, None]
        return Forecast(
            Normal(torch.zeros_like(sigma), sigma),
            valid,
            panel.state[rows],
            dates,
            panel.assets,
            self.spec.horizons,
        )


@dataclass(frozen=True)
class HistoricalSimulation:
    """The empirical distribution of an asset's last returns; over h sessions, of its overlapping h-session returns.

    Attributes:
        window: how many returns; an asset with fewer is forecast from those it has.
        spec: horizons.
        min_history: returns that an asset needs.
        stale: after this many sessions of its exchange without a price an asset has no forecast.
    """

    window: int = 500
    spec: WindowSpec = WindowSpec()
    min_history: int = 60
    stale: int = 5

    def forecast(self, panel: Panel, dates: Dates, *, source: WindowSource | None = None) -> Forecast:
        """Forecasts every asset of a panel at some of its dates; `source` as of `Forecaster.forecast`."""
        source = WindowSource(panel, self.spec) if source is None else source
        dates, rows, position, valid = _positions(panel, dates, source, self.min_history, self.stale)
        back = torch.arange(self.window, device=valid.device)
        close, first = source.table.close, source.table.start[:, None]
        samples = []
        for horizon in self.spec.horizons:
            end = position.unsqueeze(-1) - back
            begin = end - horizon
            chosen = close[end.clamp(min=0)] / close[begin.clamp(min=0)] - 1
            samples.append(torch.where(begin >= first, chosen, torch.nan).float())
        values = torch.stack(samples, dim=1)  # [D, H, N, window]
        values = torch.where(valid[:, None, :, None], values, 0.0)
        return Forecast(Empirical(values), valid, panel.state[rows], dates, panel.assets, self.spec.horizons)


def _positions(
    panel: Panel, dates: Dates, source: WindowSource, min_history: int, stale: int
) -> tuple[pd.DatetimeIndex, Tensor, Tensor, Tensor]:
    """Dates, rows, and for each date and asset: its last session's position in the table, whether it has a forecast."""
    dates = pd.DatetimeIndex(np.atleast_1d(np.asarray(dates, dtype="M8[us]")))
    rows = np.array([panel.row(date) for date in dates])
    entries, valid = source.at(rows, min_history, stale)
    return dates, torch.as_tensor(rows, device=valid.device), entries + source.spec.context - 1, valid
