"""At which rows of a panel a walk fits its model again, and where it ends."""

import operator
from collections.abc import Iterable
from typing import cast

import numpy as np
import pandas as pd

from qtorch.backtest.schedule import Rebalance, rebalance_rows
from qtorch.data import Panel
from qtorch.data.errors import DataError
from qtorch.errors import ArgumentError

Date = str | pd.Timestamp


def refit_rows(
    panel: Panel,
    refits: Rebalance | np.integer | Iterable[Date],
    start: Date | None,
    end: Date | None,
) -> tuple[list[int], int]:
    """Rows of refits, and the row after the last one that is walked.

    Args:
        panel: the market.
        refits: dates of the panel, ascending; or a schedule from the start on, as of `rebalance_rows`. The last row of
            the panel is a refit if the next session is in the next period, as it would be in a longer panel.
        start: the first refit of a schedule: at the first row on or after it.
        end: the last date; None is the panel's.

    Raises:
        DataError: a date of a refit is not among the panel's, or no row is on or after the start.
        ValueError: the dates are not ascending up to the end, there is none, or the start is missing or too many.
    """
    dates = panel.dates
    stop = len(dates) if end is None else int(dates.searchsorted(pd.Timestamp(end), side="right"))
    if isinstance(refits, np.integer):
        refits = operator.index(refits)
    if isinstance(refits, str | int):
        if start is None:
            raise ArgumentError(f"refits={refits!r} is a schedule, which needs a start: the date of its first refit.")
        first = int(dates.searchsorted(pd.Timestamp(start)))
        if first >= stop:
            raise DataError(
                f"no row of the panel is from start={start} to end={end}; it has {dates[0]:%Y-%m-%d} to "
                f"{dates[-1]:%Y-%m-%d}."
            )
        walked = pd.DatetimeIndex([*dates[:stop], _after(panel, stop)])
        return rebalance_rows(walked, cast(Rebalance, refits), first, stop).tolist(), stop
    if start is not None:
        raise ArgumentError(f"refits at dates of their own begin at the first of them; leave start={start} out.")
    rows = [panel.row(pd.Timestamp(date)) for date in refits]
    if not rows or any(a >= b for a, b in zip(rows, [*rows[1:], stop], strict=True)):
        raise ArgumentError(
            f"a walk needs refits at ascending dates up to its end, {dates[stop - 1]:%Y-%m-%d}; they are at "
            f"{[f'{dates[row]:%Y-%m-%d}' for row in rows]}."
        )
    return rows, stop


def _after(panel: Panel, row: int) -> pd.Timestamp:
    """The date of a row of the panel; of the row after its last, the first session to come, which calendars tell.

    A desk that asks before the last date's own closes has calendars that tell no later session: for it, a weekday.
    """
    if row < len(panel.dates):
        return panel.dates[row]
    last, coming = panel.dates[-1], panel.next_session_day[-1].numpy().astype("datetime64[D]")
    later = coming[coming > last.to_datetime64()]
    return pd.Timestamp(later.min()) if len(later) else last + pd.offsets.BDay()
