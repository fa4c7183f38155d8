"""Historical simulation: the past returns themselves."""

from dataclasses import dataclass

import torch

from qtorch.data.panel import Panel
from qtorch.data.rows import Dates
from qtorch.data.window import WindowSpec
from qtorch.data.windows import WindowSource
from qtorch.distributions import Empirical
from qtorch.forecast import Forecast
from qtorch.models.baselines.baseline import Baseline
from qtorch.models.baselines.request import Request


@dataclass(frozen=True)
class HistoricalSimulation(Baseline):
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
        request = Request.of(panel, dates, self.spec, source, self.min_history, self.stale)
        back = torch.arange(self.window, device=request.valid.device)
        close, first = request.source.table.close, request.source.table.start[:, None]
        samples = []
        for horizon in self.spec.horizons:
            end = request.position.unsqueeze(-1) - back
            begin = end - horizon
            chosen = close[end.clamp(min=0)] / close[begin.clamp(min=0)] - 1
            samples.append(torch.where(begin >= first, chosen, torch.nan).float())
        values = torch.stack(samples, dim=1)  # [D, H, N, window]
        values = torch.where(request.valid[:, None, :, None], values, 0.0)
        return request.answer(Empirical(values), self.spec.horizons)
