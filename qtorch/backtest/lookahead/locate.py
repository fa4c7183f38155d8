"""The first input that reaches an output, found by bisection."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from qtorch.backtest.lookahead.differences import Difference, unequal
from qtorch.backtest.lookahead.markets import Cells, changed, with_cells
from qtorch.backtest.lookahead.outputs import value_of
from qtorch.backtest.lookahead.runner import Runner
from qtorch.data import Panel


@dataclass(frozen=True)
class Source:
    """An input that an output depends on.

    Attributes:
        date: of its row.
        asset: None where the output depends on there being the row, and on no price in it.
        field: of the asset; None as above.
    """

    date: pd.Timestamp
    asset: str | None
    field: str | None


class Locator:
    """Finds what one output depends on.

    Args:
        run: the pipeline.
        panel: the whole market.
        output: the output.
        scale: the usual size of its column.
        rtol: of a difference.
    """

    def __init__(self, run: Runner, panel: Panel, output: Difference, scale: float, rtol: float) -> None:
        self.run, self.panel, self.output, self.scale, self.rtol = run, panel, output, scale, rtol

    def in_changed(self, row: int, cells: Cells) -> Source:
        """The first row whose change reaches the output, and which cell of it.

        With the rows before it changed it makes the difference; so it does where only several rows together would.

        Args:
            row: the last that is as it was.
            cells: which differ from the panel's after it, and change the output.
        """
        reference = self._value(self.panel)

        def reached(last: int) -> bool:
            return self._differs(self._mixed(self.panel, cells, self._rows(row + 1, last)), reference)

        first = smallest(row, len(self.panel.dates) - 1, reached)
        return self._cell(self.panel, cells, self._rows(row + 1, first - 1), first, reference)

    def in_later_rows(self, row: int, seed: int) -> Source:
        """The first row without which the output is another, and which cell of it.

        Args:
            row: the last of a panel on which the output is another than on the whole one.
            seed: of the changes that tell the cell.
        """
        short = self._value(self._until(row))
        first = smallest(row, len(self.panel.dates) - 1, lambda last: self._differs(self._until(last), short))
        panel = self._until(first)
        reference = self._value(panel)
        none = self._rows(1, 0)[: first + 1]
        for kind in ("prices", "blank"):
            cells = changed(panel, first - 1, kind, seed)
            if self._differs(with_cells(panel, cells, first - 1), reference):
                return self._cell(panel, cells, none, first, reference)
        return Source(self.panel.dates[first], None, None)

    def _cell(self, panel: Panel, cells: Cells, before: Tensor, row: int, reference: float) -> Source:
        """The cell of a row that makes the difference, given what is changed before it; the output's asset first."""
        own = self.output.asset
        order = sorted(range(len(panel.assets)), key=lambda n: panel.assets[n] != own)

        def chosen(assets: list[int], asset: int | None = None, fields: list[int] | None = None) -> Tensor:
            mask = before.clone()
            mask[row, assets] = True
            if asset is not None and fields is not None:
                mask[row, asset, fields] = True
            return mask

        def reached(count: int) -> bool:
            return self._differs(self._mixed(panel, cells, chosen(order[:count])), reference)

        place = smallest(0, len(order), reached)
        asset = order[place - 1]
        close = panel.fields.index("close")
        fields = sorted(range(len(panel.fields)), key=lambda f: f != close)

        def reached_by(count: int) -> bool:
            mask = chosen(order[: place - 1], asset, fields[:count])
            return self._differs(self._mixed(panel, cells, mask), reference)

        field = fields[smallest(0, len(fields), reached_by) - 1]
        return Source(panel.dates[row], panel.assets[asset], panel.fields[field])

    def _rows(self, first: int, last: int) -> Tensor:
        """All cells from a row to another `[T, N, F]`."""
        row = torch.arange(len(self.panel.dates), device=self.panel.values.device)
        return ((row >= first) & (row <= last))[:, None, None].expand(self.panel.values.shape).clone()

    def _mixed(self, panel: Panel, cells: Cells, mask: Tensor) -> Panel:
        mixed = cells.where(mask, Cells.of(panel), panel.fields.index("close"))
        changed_rows = mask.flatten(1).any(1).nonzero()
        return with_cells(panel, mixed, int(changed_rows[0]) - 1 if len(changed_rows) else len(panel.dates) - 1)

    def _until(self, row: int) -> Panel:
        return self.panel.until(self.panel.dates[row])

    def _value(self, panel: Panel) -> float:
        outputs = self.run(panel, "a panel that is changed to find the input that leaks")
        return value_of(outputs, self.output.column, self.output.date, self.output.asset)

    def _differs(self, panel: Panel, reference: float) -> bool:
        value = self._value(panel)
        return bool(unequal(np.array([reference]), np.array([value]), self.scale, self.rtol).any())


def smallest(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """By bisection a number at which something holds, and before which it does not.

    Args:
        low: at which it does not hold.
        high: at which it holds.
        holds: tells; where it rises more than once, one of the places is found.
    """
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
