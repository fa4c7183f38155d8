"""Masked windows of all assets at once, for models that look across them."""

from functools import cached_property

import torch
from jaxtyping import Int, Int32, Int64
from torch import Tensor

from qtorch.data.features.feature import BLOCK
from qtorch.data.panel import Panel
from qtorch.data.samples import Samples
from qtorch.data.store import release
from qtorch.data.table import SessionTable
from qtorch.data.window import Window, WindowSpec
from qtorch.data.windows import MAPPED, WindowSource
from qtorch.errors import ArgumentError

_PIECE = 1 << 22  # windows of single assets looked at at once


class PanelWindowSource:
    """All windows of a panel in panel layout: the last `C` rows of all `N` assets up to a row; a batch is a gather.

    A row's inputs are those of the sessions known at it; where an asset is closed, missing or not listed, it is masked.
    Targets are over the asset's own sessions, known where it is observed at the window's last row, so that each session
    counts once; the scale is that of its last session. An entry is a row of the panel. Beside the table there are two
    numbers of four bytes for each row and asset.

    Args:
        panel: the market; windows live on its device.
        spec: what a window holds; its context counts rows of the panel.
        table: the panel's session table, if it has been computed already; with a table on disk little is in memory.

    Raises:
        DataError: no asset has a return after its warm-up, or the table was made for another panel or other windows.
    """

    def __init__(self, panel: Panel, spec: WindowSpec, table: SessionTable | None = None) -> None:
        self.panel, self.spec = panel, spec
        self._own = WindowSource(panel, spec, table)
        self.table = self._own.table
        if self.table.since:
            raise ArgumentError("a table of the last rows has no windows in panel layout. Leave it out.")

    def entries(
        self, first: int = 0, last: int | None = None, known_by: int | None = None, embargo: int = 0
    ) -> Int64[Tensor, " K"]:
        """Rows in `first..last` (inclusive) on which an asset is usable, with its shortest target known by a row.

        Args:
            first: row of the panel.
            last: row of the panel; its last by default.
            known_by: row of the panel; None asks for no target.
            embargo: the asset's own sessions that must lie between the target and that row.
        """
        pieces = self._own.entries(first, last, known_by, embargo).split(_PIECE)
        return torch.cat([self._own.places(piece)[0].unique() for piece in pieces]).unique().long()

    def places(self, entries: Int[Tensor, " K"]) -> tuple[Int[Tensor, " K"], Int[Tensor, " K"]]:
        """The panel's rows of the windows, and -1 for their columns, as they are of all."""
        return entries, torch.full_like(entries, -1)

    def samples(self, entries: Int[Tensor, " K"] | None = None) -> Samples:
        """When the windows of some rows (all by default) are made, and when the last of all their targets is known.

        Purging by that row holds for every asset and horizon. An embargo counts rows of the panel.
        """
        rows = (self.entries() if entries is None else entries).cpu()
        end = torch.full((len(self.panel.dates),), -1, dtype=torch.int64)
        own = self._own.entries()
        for horizon in self.spec.horizons:
            known = self._own.samples(own, horizon)
            start, until = torch.from_numpy(known.start), torch.from_numpy(known.end)
            end.scatter_reduce_(0, start, torch.where(until < known.rows, until, -1), "amax")
        end = torch.where(end < 0, len(end), end)[rows.long()]
        return Samples(start=rows.long().numpy(), end=end.numpy(), rows=len(self.panel.dates))

    def gather(
        self,
        entries: Int[Tensor, " B"],
        *,
        known_by: int | None = None,
        embargo: int = 0,
        every_position: bool = False,
        context: int | None = None,
    ) -> Window:
        """The windows that end at some rows.

        Args:
            entries: rows of the panel.
            known_by: targets that become known after this row of the panel are masked.
            embargo: and those of this many own sessions up to it.
            every_position: targets from each of the window's rows, not from its last alone.
            context: rows to see, at most the spec's.
        """
        C = self.spec.context if context is None else context
        if not 1 <= C <= self.spec.context:
            raise ArgumentError(f"context must be 1 to {self.spec.context} rows, the spec's, not {C}.")
        table = self.table
        if table.folder is not None:
            release(above=MAPPED)
        position, latest = self._grids
        rows = entries.to(position.device).long()
        steps = rows[:, None] + torch.arange(1 - C, 1, device=rows.device)
        seen = torch.where(steps[:, :, None] < 0, 0, position[steps.clamp(min=0)])  # [B, C, N]
        asked, last = (seen, latest[steps.clamp(min=0)]) if every_position else (seen[:, -1], latest[rows])
        target = table.target.index_select(0, asked.flatten()).unflatten(0, asked.shape)
        known = target == target  # NaN is where a target is not known
        if known_by is not None:
            bound = self._own.known_until(known_by) - embargo
            known &= (asked.unsqueeze(-1) + torch.tensor(self.spec.horizons, device=rows.device)) <= bound[:, None]
        axes = (*range(asked.ndim - 1), asked.ndim, asked.ndim - 1)  # horizons before assets
        return Window(
            table.inputs.index_select(0, seen.flatten()).unflatten(0, seen.shape),
            table.usable.index_select(0, seen.flatten()).unflatten(0, seen.shape),
            torch.where(known, target, 0.0).permute(axes),
            known.permute(axes),
            table.scale.index_select(0, last.flatten()).unflatten(0, last.shape),
            torch.full_like(rows, -1),
            rows,
        )

    @cached_property
    def _grids(self) -> tuple[Int32[Tensor, "T N"], Int32[Tensor, "T N"]]:
        """The position of each asset's session on each row, and of its last up to the row.

        0 where there is none: a padded position, which is masked, with a scale of 1 and no target.
        """
        table = self.table
        position = torch.zeros(
            len(self.panel.dates), len(self.panel.assets), dtype=torch.int32, device=table.row.device
        )
        latest = torch.zeros_like(position)
        for n in range(0, len(self.panel.assets), BLOCK):
            stop = min(n + BLOCK, len(self.panel.assets))
            first, last = table.of(n).start, table.of(stop - 1).stop
            at = torch.arange(first, last, device=position.device)[table.row[first:last] >= 0]
            position[table.row[at].long(), table.asset[at].long()] = at.int()
            latest[:, n:stop] = position[:, n:stop].cummax(0).values
            if table.folder is not None:
                release(above=MAPPED)
        return position, latest
