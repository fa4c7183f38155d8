"""What a forecast is asked for, shared by all baselines: dates, rows, and which assets have a forecast."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor
from torch.distributions import Distribution

from qtorch.data.features import OwnSessions
from qtorch.data.features.series import FLOOR
from qtorch.data.panel import Panel
from qtorch.data.rows import Dates
from qtorch.data.window import WindowSpec
from qtorch.data.windows import WindowSource
from qtorch.forecast import Forecast


@dataclass(frozen=True, eq=False)
class Request:
    """The dates of a forecast and what is known at them.

    Attributes:
        panel: the market.
        source: its windows.
        dates: as-of dates.
        rows: their rows of the panel.
        position: of each asset's last session in the source's table; a usable one where there is no forecast.
        valid: where there is a forecast.
    """

    panel: Panel
    source: WindowSource
    dates: pd.DatetimeIndex
    rows: Int64[Tensor, " D"]
    position: Int64[Tensor, "D N"]
    valid: Bool[Tensor, "D N"]

    @classmethod
    def of(
        cls,
        panel: Panel,
        dates: Dates,
        spec: WindowSpec,
        source: WindowSource | None,
        min_history: int,
        stale: int,
    ) -> "Request":
        """Looks the dates up.

        Args:
            panel: the market.
            dates: as-of dates, one or many.
            spec: of the forecaster.
            source: the panel's windows, if they have been made already.
            min_history: returns that an asset needs; with fewer it has no forecast.
            stale: after this many sessions of its exchange without a price an asset has no forecast.

        Raises:
            DataError: there is no date, or one is not among the panel's.
        """
        source = WindowSource(panel, spec) if source is None else source
        rows = panel.rows(dates)
        entries, valid = source.at(rows, min_history, stale)
        position = entries + source.spec.context - 1
        known = torch.as_tensor(rows, device=valid.device)
        return cls(panel, source, panel.dates[rows].rename(None), known, position, valid)

    @property
    def last(self) -> Int64[Tensor, "D N"]:
        """The number of each asset's last return among its own, counted from 0; 0 where there is no forecast."""
        return torch.where(self.valid, self.position - self.source.table.start, 0)

    @cached_property
    def sessions(self) -> OwnSessions:
        """Each asset's own sessions, counted as in `last`."""
        return OwnSessions(self.panel)

    def own(self, values: np.ndarray) -> Float64[Tensor, "L N"]:
        """Values `[N, L]` at own sessions with the sessions in front, on the panel's device."""
        return torch.from_numpy(values).to(self.valid.device).T.contiguous()

    @cached_property
    def returns(self) -> Float64[Tensor, "L N"]:
        """Each asset's own simple returns from its first on, NaN after its last."""
        return self.own(self.sessions.returns)

    @property
    def floor(self) -> float:
        """The least variance of a return: a price that never moves must not make a law without a width."""
        return FLOOR**2

    def answer(self, distribution: Distribution, horizons: tuple[int, ...]) -> Forecast:
        """The forecast that a distribution of batch shape `[D, H, N]` is."""
        state = self.panel.state[self.rows]
        return Forecast(distribution, self.valid, state, self.dates, self.panel.assets, horizons)
