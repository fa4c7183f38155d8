"""Windows of one asset's own sessions, gathered by index from tensors on any device: no loop per sample, no copies."""

from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int, Int64
from torch import Tensor

from qtorch.data.errors import DataError
from qtorch.data.features.feature import BLOCK
from qtorch.data.panel import Panel
from qtorch.data.samples import Samples
from qtorch.data.standing import standing
from qtorch.data.states import State
from qtorch.data.store import release
from qtorch.data.table import ASSET, ROW, SCALE, TARGET, SessionTable, session_table
from qtorch.data.window import Window, WindowSpec
from qtorch.errors import ArgumentError

MAPPED = 1 << 29  # bytes of files that stay in memory between the pieces of a gather from disk
_PIECE = 128  # windows of a piece: each touches three places, and a touch may map two megabytes


class WindowSource:
    """All windows of a panel in asset layout; a batch is one gather per tensor.

    An entry is the number of a window: the position in the table's stream at which its context begins.

    Args:
        panel: the market; windows live on its device.
        spec: what a window holds.
        table: the panel's session table, if it has been computed already.
        store: a folder for sessions larger than memory; see `qtorch.data.table.session_table`.
        progress: show a progress bar.

    Raises:
        DataError: no asset has a return after its warm-up.
    """

    def __init__(
        self,
        panel: Panel,
        spec: WindowSpec,
        table: SessionTable | None = None,
        *,
        store: str | Path | None = None,
        progress: bool = False,
    ) -> None:
        self.panel, self.spec = panel, spec
        pad = max(spec.context - 1, spec.horizons[-1])
        if table is None:
            table = session_table(panel, spec.features, spec.horizons, pad, store=store, progress=progress)
        different = [
            name
            for name, same in (
                ("panel", table.panel is panel),
                ("features", table.features == spec.features),
                ("horizons", table.horizons == spec.horizons),
                (f"pad, below {pad}", table.pad >= pad),
            )
            if not same
        ]
        if different:
            raise DataError(f"the table was made for other windows: {', '.join(different)} differ. Leave it out.")
        self.table = table
        if not table.since and not table.usable.any():
            first, longest = spec.features.first_usable, int(table.length.max())
            raise DataError(
                f"no asset has more than {first} returns, the warm-up of the features, with all inputs there; the "
                f"longest history has {longest}. Give more history, a shorter Features(warm_up=...), or put features "
                "that a source lacks into WithIndicator(...)."
            )

    @property
    def _lead(self) -> int:
        """Positions from the beginning of a window's context to its last session."""
        return self.spec.context - 1

    def entries(
        self, first: int = 0, last: int | None = None, known_by: int | None = None, embargo: int = 0
    ) -> Int[Tensor, " K"]:
        """The entries whose row lies in `first..last` (inclusive), and whose shortest target is known by a row.

        Args:
            first: row of the panel; 0 is the first whose windows the table has.
            last: row of the panel; its last by default.
            known_by: row of the panel; None asks for no target.
            embargo: own sessions that must lie between the target and that row.

        Raises:
            ArgumentError: the table has no windows of the first row.
        """
        first = max(first, self.table.since) if first == 0 else first
        final = self.known_until(len(self.panel.dates) - 1 if last is None else last)
        if known_by is not None:
            final = torch.minimum(final, self.known_until(known_by) - embargo - self.spec.horizons[0])
        begin = self.known_until(first - 1) + 1
        count = (final - begin + 1).clamp(min=0)
        usable = self.table.usable
        short = len(usable) + self.spec.context < 2**31  # half the memory, where millions of windows are listed
        found = torch.empty(int(count.sum()), dtype=torch.int32 if short else torch.int64, device=usable.device)
        K = 0
        for n in range(0, len(count), BLOCK):
            of = count[n : n + BLOCK]
            start = begin[n : n + BLOCK] - of.cumsum(0) + of
            position = start.repeat_interleave(of) + torch.arange(int(of.sum()), device=of.device)
            position = position[usable[position]]
            found[K : K + len(position)] = position - self._lead
            K += len(position)
        return found[:K]

    def places(self, entries: Int[Tensor, " K"]) -> tuple[Int[Tensor, " K"], Int[Tensor, " K"]]:
        """The panel's rows and columns of the windows' last sessions."""
        position = entries.to(self.table.record.device) + self._lead
        row, asset = (of.index_select(0, position) for of in (self.table.row, self.table.asset))
        self._tidy()
        return row, asset

    def samples(self, entries: Int[Tensor, " K"] | None = None, horizon: int | None = None) -> Samples:
        """When windows are made and when their targets are known, which is what splits depend on.

        Args:
            entries: the windows; all by default.
            horizon: of the target; the longest by default.
        """
        table, T = self.table, len(self.panel.dates)
        position = (self.entries() if entries is None else entries).long() + self._lead
        end = table.row[position + (self.spec.horizons[-1] if horizon is None else horizon)].long()
        asset = table.asset[position].long()
        return Samples(
            start=table.row[position].long().cpu().numpy(),
            end=torch.where(end >= 0, end, T).cpu().numpy(),
            rows=T,
            asset=asset.cpu().numpy(),
            session=(position - table.start[asset]).cpu().numpy(),
        )

    def gather(
        self,
        entries: Int[Tensor, " B"],
        *,
        known_by: int | None = None,
        embargo: int = 0,
        every_position: bool = False,
        context: int | None = None,
    ) -> Window:
        """The windows of some entries.

        Args:
            entries: as of `entries()`.
            known_by: targets that become known after this row of the panel are masked.
            embargo: and those of this many own sessions up to it.
            every_position: targets from each of the window's sessions, not from its last alone.
            context: sessions to see, at most the spec's; for batches of short histories.
        """
        C = self.spec.context if context is None else context
        if not 1 <= C <= self.spec.context:
            raise ArgumentError(f"context must be 1 to {self.spec.context} sessions, the spec's, not {C}.")
        start = entries.to(self.table.record.device)
        if self.spec.context != C:
            start = start + (self.spec.context - C)
        bound = None if known_by is None else self.known_until(known_by) - embargo
        if self.table.folder is None:
            return self._gather(start, C, bound, every_position)
        pieces = []
        for piece in start.split(_PIECE):
            self._tidy()
            pieces.append(self._gather(piece, C, bound, every_position))
        return Window.joined(pieces)

    def overlapping(
        self, entries: Int[Tensor, " K"]
    ) -> tuple[Float32[Tensor, "Q F"], Bool[Tensor, " Q"], Int64[Tensor, " K"], Float32[Tensor, " K"]]:
        """The sessions of some windows, those that several windows share but once.

        Args:
            entries: as of `entries()`, ascending.

        Returns:
            Inputs and masks of the sessions, 0 where masked; where each window begins among them, to hold them and the
            following ones, the spec's context in all; and the windows' scales.
        """
        table, C = self.table, self.spec.context
        start = entries.to(table.record.device).long()
        ahead = start.diff().clamp(max=C)  # from where a window begins to where the next does
        place = torch.cat([ahead.new_zeros(1), ahead.cumsum(0)])
        own = torch.cat([ahead, ahead.new_tensor([C])])
        steps = torch.arange(int(own.sum()), device=start.device)
        pieces = (steps + (start - place).repeat_interleave(own)).split(_PIECE * C)
        inputs, mask = [], []
        for piece in pieces:
            self._tidy()
            inputs.append(table.inputs.index_select(0, piece))
            mask.append(table.usable.index_select(0, piece))
        return torch.cat(inputs), torch.cat(mask), place, table.scale.index_select(0, start + self._lead)

    def _tidy(self) -> None:
        """Hands pages of files back, if there are many."""
        if self.table.folder is not None:
            release(above=MAPPED)

    def _gather(self, start: Int[Tensor, " B"], C: int, bound: Tensor | None, every_position: bool) -> Window:
        """The windows whose context of C sessions begins at some positions; targets known by each asset's `bound`."""
        views = self._views(C)
        inputs, mask = views["inputs"].index_select(0, start), views["mask"].index_select(0, start)
        record = views["records" if every_position else "record"].index_select(0, start)
        numbers = record.view(torch.float32)
        target, scale = numbers[..., TARGET:], numbers[..., SCALE].clone()  # floats and integers apart, to be saved
        known = target == target  # NaN is where a target is not known
        last = record[:, -1] if every_position else record
        if bound is not None:
            ahead = bound.index_select(0, last[:, ASSET]) - start
            steps = self._steps + (torch.arange(C, device=start.device).unsqueeze(1) if every_position else C - 1)
            known &= steps <= (ahead[:, None, None] if every_position else ahead[:, None])
        return Window(inputs, mask, torch.where(known, target, 0.0), known, scale, last[:, ASSET], last[:, ROW])

    def targets(
        self, entries: Int[Tensor, "..."]
    ) -> tuple[Float32[Tensor, "... H"], Bool[Tensor, "... H"], Int64[Tensor, "... H"]]:
        """Returns over the horizons from the last session of some entries, 0 where they are not known.

        Also whether they are known, and the rows of the panel at which they become so, -1 where they do not.
        """
        table = self.table
        position = entries.to(table.record.device).long() + self._lead
        target, rows = table.target[position], table.row[position.unsqueeze(-1) + self._steps].long()
        known = target == target
        return torch.where(known, target, 0.0), known, torch.where(known, rows, -1)

    def at(
        self, rows: Int64[np.ndarray, " D"], min_history: int, stale: int
    ) -> tuple[Int64[Tensor, "D N"], Bool[Tensor, "D N"]]:
        """The entry that each asset's forecast at some rows starts from, and whether there can be one.

        Args:
            rows: rows of the panel.
            min_history: returns that an asset needs up to the row; at least one after the warm-up is needed anyway.
            stale: an asset is forecast until this many sessions of its exchange have passed without a price.

        Returns:
            Entries as of `gather`, those of a usable window where there is none, and a mask.
        """
        self.known_until(int(rows.min()) - 1)  # refuses rows before the table's first
        count, silent = standing(self.panel, rows)
        position = self.table.start + (count - 1).clamp(min=0)
        enough = count >= max(min_history, self.spec.features.first_usable + 1)
        valid = enough & (silent <= stale) & self.table.usable[position]
        return torch.where(valid, position, self._placeholder) - self._lead, valid

    def known_until(self, row: int) -> Int64[Tensor, " N"]:
        """The position of each asset's last session that is known at a row; the one before its first, if none is."""
        if row + 1 < self.table.since:
            raise ArgumentError(
                f"the table holds the windows of rows from {self.table.since} on, not those before. Make one of all "
                "rows, WindowSource(panel, spec)."
            )
        if row not in self._last_known:
            if row < 0:
                count = torch.zeros_like(self.table.length)
            elif row >= len(self.panel.dates) - 1:
                count = self.table.length
            else:
                count = standing(self.panel, np.array([row]))[0][0]
            self._last_known[row] = self.table.start + count - 1
        return self._last_known[row]

    @cached_property
    def _last_known(self) -> dict[int, Tensor]:
        return {}

    @cached_property
    def _placeholder(self) -> Tensor:
        """The position of a usable entry; of any, where a table of the last rows has none."""
        return self.table.usable.view(torch.uint8).argmax().clamp(min=self._lead)

    def _views(self, C: int) -> dict[str, Tensor]:
        """The streams as overlapping windows that share their memory, by the position at which a context begins."""
        if C not in self._view_cache:
            table = self.table
            self._view_cache[C] = {
                "inputs": _unfold(table.inputs, C),
                "mask": _unfold(table.usable, C),
                "record": table.record[C - 1 :],
                "records": _unfold(table.record, C),
            }
        return self._view_cache[C]

    @cached_property
    def _steps(self) -> Tensor:
        """The horizons on the windows' device."""
        return torch.tensor(self.spec.horizons, device=self.table.record.device)

    @cached_property
    def _view_cache(self) -> dict[int, dict[str, Tensor]]:
        return {}


def _unfold(stream: Tensor, width: int) -> Tensor:
    """All windows `[starts, width, ...]` of a stream, which share its memory."""
    shape = (len(stream) - width + 1, width, *stream.shape[1:])
    return stream.as_strided(shape, (stream.stride(0), *stream.stride()))


def outcomes(
    source: WindowSource, rows: Int64[np.ndarray, " D"]
) -> tuple[Float32[Tensor, "D H N"], Int64[Tensor, "D H N"]]:
    """What came of forecasts made at some rows of the panel.

    A forecast at a row on which an asset is not observed repeats that of its last session; its outcome is left out, so
    that each session counts once.

    Returns:
        Returns over the horizons, NaN where not known or left out, and the rows of the panel at which they are known,
        `T` there.
    """
    at = torch.as_tensor(rows, device=source.table.row.device)
    entries, valid = source.at(rows, min_history=1, stale=0)
    counted = valid & (source.panel.state[at] == State.OBSERVED)
    target, known, row = source.targets(entries)
    known = (known & counted[:, :, None]).movedim(2, 1)
    return (
        torch.where(known, target.movedim(2, 1), torch.nan),
        torch.where(known, row.movedim(2, 1), len(source.panel.dates)),
    )
