"""Where outputs differ that ought not to."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from qtorch.backtest.lookahead.outputs import Outputs, value_of

Kind = Literal["changed", "missing", "extra", "beyond"]


@dataclass(frozen=True)
class Difference:
    """The first output of a column that differs, and how many do.

    Attributes:
        kind: ``"changed"`` to another value; ``"missing"`` where the whole panel gives one; ``"extra"`` where it
            gives none; ``"beyond"`` after the end of the panel that it was made of.
        column: the quantity.
        date: of the output.
        asset: of the output.
        before: its value on the whole panel.
        after: its value on the other.
        count: outputs of the column that differ.
    """

    kind: Kind
    column: str
    date: pd.Timestamp
    asset: str
    before: float
    after: float
    count: int


def scales_of(outputs: Outputs) -> dict[str, pd.Series]:
    """The usual size of each column's values, by asset: the median of those that are not zero, 0 if all are.

    A median, so that a spike does not hide what happens elsewhere.
    """
    finite = {name: frame.abs().replace([0.0, np.inf], np.nan) for name, frame in outputs.items()}
    return {name: frame.median().fillna(0.0) for name, frame in finite.items()}


def unequal(before: np.ndarray, after: np.ndarray, scale: np.ndarray | float, rtol: float) -> np.ndarray:
    """Where two values differ by more than `rtol` of their size or of the column's; NaN is equal to NaN."""
    same = (before == after) | (np.isnan(before) & np.isnan(after))
    with np.errstate(invalid="ignore"):  # inf less inf
        near = np.abs(before - after) <= rtol * np.maximum(np.minimum(np.abs(before), np.abs(after)), scale)
    return ~(same | near)


def differences(
    whole: Outputs, other: Outputs, limit: pd.Timestamp, scales: dict[str, pd.Series], rtol: float
) -> tuple[list[Difference], int]:
    """The first difference of each column up to a date, and how many outputs there were to compare."""
    found, compared = [], 0
    for column in dict.fromkeys([*whole, *other]):
        one, two = (each.get(column, pd.DataFrame(index=pd.DatetimeIndex([]))) for each in (whole, other))
        one, two = (frame[pd.DatetimeIndex(frame.index).normalize() <= limit] for frame in (one, two))
        dates, assets = one.index.union(two.index), one.columns.union(two.columns, sort=False)
        before, after = (frame.reindex(index=dates, columns=assets).to_numpy(float) for frame in (one, two))
        scale = scales.get(column, pd.Series(dtype=float)).reindex(assets).fillna(0.0).to_numpy(float)
        compared += int((~(np.isnan(before) & np.isnan(after))).sum())
        differs = unequal(before, after, scale, rtol)
        if not differs.any():
            continue
        t, n = np.argwhere(differs)[0]
        kind: Kind = "missing" if np.isnan(after[t, n]) else "extra" if np.isnan(before[t, n]) else "changed"
        place = (dates[t], str(assets[n]), float(before[t, n]), float(after[t, n]))
        found.append(Difference(kind, column, *place, int(differs.sum())))
    return found, compared


def beyond(whole: Outputs, other: Outputs, limit: pd.Timestamp) -> list[Difference]:
    """The first output of each column after a date after which there ought to be none, and how many there are."""
    found = []
    for column, frame in other.items():
        later = frame[pd.DatetimeIndex(frame.index).normalize() > limit]
        there = np.argwhere(later.notna().to_numpy())
        if len(there):
            date, asset = later.index[there[0, 0]], str(later.columns[there[0, 1]])
            before, after = (value_of(each, column, date, asset) for each in (whole, other))
            found.append(Difference("beyond", column, date, asset, before, after, len(there)))
    return found
