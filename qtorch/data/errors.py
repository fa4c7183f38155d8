"""The errors of bad market data."""

from collections.abc import Iterable

import pandas as pd

from qtorch.errors import BriefInNotebooks


class DataError(BriefInNotebooks, ValueError):
    """Market data that cannot be used as it stands; the message says what, where and what to do."""


def name_rows(rows: pd.DataFrame, most: int = 5) -> str:
    """Names offending rows for an error message: ``AAPL 2020-01-02 (row 17), ...``.

    Args:
        rows: frame with columns `asset`, `date` and `row` (the position in the user's frame).
        most: how many to name before "and n more".
    """
    named = [f"{a} {_day(d)} (row {r})" for a, d, r in rows[["asset", "date", "row"]].head(most).to_numpy()]
    return listing(named, total=len(rows))


def listing(names: Iterable[object], most: int = 5, total: int | None = None, between: str = ", ") -> str:
    """Joins names for an error message, at the most `most` of them."""
    shown = [str(name) for name in names]
    total = len(shown) if total is None else total
    shown = shown[:most]
    return between.join(shown) + (f" and {total - len(shown)} more" if total > len(shown) else "")


def counted(number: int, what: str) -> str:
    """A number and what is counted: ``1 date``, ``2 dates``."""
    return f"{number} {what}{'s' * (number != 1)}"


def span(dates: pd.DatetimeIndex) -> str:
    """The first date and the last: ``2020-01-02..2020-12-31``; of one, itself."""
    days = [f"{date:%Y-%m-%d}" for date in dates[[0, -1]]] if len(dates) else ["none"]
    return "..".join(dict.fromkeys(days))


def _day(date: object) -> str:
    return f"{date:%Y-%m-%d}" if isinstance(date, pd.Timestamp) and date == date.normalize() else str(date)
