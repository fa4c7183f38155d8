"""When samples are made and when their labels are known: all that a split in time depends on."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int, Int64

from qtorch.data.errors import DataError
from qtorch.errors import ArgumentError


@dataclass(frozen=True, eq=False)
class Samples:
    """When each of `K` samples is made and when its label is known: all that a split depends on, in any order.

    Rows are those of a panel, the sessions of the union of its exchanges' calendars.

    Attributes:
        start: row of the as-of, which is the last session that the sample sees.
        end: row at which its label is known, the last if it has several; `rows` or more where it never is, and then
            the sample is neither for training nor for test.
        rows: number of rows `T` of the panel.
        asset: column of the sample's asset; give it with `session` or not at all.
        session: number of the as-of among the asset's own sessions, counted from anywhere, for the embargo. Without
            it the embargo counts rows. Sessions without a sample are looked for on neither side of a test, so that
            gaps between an asset's samples can make its embargo longer, never shorter.

    Raises:
        ValueError: arrays that are no signed integers, differ in length or contradict each other.
    """

    start: Int[np.ndarray, " K"]
    end: Int[np.ndarray, " K"]
    rows: int
    asset: Int[np.ndarray, " K"] | None = None
    session: Int[np.ndarray, " K"] | None = None

    def __post_init__(self) -> None:
        """Checks the arrays."""
        for name in ("start", "end", "asset", "session"):
            array = getattr(self, name)
            if array is not None and (array.dtype.kind != "i" or array.shape != (len(self.start),)):
                wanted = f"{len(self.start)} signed integers in one dimension"
                raise ArgumentError(f"{name} must be {wanted}, not {array.dtype} {array.shape}.")
        if (self.asset is None) != (self.session is None):
            raise ArgumentError("give asset and session together: own sessions are counted for each asset.")
        for what, wrong in (
            (f"start must lie in 0..{self.rows - 1}", (self.start < 0) | (self.start >= self.rows)),
            ("end must not lie before start", self.end < self.start),
            ("asset must not be negative", np.zeros(0, bool) if self.asset is None else self.asset < 0),
        ):
            if wrong.any():
                at = int(wrong.argmax())
                raise ArgumentError(
                    f"{what}, but sample {at} has start {self.start[at]}, end {self.end[at]}"
                    + (f", asset {self.asset[at]}." if self.asset is not None else ".")
                )

    def __len__(self) -> int:
        """The number of samples `K`."""
        return len(self.start)


def as_samples(X: Any, horizon: int = 0) -> Samples:
    """What a splitter reads from the X that it is given.

    Args:
        X: `Samples`; or an object whose `samples()` returns them; or a frame or series, of pandas or with a
            `to_pandas`, in any order, whose index or columns `date` and, if they are several, `asset` (or qlib's
            `datetime` and `instrument`) tell the dates and assets; or a frame with a RangeIndex and no such column, or
            anything else with a length, each row or element a session.
        horizon: sessions of the asset's own, which are its rows in the frame, after which the label of a row is
            known: 0 where at its own, h for the return over the next h sessions. An asset's last rows, whose labels
            would be known after its last session, take no part: give the frame with them.

    Raises:
        DataError: a frame or series without datetimes for dates, with missing dates, or with a (date, asset) pair
            twice.
    """
    if isinstance(X, Samples):
        return X
    if callable(getattr(X, "samples", None)):
        return X.samples()
    if callable(getattr(X, "to_pandas", None)):
        X = X.to_pandas()
    if isinstance(X, pd.DataFrame | pd.Series):
        dates, assets = _keys(X)
        if dates is not None:
            start, different = _ranks(dates)
            if assets is not None:
                return _of_assets(start, different, assets, horizon)
            return Samples(start, start + horizon, len(different))
    start = np.arange(X.shape[0] if hasattr(X, "shape") else len(X))
    return Samples(start, start + horizon, len(start))


def _keys(X: pd.DataFrame | pd.Series) -> tuple[pd.Index | None, pd.Index | None]:
    """The dates and the assets of the rows; None where there are none."""
    index = X.index
    if isinstance(index, pd.MultiIndex):
        dated = [level for level in range(index.nlevels) if isinstance(index.levels[level], pd.DatetimeIndex)]
        if index.nlevels != 2 or len(dated) != 1:
            raise DataError(
                f"X must be indexed by (date, asset) with datetimes for dates, not by the levels "
                f"{[f'{name}: {level.dtype}' for name, level in zip(index.names, index.levels, strict=True)]}. "
                f"Convert the dates with pd.to_datetime, and put further levels into columns."
            )
        return index.get_level_values(dated[0]), index.get_level_values(1 - dated[0])
    dates = index if isinstance(index, pd.DatetimeIndex) else _column(X, "date", "datetime")
    assets = _column(X, "asset", "instrument")
    in_order = isinstance(index, pd.RangeIndex) and index.step > 0
    if not isinstance(dates, pd.DatetimeIndex) and not (in_order and dates is None and assets is None):
        found = index if dates is None else dates
        raise DataError(
            f"X must have the dates of its rows, as datetimes, as its index or as a column 'date', but its "
            f"{found.name or 'index'} holds {found.dtype}. Convert them with pd.to_datetime; or, where the rows are "
            f"the sessions of one series in the order of time, leave the index out: X.reset_index(drop=True)."
        )
    return dates, assets


def _column(X: pd.DataFrame | pd.Series, *names: str) -> pd.Index | None:
    """The index or the first column that has one of some names."""
    for name in names:
        if name == X.index.name:
            return X.index
        if name in getattr(X, "columns", ()):
            return pd.Index(X[name])
    return None


def _of_assets(start: Int64[np.ndarray, " K"], dates: pd.Index, assets: pd.Index, horizon: int) -> Samples:
    """Samples of (date, asset) pairs, whose dates are given by their positions."""
    asset, names = pd.factorize(assets, use_na_sentinel=False)
    order = np.lexsort((start, asset))
    row, owner = start[order], asset[order]
    twice = np.flatnonzero((np.diff(row) == 0) & (np.diff(owner) == 0))
    if len(twice):
        raise DataError(
            f"X has {len(twice)} (date, asset) pairs more than once, the first of them "
            f"{dates[row[twice[0]]]:%Y-%m-%d} {names[owner[twice[0]]]}. Drop the duplicates."
        )
    session, end = np.empty_like(start), np.full(len(start), len(dates))
    session[order] = np.arange(len(start))  # of no consequence where each asset's count begins
    until = max(0, len(start) - horizon)
    end[order[:until]] = np.where(owner[horizon:] == owner[:until], row[horizon:], len(dates))
    return Samples(start, end, len(dates), asset, session)


def _ranks(dates: pd.Index) -> tuple[Int64[np.ndarray, " K"], pd.Index]:
    """The position of each date among all different dates in order."""
    rank, different = pd.factorize(dates, sort=True)
    if (rank < 0).any():
        raise DataError(f"X has no date at position {int((rank < 0).argmax())}. Drop or mend such rows.")
    return rank, different
