"""Historical simulation: the past returns themselves."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor

from qtorch.data.panel import Panel
from qtorch.data.rows import Dates
from qtorch.data.window import WindowSpec
from qtorch.data.windows import WindowSource
from qtorch.distributions import Empirical
from qtorch.distributions.empirical import equal_rank
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

    def lower_tails(
        self, panel: Panel, rows: Int64[np.ndarray, " D"], levels: Sequence[float]
    ) -> list[tuple[Float32[Tensor, "D N"], Float32[Tensor, "D N"]]]:
        """Values at risk and expected shortfalls of the next session: those of `forecast`, of the tail's returns alone.

        Of each window the worst returns are found, and sorted, by themselves, some ten times as fast as its law.

        Args:
            panel: the market.
            rows: rows of the panel.
            levels: confidences.

        Returns:
            By level, whether or not an asset has enough returns; NaN where it has none.
        """
        returns, there = panel.returns().cpu().numpy(), panel.mask.cpu().numpy()
        shape = (len(rows), returns.shape[1])
        found = [np.full((2, *shape), np.nan, np.float32) for _ in levels]
        probabilities = [torch.tensor(1 - level, dtype=torch.float64) for level in levels]
        before = np.full(self.window, np.inf, np.float32)  # of a short history: as good as not there
        for n in range(shape[1]):
            at = np.flatnonzero(there[:, n])
            # The first two closes are those that the first return of a window may be of, as in the table of sessions.
            own = np.concatenate([before, returns[at[2:], n].astype(np.float32)])
            end = np.searchsorted(at[2:], rows, side="right")
            some = end > 0
            count = torch.from_numpy(np.minimum(end[some], self.window))
            if not some.any():
                continue
            ranks = [equal_rank(p, count).numpy() for p in probabilities]
            last = max(int(rank.max()) for rank in ranks)
            windows = sliding_window_view(own, self.window)[end[some]]
            worst = np.partition(windows, last - 1, axis=-1)[:, :last] if last < self.window else windows
            worst = np.sort(worst, axis=-1)
            total = worst.cumsum(-1, dtype=np.float64).astype(np.float32)
            each = np.arange(len(worst))
            for values, rank in zip(found, ranks, strict=True):
                values[0, some, n] = -worst[each, rank - 1]
                values[1, some, n] = -total[each, rank - 1] / rank.astype(np.float32)
        return [(torch.from_numpy(values[0]), torch.from_numpy(values[1])) for values in found]
