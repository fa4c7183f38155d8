"""What a walk through time gives: forecasts or weights of every date, and when each was known."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from qtorch.data import Panel
from qtorch.data.errors import counted, span
from qtorch.distributions import concatenate
from qtorch.errors import ArgumentError
from qtorch.forecast import Forecast

Answer = Forecast | pd.DataFrame
"""Of a model at some dates: a forecast, or weights, one row a date and one column an asset."""

LEVELS = (0.95, 0.975, 0.99)


@dataclass(frozen=True, eq=False)
class Walk:
    """What models said at `D` dates, each fit at the last refit on or before the date.

    Attributes:
        answer: the forecasts, or the weights; see `forecast` and `weights`.
        dates: as-of dates.
        known_at: the UTC instants up to which the answers know the world, those of the panel's rows; none can be traded
            on before.
        refits: the date of the refit that each date's answer is of.
    """

    answer: Answer
    dates: pd.DatetimeIndex
    known_at: pd.DatetimeIndex
    refits: pd.DatetimeIndex

    @classmethod
    def of(cls, answer: Answer, panel: Panel, rows: Sequence[int], stop: int) -> "Walk":
        """A walk with refits at some rows of a panel, up to the row before `stop`."""
        first = rows[0]
        fit_at = np.repeat(rows, np.diff([*rows, stop]))
        return cls(answer, panel.dates[first:stop], panel.as_of[first:stop], panel.dates[fit_at])

    @property
    def forecast(self) -> Forecast:
        """The forecasts of all dates.

        Raises:
            ValueError: the walk is an allocator's.
        """
        if isinstance(self.answer, pd.DataFrame):
            raise ArgumentError("this walk is of an allocator and has no forecast: take its weights.")
        return self.answer

    @property
    def weights(self) -> pd.DataFrame:
        """The weights at all dates, one row a date and one column an asset.

        Each date's are decided around what an account holds that has traded to those of each date before.

        Raises:
            ValueError: the walk is a forecaster's.
        """
        if isinstance(self.answer, Forecast):
            raise ArgumentError("this walk is of a forecaster and has no weights: take its forecast.")
        return self.answer

    def to_frame(self, levels: Iterable[float] = LEVELS) -> pd.DataFrame:
        """A tidy frame, one row per date, asset, horizon and level, or per date and asset for weights.

        Args:
            levels: of value at risk and expected shortfall.

        Returns:
            Columns date, asset, known_at, refit, and the others of `Forecast.to_frame`, or weight.
        """
        if isinstance(self.answer, Forecast):
            frame = self.answer.to_frame(levels)
        else:
            frame = pd.DataFrame(
                {
                    "date": np.repeat(self.dates.to_numpy(), self.answer.shape[1]),
                    "asset": np.tile(self.answer.columns.to_numpy(), len(self.dates)),
                    "weight": self.answer.to_numpy().ravel(),
                }
            ).astype({"asset": "str"})
        place = self.dates.get_indexer(pd.DatetimeIndex(frame["date"]))
        frame.insert(2, "known_at", self.known_at[place])
        frame.insert(3, "refit", self.refits[place])
        return frame

    def to_parquet(self, path: str | Path, levels: Iterable[float] = LEVELS) -> None:
        """Writes `to_frame` to a Parquet file, whole or not at all; one that is there is replaced."""
        file = Path(path)
        aside = file.with_name(f".{file.name}.part")
        self.to_frame(levels).to_parquet(aside, index=False)
        os.replace(aside, file)

    def __repr__(self) -> str:
        kind = "forecasts" if isinstance(self.answer, Forecast) else "weights"
        return (
            f"Walk({kind} of {counted(len(self.dates), 'date')} {span(self.dates)}, "
            f"{counted(self.refits.nunique(), 'refit')})"
        )

    def _repr_html_(self) -> str:
        from qtorch.backtest.cards import walk_card

        return walk_card(self)


def in_turn(forecasts: Sequence[Forecast]) -> Forecast:
    """Forecasts of one panel at different dates as one."""
    first = forecasts[0]
    return Forecast(
        concatenate([forecast.distribution for forecast in forecasts]),
        torch.cat([forecast.mask for forecast in forecasts]),
        torch.cat([forecast.state for forecast in forecasts]),
        pd.DatetimeIndex(np.concatenate([forecast.dates for forecast in forecasts])),
        first.assets,
        first.horizons,
    )
