"""The errors of bad market data."""

from collections.abc import Iterable

import pandas as pd


class DataError(ValueError):
    """Market data that cannot be used as it stands; the message says what, where and what to do."""


def name_rows(rows: pd.DataFrame, most: int = 5) -> str:
    """Names offending rows for an error message: ``AAPL 2020-01-02 (row 17), ...``.

    Args:
        rows: frame with columns `asset`, `date` and `row` (the position in the user's frame).
        most: how many to name before "and n more".
    """
    named = [f"{a} {_day(d)} (row {r})" for a, d, r in rows[["asset", "date", "row"]].head(most).to_numpy()]
    return listing(named, total=len(rows))


def listing(names: Iterable[object], most: int = 5, total: int | None = None) -> str:
    """Joins names for an error message, at the most `most` of them."""
    shown = [str(name) for name in names]
    total = len(shown) if total is None else total
    shown = shown[:most]
    return ", ".join(shown) + (f" and {total - len(shown)} more" if total > len(shown) else "")


def _day(date: object) -> str:
    return f"{date:%Y-%m-%d}" if isinstance(date, pd.Timestamp) and date == date.normalize() else str(date)
