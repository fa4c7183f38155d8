"""Dates and instants as a user gives them, read without a guess."""

from typing import Any

import numpy as np
import pandas as pd

from qtorch.data import DataError
from qtorch.data.errors import listing

_REMEDY = "Give instants with a time zone, for example pd.to_datetime(known_at, utc=True) of UTC times."


def instants(
    known_at: pd.DatetimeIndex | pd.Series | pd.DataFrame,
    dates: pd.DatetimeIndex | None,
    assets: tuple[str, ...] | None,
) -> np.ndarray:
    """UTC instants as datetime64[us], of each row as they come, or of each date and asset where these are given.

    Args:
        known_at: of each date, in their order, or by them; or a frame of dates by assets.
        dates: the `D` rows.
        assets: the `N` columns.

    Raises:
        DataError: they have no time zone, or not one for each.
    """
    if isinstance(known_at, pd.DataFrame):
        if dates is None or assets is None or set(known_at.columns) != set(assets) or not known_at.index.is_unique:
            raise DataError(f"known_at has columns {listing(known_at.columns)}, the values {listing(assets or ())}.")
        known_at = known_at.reindex(dates)
        return np.stack([_utc(known_at[asset]) for asset in assets], axis=1)
    if dates is None or assets is None:
        return _utc(known_at)
    if isinstance(known_at, pd.Series) and isinstance(known_at.index, pd.DatetimeIndex):
        known_at = known_at.reindex(dates)
    if len(known_at) != len(dates):
        raise DataError(f"{len(known_at)} instants known_at for {len(dates)} dates. Give one for each.")
    return np.broadcast_to(_utc(known_at)[:, None], (len(dates), len(assets)))


def _utc(known_at: pd.DatetimeIndex | pd.Series) -> np.ndarray:
    if not isinstance(known_at.dtype, pd.DatetimeTZDtype):
        raise DataError(f"known_at is {known_at.dtype}, without a time zone. {_REMEDY}")
    return pd.DatetimeIndex(known_at).tz_convert("UTC").tz_localize(None).to_numpy("M8[us]")


def of_column(dates: pd.Series) -> np.ndarray:
    """Session labels of a column, in any order.

    Raises:
        DataError: one cannot be read, or has a time zone.
    """
    try:
        read: Any = pd.to_datetime(dates)
    except (ValueError, TypeError) as error:
        raise DataError(f"dates that cannot be read ({error}). Give dates such as 2021-01-04.") from error
    if read.dtype.kind != "M" or isinstance(read.dtype, pd.DatetimeTZDtype) or read.isna().any():
        raise DataError(f"date is {read.dtype}, or one is absent. Give session labels, dates without a time zone.")
    return read.to_numpy("M8[us]")


def session_labels(dates: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """The same dates, checked to be ascending labels of sessions.

    Raises:
        DataError: they have a time zone or a time of day, are twice or out of order.
    """
    if dates.tz is not None:
        raise DataError(f"dates have the time zone {dates.tz}. Session labels have none: dates.tz_localize(None).")
    for bad, what, remedy in (
        (dates.isna(), "dates that are absent", "Give each row its date"),
        (dates != dates.normalize(), "dates with a time of day", "Session labels are dates; times go to known_at"),
        (dates.duplicated(), "dates twice", "Keep one row of each"),
    ):
        if np.any(bad):
            raise DataError(f"{what}: {listing(dates[bad])}. {remedy}.")
    if not dates.is_monotonic_increasing:
        raise DataError("dates are out of order. Sort the rows by date.")
    return dates
