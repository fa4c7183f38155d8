"""When samples are made and when their labels are known: all that a split in time depends on."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int, Int64

from qtorch.data.errors import DataError


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
                raise ValueError(f"{name} must be {wanted}, not {array.dtype} {array.shape}.")
        if (self.asset is None) != (self.session is None):
            raise ValueError("give asset and session together: own sessions are counted for each asset.")
        for what, wrong in (
            (f"start must lie in 0..{self.rows - 1}", (self.start < 0) | (self.start >= self.rows)),
            ("end must not lie before start", self.end < self.start),
            ("asset must not be negative", np.zeros(0, bool) if self.asset is None else self.asset < 0),
        ):
            if wrong.any():
                at = int(wrong.argmax())
                raise ValueError(
                    f"{what}, but sample {at} has start {self.start[at]}, end {self.end[at]}"
                    + (f", asset {self.asset[at]}." if self.asset is not None else ".")
                )

    def __len__(self) -> int:
        """The number of samples `K`."""
        return len(self.start)


def as_samples(X: Any, horizon: int = 0) -> Samples:
    """What a splitter reads from the X that it is given.

    Args:
        X: `Samples`; or an object whose `samples()` returns them; or a frame or series, indexed by date or by
            (date, asset) in any order; or anything else with a length, each element a session.
        horizon: sessions of the asset's own, which are its rows in the frame, after which the label of a row is
            known: 0 where at its own, h for the return over the next h sessions. An asset's last rows, whose labels
            would be known after its last session, take no part: give the frame with them.

    Raises:
        DataError: an index with neither dates nor (date, asset), with missing dates, or with a pair twice.
    """
    if isinstance(X, Samples):
        return X
    if isinstance(X, pd.DataFrame | pd.Series):
        if isinstance(X.index, pd.MultiIndex):
            return _from_pairs(X.index, horizon)
        if isinstance(X.index, pd.DatetimeIndex):
            start, dates = _ranks(X.index)
            return Samples(start, start + horizon, len(dates))
    elif callable(getattr(X, "samples", None)):
        return X.samples()
    start = np.arange(X.shape[0] if hasattr(X, "shape") else len(X))
    return Samples(start, start + horizon, len(start))


def _from_pairs(index: pd.MultiIndex, horizon: int) -> Samples:
    """Samples of the (date, asset) pairs of a frame."""
    dated = [level for level in range(index.nlevels) if isinstance(index.levels[level], pd.DatetimeIndex)]
    if index.nlevels != 2 or len(dated) != 1:
        raise DataError(
            f"X must be indexed by (date, asset) with datetimes for dates, not by the levels "
            f"{[f'{name}: {level.dtype}' for name, level in zip(index.names, index.levels, strict=True)]}."
        )
    start, dates = _ranks(index.get_level_values(dated[0]))
    asset, names = pd.factorize(index.get_level_values(1 - dated[0]), use_na_sentinel=False)
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
        raise DataError(f"X has no date at position {int((rank < 0).argmax())} of its index. Drop or mend such rows.")
    return rank, different
