"""At which rows of a panel a walk fits its model again, and where it ends."""

import operator
from collections.abc import Iterable
from typing import cast

import numpy as np
import pandas as pd
from jaxtyping import Int

from qtorch.backtest.schedule import Rebalance, rebalance_rows
from qtorch.data import DataError, Panel, sessions
from qtorch.data.calendars import dates_of
from qtorch.data.rows import Date, label
from qtorch.errors import ArgumentError

_DAYS = 366  # rows of a panel that show on which weekdays an exchange has sessions


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
        DataError: a date can't be read, a refit's is not among the panel's, the end is before the panel's first, or no
            row is from the start to the end.
        ValueError: the dates are not ascending up to the end, there is none, or the start is missing or too many.
    """
    dates = panel.dates
    stop = len(dates) if end is None else int(dates.searchsorted(label(end, "end"), side="right"))
    if not stop:
        raise DataError(f"end={end} is before the panel's first date, {dates[0]:%Y-%m-%d}. Give a later one.")
    if isinstance(refits, np.integer):
        refits = operator.index(refits)
    if isinstance(refits, str | int):
        if start is None:
            raise ArgumentError(f"refits={refits!r} is a schedule, which needs a start: the date of its first refit.")
        first = int(dates.searchsorted(label(start, "start")))
        if first >= stop:
            raise DataError(
                f"no row of the panel is from start={start} to end={end}; it has {dates[0]:%Y-%m-%d} to "
                f"{dates[-1]:%Y-%m-%d}."
            )
        walked = pd.DatetimeIndex([*dates[:stop], _after(panel, stop)])
        return rebalance_rows(walked, cast(Rebalance, refits), first, stop).tolist(), stop
    if start is not None:
        raise ArgumentError(f"refits at dates of their own begin at the first of them; leave start={start} out.")
    rows = [panel.row(date) for date in refits]
    if not rows or any(a >= b for a, b in zip(rows, [*rows[1:], stop], strict=True)):
        raise ArgumentError(
            f"a walk needs refits at ascending dates up to its end, {dates[stop - 1]:%Y-%m-%d}; they are at "
            f"{[f'{dates[row]:%Y-%m-%d}' for row in rows]}."
        )
    return rows, stop


def _after(panel: Panel, row: int) -> pd.Timestamp:
    """The date of a row of the panel; of the row after its last, the first session to come of any of its exchanges."""
    if row < len(panel.dates):
        return panel.dates[row]
    days = panel.exchange_next_day[-_DAYS:].cpu().numpy()
    return min(_session_after(panel.dates[-1], code, days[:, x]) for x, code in enumerate(panel.exchange_codes))


def _session_after(last: pd.Timestamp, code: str, upcoming: Int[np.ndarray, " t"]) -> pd.Timestamp:
    """The first session of an exchange after a panel's last date.

    The panel tells the first session whose close it does not know, which is of the last date itself for a desk that
    asks before that close. The exchange's calendar tells the one after.

    Args:
        last: the panel's last date.
        code: of the exchange.
        upcoming: the next session at each of the last rows, in days since 1970, of the calendar that made the panel.
    """
    told = pd.Timestamp(int(upcoming[-1]), unit="D")
    try:
        days = sessions(code, last, last).days
    except DataError:  # a calendar of the user's own, which a panel does not keep, or one that ends before
        days = pd.DatetimeIndex([])
    later = days[days > last]
    if len(later) and (told <= last or told in days):  # else the user has another calendar of the same code
        return later[0]
    if told > last:
        return told
    week = last + pd.to_timedelta(np.arange(1, 8), unit="D")
    return week[week.day_of_week.isin(pd.DatetimeIndex(dates_of(upcoming)).day_of_week)][0]
