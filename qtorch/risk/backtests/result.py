"""What a backtest of a panel returns: tensors of the series' shape that print as a table."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from qtorch.errors import ArgumentError
from qtorch.risk.backtests.multiplicity import benjamini_hochberg

_FEW = 12  # series that are printed one by one
_WORST = 5


class PanelResult(ABC):
    """A result with one row for each series: `str` prints it, `to_frame` makes a pandas frame of it."""

    name: str

    @abstractmethod
    def to_frame(self, names: Sequence[Hashable] | None = None) -> pd.DataFrame:
        """One row for each series, in the order of the flattened series' axes.

        Args:
            names: of the series; their positions by default.
        """

    @abstractmethod
    def _lines(self, frame: pd.DataFrame) -> list[str]:
        """What is said above the rows; of many series a summary."""

    def table(self, names: Sequence[Hashable] | None = None) -> str:
        """The result as text: each series where they are few, else a summary and the worst of them.

        Args:
            names: of the series; their positions by default.
        """
        frame = self.to_frame(names)
        lines = self._lines(frame)
        if len(frame) > _FEW:
            lines.append(f"the worst {_WORST}:")
            frame = self._worst(frame)
        return "\n".join([*lines, frame.to_string(float_format=_number, na_rep="-")])

    def _worst(self, frame: pd.DataFrame) -> pd.DataFrame:
        return frame.nsmallest(_WORST, "p_value")

    def __str__(self) -> str:
        return self.table()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {len(self.to_frame())} series)"


@dataclass(frozen=True, eq=False, repr=False)
class BacktestResult(PanelResult):
    """A test of every series of a panel.

    Attributes:
        name: of the test.
        statistic: NaN where the test cannot be computed.
        p_value: of the null hypothesis; NaN where the test cannot be computed.
        observations: how many rows were used.
        null: the hypothesis in words.
    """

    name: str
    statistic: Float64[Tensor, "*series"]
    p_value: Float64[Tensor, "*series"]
    observations: Int64[Tensor, "*series"]
    null: str

    def rejected(self, size: float = 0.05) -> Bool[Tensor, "*series"]:
        """Series whose p-value is below `size`, each taken by itself; for all of them see `benjamini_hochberg`."""
        return self.p_value < size

    def to_frame(self, names: Sequence[Hashable] | None = None) -> pd.DataFrame:
        """Statistic, p-value, observations and the verdict at 5 % of each series.

        Args:
            names: of the series; their positions by default.
        """
        p = flat(self.p_value)
        verdict = np.where(np.isnan(p), "not testable", np.where(p < 0.05, "rejected", "not rejected"))
        columns = {
            "statistic": flat(self.statistic),
            "p_value": p,
            "observations": flat(self.observations),
            "verdict_at_5%": verdict,
        }
        return pd.DataFrame(columns, index=series_index(self.p_value.shape, names))

    def _lines(self, frame: pd.DataFrame) -> list[str]:
        lines = [self.name, f"H0: {self.null}"]
        if len(frame) <= _FEW:
            return lines
        p, n = frame["p_value"], frame["observations"]
        tested = p.notna()
        lines.append(f"{len(frame):,} series, {int(tested.sum()):,} testable, {n.min():,} to {n.max():,} observations")
        for size in (0.01, 0.05, 0.10):
            lines.append(
                f"rejected at {size:4.0%}: {(p < size).sum():,} ({(p < size).sum() / max(tested.sum(), 1):.1%})"
            )
        adjusted = benjamini_hochberg(self.p_value)
        lines.append(f"rejected at a false discovery rate of 5% (Benjamini-Hochberg): {int((adjusted < 0.05).sum()):,}")
        return lines


def series_index(shape: torch.Size, names: Sequence[Hashable] | None) -> pd.Index:
    """The rows of a frame of series: their names, or their positions, of several axes as a MultiIndex.

    Raises:
        ValueError: there are not as many names as series.
    """
    count = shape.numel()
    if names is not None:
        if len(names) != count:
            raise ArgumentError(f"{len(names)} names for {count} series; give one name for each series.")
        return pd.Index(names, name="series")
    if len(shape) < 2:
        return pd.RangeIndex(count, name="series")
    return pd.MultiIndex.from_product([range(k) for k in shape], names=[f"axis {i + 1}" for i in range(len(shape))])


def zone_names(zone: Int64[Tensor, "*series"], names: Sequence[str], none: str) -> np.ndarray:
    """Each series' zone in words, `none` where it is -1."""
    return np.array([*names, none], dtype=object)[flat(zone)]


def zone_counts(frame: pd.DataFrame, names: Sequence[str], what: str) -> str:
    """How many rows of a frame are in each zone."""
    counts = ", ".join(f"{int((frame['zone'] == zone).sum()):,} {zone}" for zone in names)
    return f"{len(frame):,} {what}: {counts}"


def flat(tensor: Tensor) -> np.ndarray:
    """A tensor as a flat numpy array."""
    return tensor.detach().cpu().reshape(-1).numpy()


def _number(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 1e5 else f"{value:.3e}"
