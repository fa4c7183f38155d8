"""Masked windows of all assets at once, for models that look across them."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float32, Int32, Int64
from torch import Tensor

from qtorch.data.features.feature import BLOCK
from qtorch.data.panel import Panel
from qtorch.data.samples import Samples
from qtorch.data.table import SessionTable
from qtorch.data.windows import Window, WindowSource, WindowSpec


@dataclass(frozen=True, eq=False)
class _Grids:
    """What windows of rows are cut from, with `C` - 1 masked rows before the panel's first.

    Attributes:
        inputs: 0 where masked.
        mask: where an asset has a usable session.
        position: of the asset's session in the table; -1 where it has none.
        latest: of the asset's last session up to the row; -1 before its first.
    """

    inputs: Float32[Tensor, "R N F"]
    mask: Bool[Tensor, "R N"]
    position: Int32[Tensor, "T N"]
    latest: Int32[Tensor, "T N"]


class PanelWindowSource:
    """All windows of a panel in panel layout: the last `C` rows of all `N` assets up to a row; a batch is a gather.

    A row's inputs are those of the sessions known at it; where an asset is closed, missing or not listed, it is masked.
    Targets are over the asset's own sessions, known where it is observed at the window's last row, so that each session
    counts once; the scale is that of its last session.

    Args:
        panel: the market; windows live on its device.
        spec: what a window holds; its context counts rows of the panel.
        table: the panel's session table, if it has been computed already.

    Raises:
        DataError: no asset has a return after its warm-up.
    """

    def __init__(self, panel: Panel, spec: WindowSpec, table: SessionTable | None = None) -> None:
        self.panel, self.spec = panel, spec
        self._own = WindowSource(panel, spec, table)
        self.table = self._own.table

    @cached_property
    def _grids(self) -> _Grids:
        table, lead = self.table, self.spec.context - 1
        T, N, F = len(self.panel.dates), len(self.panel.assets), len(self.spec.features)
        device = table.row.device
        inputs = torch.zeros(lead + T, N, F, device=device)
        mask = torch.zeros(lead + T, N, dtype=torch.bool, device=device)
        position = torch.full((T, N), -1, dtype=torch.int32, device=device)
        for n in range(0, N, BLOCK):
            stop = min(n + BLOCK, N)
            first, last = table.of(n).start, table.of(stop - 1).stop
            at = torch.arange(first, last, device=device)[table.row[first:last] >= 0]
            row, asset = table.row[at].long(), table.asset[at].long()
            inputs[row + lead, asset] = table.inputs[at]
            mask[row + lead, asset] = table.usable[at]
            position[row, asset] = at.int()
        return _Grids(inputs, mask, position, position.cummax(0).values)

    def entries(self, first: int = 0, last: int | None = None, known_by: int | None = None) -> Int64[Tensor, " K"]:
        """Rows in `first..last` (inclusive) on which an asset is usable, with its shortest target known by a row."""
        own = self._own.entries(first, last, known_by)
        return self.table.row[own.long() + self.spec.context - 1].long().unique()

    def samples(self, entries: Int64[Tensor, " K"] | None = None) -> Samples:
        """When the windows of some rows (all by default) begin, and when the last of their longest targets is known."""
        rows = self.entries() if entries is None else entries
        own = self._own.samples()
        end = torch.full((len(self.panel.dates),), -1, dtype=torch.int64)
        start, until = torch.from_numpy(own.start), torch.from_numpy(own.end)
        end.scatter_reduce_(0, start, torch.where(until < own.rows, until, -1), "amax")
        end = torch.where(end < 0, own.rows, end)[rows.cpu()]
        return Samples(start=rows.cpu().numpy(), end=end.numpy(), rows=own.rows)

    def gather(self, entries: Int64[Tensor, " B"], *, known_by: int | None = None) -> Window:
        """The windows that end at some rows.

        Args:
            entries: rows of the panel.
            known_by: targets that become known after this row of the panel are masked.
        """
        grids, table, C = self._grids, self.table, self.spec.context
        rows = entries.to(table.row.device)
        steps = rows[:, None] + torch.arange(C, device=rows.device)  # C - 1 masked rows stand before the first
        position, latest = grids.position[rows].long(), grids.latest[rows].long()
        target, known, when = self._own.targets((position - (C - 1)).clamp(min=-(C - 1)))
        known = known & (position >= 0).unsqueeze(-1)
        if known_by is not None:
            known = known & (when <= known_by)
        scale = torch.where(latest >= 0, table.scale[latest.clamp(min=0)], 1.0)
        return Window(
            grids.inputs[steps],
            grids.mask[steps],
            torch.where(known, target, 0.0).movedim(2, 1),
            known.movedim(2, 1),
            scale,
            torch.full_like(rows, -1),
            rows,
        )
