"""Masked windows, gathered by index from tensors on any device: no loop per sample, no copies of the history."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int, Int64
from torch import Tensor

from qtorch.data.errors import DataError
from qtorch.data.features import Features
from qtorch.data.features.feature import BLOCK
from qtorch.data.panel import Panel
from qtorch.data.samples import Samples
from qtorch.data.states import State
from qtorch.data.store import release
from qtorch.data.table import ASSET, ROW, SCALE, TARGET, SessionTable, session_table

_MAPPED = 1 << 29  # bytes of files that stay in memory between the pieces of a gather from disk
_PIECE = 128  # windows of a piece: each touches three places, and a touch may map two megabytes


@dataclass(frozen=True)
class WindowSpec:
    """What a window holds; a model keeps it, so that it is always fed what it was trained on.

    Attributes:
        context: own sessions `C` that a model sees; rows of the panel in panel layout.
        horizons: the `H` horizons of the targets, in the asset's own sessions.
        features: the inputs.
    """

    context: int = 64
    horizons: tuple[int, ...] = (1, 10)
    features: Features = Features()

    def __post_init__(self) -> None:
        """Checks the settings."""
        object.__setattr__(self, "horizons", tuple(self.horizons))
        if self.context < 1:
            raise ValueError(f"context must be at least 1 session, not {self.context}.")
        if not self.horizons or min(self.horizons) < 1 or sorted(set(self.horizons)) != list(self.horizons):
            raise ValueError(f"horizons must be positive and ascending, not {self.horizons}.")

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values."""
        return {"context": self.context, "horizons": list(self.horizons), "features": self.features.to_dict()}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "WindowSpec":
        """The inverse of `to_dict`, from what JSON keeps of it.

        Raises:
            ValueError: a feature is not known.
        """
        return cls(plain["context"], tuple(plain["horizons"]), Features.from_dict(plain["features"]))


@dataclass(frozen=True, eq=False)
class Window:
    """A batch of masked windows, each up to a row of the panel.

    In asset layout a window is the last `C` own sessions of one asset; in panel layout the last `C` rows of all `N`
    assets, and the axes C and B of a shape are followed by N. Masks are True where a value is usable. Starts that are
    too short are padded on the left and masked.

    Attributes:
        inputs: features, 0 where masked.
        mask: which positions hold a session.
        target: simple returns over the horizons (decimals); `[B, H]` from the window's last session, or
            `[B, C, H]` from each of its sessions; `[B, H, N]` in panel layout. 0 where masked.
        target_mask: which targets are known.
        scale: causal volatility of one session, in units of which a model predicts; `[B]`, `[B, C]` or `[B, N]`,
            1 where masked.
        asset_index: column of the panel; -1 in panel layout.
        row_index: row of the panel of the window's last session.
    """

    inputs: Float32[Tensor, "B C *N F"]
    mask: Bool[Tensor, "B C *N"]
    target: Float32[Tensor, "B ..."]
    target_mask: Bool[Tensor, "B ..."]
    scale: Float32[Tensor, "B ..."]
    asset_index: Int[Tensor, " B"]
    row_index: Int[Tensor, " B"]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Window":
        """The window on a device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Window":
        """The window in page-locked memory."""
        return self._map(Tensor.pin_memory)

    def jagged(self) -> Tensor:
        """The inputs without the padding on the left, as a jagged tensor `[B, j, F]` of torch.nested.

        For layers that take jagged tensors (`torch.nn.functional.scaled_dot_product_attention` does): no arithmetic is
        spent on padding. Masked sessions after the first usable one stay, as zeros.

        Raises:
            ValueError: the window is in panel layout.
        """
        if self.inputs.ndim != 3:
            raise ValueError("only windows in asset layout have jagged inputs.")
        C = self.mask.shape[1]
        first = torch.where(self.mask.any(1), self.mask.int().argmax(1), C - 1)
        kept = torch.arange(C, device=first.device) >= first[:, None]
        offsets = torch.cat([first.new_zeros(1), (C - first).cumsum(0)])
        return torch.nested.nested_tensor_from_jagged(self.inputs[kept], offsets, max_seqlen=C)

    def __len__(self) -> int:
        """The number of windows `B`."""
        return len(self.row_index)

    def split(self, batch_size: int) -> Iterator["Window"]:
        """The windows in batches, which share the memory of this one."""
        tensors = [getattr(self, field.name) for field in fields(self)]
        whole, rest = divmod(len(self), batch_size)
        if rest:
            return map(Window, *(tensor.split(batch_size) for tensor in tensors))
        return map(Window, *(tensor.unflatten(0, (whole, batch_size)).unbind() for tensor in tensors))

    @classmethod
    def joined(cls, windows: Sequence["Window"]) -> "Window":
        """Several batches as one."""
        return cls(*(torch.cat([getattr(window, field.name) for window in windows]) for field in fields(cls)))

    def _map(self, function) -> "Window":  # type: ignore[no-untyped-def]
        return replace(self, **{field.name: function(getattr(self, field.name)) for field in fields(self)})


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
        elif table.pad < pad or table.target.shape[1] != len(spec.horizons):
            raise DataError(
                f"the table was made for other windows than {spec}. Make it with their horizons and pad={pad}."
            )
        self.table = table
        if not table.usable.any():
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

    def entries(self, first: int = 0, last: int | None = None, known_by: int | None = None) -> Int[Tensor, " K"]:
        """The entries whose row lies in `first..last` (inclusive), and whose shortest target is known by a row."""
        final = self.known_until(len(self.panel.dates) - 1 if last is None else last)
        if known_by is not None:
            final = torch.minimum(final, self.known_until(known_by) - self.spec.horizons[0])
        return self.between(self.known_until(first - 1) + 1, final)

    def between(self, first: Int64[Tensor, " N"], last: Int64[Tensor, " N"]) -> Int[Tensor, " K"]:
        """The entries of each asset whose last session's position in the table lies in `first..last`, inclusive."""
        count = (last - first + 1).clamp(min=0)
        usable = self.table.usable
        short = len(usable) + self.spec.context < 2**31  # half the memory, where millions of windows are listed
        found = torch.empty(int(count.sum()), dtype=torch.int32 if short else torch.int64, device=usable.device)
        K = 0
        for n in range(0, len(count), BLOCK):
            of = count[n : n + BLOCK]
            begin = first[n : n + BLOCK] - of.cumsum(0) + of
            position = begin.repeat_interleave(of) + torch.arange(int(of.sum()), device=of.device)
            position = position[usable[position]]
            found[K : K + len(position)] = position - self._lead
            K += len(position)
        return found[:K]

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
        every_position: bool = False,
        context: int | None = None,
    ) -> Window:
        """The windows of some entries.

        Args:
            entries: as of `entries()`.
            known_by: targets that become known after this row of the panel are masked.
            every_position: targets from each of the window's sessions, not from its last alone.
            context: sessions to see, at most the spec's; for batches of short histories.
        """
        C = self.spec.context if context is None else context
        if not 1 <= C <= self.spec.context:
            raise ValueError(f"context must be 1 to {self.spec.context} sessions, the spec's, not {C}.")
        start = entries.to(self.table.record.device)
        if self.spec.context != C:
            start = start + (self.spec.context - C)
        bound = None if known_by is None else self.known_until(known_by)
        if self.table.folder is None:
            return self._gather(start, C, bound, every_position)
        pieces = []
        for piece in start.split(_PIECE):
            release(above=_MAPPED)
            pieces.append(self._gather(piece, C, bound, every_position))
        return Window.joined(pieces)

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
        count, silent = self._standing(rows)
        position = self.table.start + (count - 1).clamp(min=0)
        enough = count >= max(min_history, self.spec.features.first_usable + 1)
        valid = enough & (silent <= stale) & self.table.usable[position]
        return torch.where(valid, position, self._placeholder) - self._lead, valid

    def history(self, rows: Int64[np.ndarray, " D"]) -> Int64[Tensor, "D N"]:
        """Returns of each asset up to some rows of the panel."""
        return self._standing(rows)[0]

    def known_until(self, row: int) -> Int64[Tensor, " N"]:
        """The position of each asset's last session that is known at a row; the one before its first, if none is."""
        if row not in self._last_known:
            if row < 0:
                count = torch.zeros_like(self.table.length)
            elif row >= len(self.panel.dates) - 1:
                count = self.table.length
            else:
                count = self.history(np.array([row]))[0]
            self._last_known[row] = self.table.start + count - 1
        return self._last_known[row]

    @cached_property
    def _last_known(self) -> dict[int, Tensor]:
        return {}

    def silence(self, rows: Int64[np.ndarray, " D"]) -> Int64[Tensor, "D N"]:
        """Sessions of the exchange since the asset's last price, at some rows of the panel."""
        return self._standing(rows)[1]

    def _standing(self, rows: Int64[np.ndarray, " D"]) -> tuple[Int64[Tensor, "D N"], Int64[Tensor, "D N"]]:
        """Returns up to each row, and sessions of the exchange since the last price; one pass over the panel."""
        panel, device = self.panel, self.table.row.device
        wanted, place = np.unique(rows, return_inverse=True)
        N = len(panel.assets)
        prices = torch.zeros(N, dtype=torch.int64, device=device)
        sessions, last = prices.clone(), prices.clone()
        counts, silences = [], []
        for t in range(0, int(wanted[-1]) + 1, 256):
            block = slice(t, min(t + 256, int(wanted[-1]) + 1))
            there = panel.state[block] == State.OBSERVED
            session = panel.exchange_is_session[block][:, list(panel.exchange_index)]
            count = prices + there.cumsum(0)
            so_far = sessions + (session | there).cumsum(0)
            latest = torch.maximum(last, torch.where(there, so_far, 0).cummax(0).values)
            here = torch.as_tensor(wanted[(wanted >= t) & (wanted < block.stop)] - t, device=device)
            counts.append((count[here] - 1).clamp(min=0))
            silences.append(so_far[here] - latest[here])
            prices, sessions, last = count[-1], so_far[-1], latest[-1]
        at = torch.as_tensor(place, device=device)
        return torch.cat(counts)[at], torch.cat(silences)[at]

    @cached_property
    def _placeholder(self) -> Tensor:
        """The position of a usable entry."""
        return self.table.usable.view(torch.uint8).argmax()

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
