"""Masked windows of an asset's own sessions, gathered by index from tensors on any device."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from qtorch.data.errors import DataError
from qtorch.data.features import Features, SessionTable, horizon_returns, session_table
from qtorch.data.panel import Panel, State


@dataclass(frozen=True)
class WindowSpec:
    """What a window holds; a model keeps it, so that it is always fed what it was trained on.

    Attributes:
        context: own sessions `C` that a model sees.
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

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "WindowSpec":
        """The inverse of `dataclasses.asdict`, from what JSON keeps of it."""
        features = dict(plain["features"])
        features["decays"] = tuple(features["decays"])
        return cls(plain["context"], tuple(plain["horizons"]), Features(**features))


@dataclass(frozen=True, eq=False)
class Window:
    """A batch of masked windows in asset layout, each the last `C` sessions of one asset up to a row of the panel.

    Masks are True where a value is usable. Starts that are too short are padded on the left and masked.

    Attributes:
        inputs: features, 0 where masked.
        mask: which positions hold a session.
        target: simple returns over the horizons (decimals); `[B, H]` from the window's last session, or
            `[B, C, H]` from each of its sessions. 0 where masked.
        target_mask: which targets are known.
        scale: causal volatility of one session, in units of which a model predicts; `[B]` or `[B, C]`, 1 where masked.
        asset_index: column of the panel.
        row_index: row of the panel of the window's last session.
    """

    inputs: Float32[Tensor, "B C F"]
    mask: Bool[Tensor, "B C"]
    target: Float32[Tensor, "B *C H"]
    target_mask: Bool[Tensor, "B *C H"]
    scale: Float32[Tensor, "B *C"]
    asset_index: Int64[Tensor, " B"]
    row_index: Int64[Tensor, " B"]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Window":
        """The window on a device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Window":
        """The window in page-locked memory."""
        return self._map(Tensor.pin_memory)

    def __len__(self) -> int:
        """The number of windows `B`."""
        return len(self.asset_index)

    def _map(self, function) -> "Window":  # type: ignore[no-untyped-def]
        return replace(self, **{field.name: function(getattr(self, field.name)) for field in fields(self)})


class WindowSource:
    """All windows of a panel; a batch is one gather per tensor, with no Python loop and no copy of the history.

    Entry i of asset n, that asset's i-th return, is a window's last session; `entries` are numbered n * L + i.

    Args:
        panel: the market; windows live on its device.
        spec: what a window holds.
        table: the panel's session table, if it has been computed already.

    Raises:
        DataError: no asset has a return after its warm-up.
    """

    def __init__(self, panel: Panel, spec: WindowSpec, table: SessionTable | None = None) -> None:
        self.panel, self.spec = panel, spec
        self.table = table = session_table(panel, spec.features) if table is None else table
        entry = torch.arange(table.row.shape[1], device=table.row.device)
        self.usable = (entry >= spec.features.warm_up) & (entry < table.length[:, None])
        if not self.usable.any():
            raise DataError(
                f"no asset has more than {spec.features.warm_up} returns, the warm-up of the features; the longest "
                f"history has {int(table.length.max())}. Give more history or a shorter Features(warm_up=...)."
            )
        known = [horizon_returns(table, horizon) for horizon in spec.horizons]
        returns = torch.stack([r for r, _ in known], dim=-1)
        self.target_known = returns.isfinite() & self.usable[:, :, None]
        self.target = returns.nan_to_num().float() * self.target_known
        self.known_row = torch.stack([row for _, row in known], dim=-1)
        scale = torch.where(self.usable, table.scale, 1.0)
        self._streams = {
            "inputs": self._pad(table.inputs * self.usable[:, :, None]),
            "mask": self._pad(self.usable),
            "target": self._pad(self.target),
            "target_known": self._pad(self.target_known),
            "known_row": self._pad(self.known_row),
            "scale": self._pad(scale, 1.0),
        }
        self.scale = scale

    @property
    def length(self) -> int:
        """`L`, the number of entries that each asset's block holds."""
        return self.table.row.shape[1]

    def entries(self, first: int = 0, last: int | None = None, known_by: int | None = None) -> Int64[Tensor, " K"]:
        """The entries whose row lies in `first..last` (inclusive), and whose shortest target is known by a row."""
        row = self.table.row
        chosen = self.usable & (row >= first) & (row <= (len(self.panel.dates) if last is None else last))
        if known_by is not None:
            chosen = chosen & self.target_known[:, :, 0] & (self.known_row[:, :, 0] <= known_by)
        return chosen.flatten().nonzero().squeeze(1)

    def gather(
        self, entries: Int64[Tensor, " B"], *, known_by: int | None = None, every_position: bool = False
    ) -> Window:
        """The windows that end at some entries.

        Args:
            entries: as of `entries()`.
            known_by: targets that become known after this row of the panel are masked.
            every_position: targets from each of the window's sessions, not from its last alone.
        """
        L, C = self.length, self.spec.context
        entries = entries.to(self.table.row.device)
        asset, i = entries.div(L, rounding_mode="floor"), entries % L
        start = asset * (L + C - 1) + i
        names = ("inputs", "mask") + (("target", "target_known", "scale") if every_position else ())
        parts = {name: self._views[name].index_select(0, start) for name in names}
        if every_position:
            target, known, scale = parts["target"], parts["target_known"], parts["scale"]
            limit = self._views["known_row"].index_select(0, start) if known_by is not None else None
        else:
            target, known, scale = self.target[asset, i], self.target_known[asset, i], self.scale[asset, i]
            limit = self.known_row[asset, i] if known_by is not None else None
        if limit is not None and known_by is not None:
            known = known & (limit <= known_by)
            target = torch.where(known, target, 0.0)
        return Window(parts["inputs"], parts["mask"], target, known, scale, asset, self.table.row[asset, i])

    def at(
        self, rows: Int64[np.ndarray, " D"], min_history: int, stale: int
    ) -> tuple[Int64[Tensor, "D N"], Bool[Tensor, "D N"]]:
        """The entry that each asset's forecast at some rows starts from, and whether there can be one.

        Args:
            rows: rows of the panel.
            min_history: returns that an asset needs up to the row; at least one after the warm-up is needed anyway.
            stale: an asset is forecast until this many sessions of its exchange have passed without a price.

        Returns:
            Entries as of `gather`, 0 where there is none, and a mask.
        """
        at = torch.as_tensor(rows, device=self.table.row.device)
        i = torch.searchsorted(self.table.row, at.expand(len(self.table.row), -1).contiguous(), right=True) - 1
        i = i.T  # [D, N]
        silent = self.silence[at]
        enough = i + 1 >= max(min_history, self.spec.features.warm_up + 1)
        valid = enough & (silent <= stale)
        asset = torch.arange(i.shape[1], device=i.device)
        return torch.where(valid, asset * self.length + i.clamp(min=0), 0), valid

    @cached_property
    def silence(self) -> Int64[Tensor, "T N"]:
        """Sessions of the exchange since the asset's last price."""
        sessions = (self.panel.is_session | self.panel.mask).cumsum(0)
        last = torch.where(self.panel.mask, sessions, 0).cummax(0).values
        return sessions - last

    @cached_property
    def _views(self) -> dict[str, Tensor]:
        """The padded streams as overlapping windows [starts, C, ...] that share their memory."""
        C = self.spec.context
        views = {}
        for name, stream in self._streams.items():
            step = stream.stride(0)
            views[name] = stream.as_strided((len(stream) - C + 1, C, *stream.shape[1:]), (step, *stream.stride()))
        return views

    def _pad(self, tensor: Tensor, value: float = 0.0) -> Tensor:
        """Puts C - 1 masked positions before each asset's entries and joins the assets to one stream."""
        C = self.spec.context
        padded = tensor.new_full((len(tensor), self.length + C - 1, *tensor.shape[2:]), value)
        padded[:, C - 1 :] = tensor
        return padded.flatten(0, 1)


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
    asset, i = entries.div(source.length, rounding_mode="floor"), entries % source.length
    counted = valid & (source.panel.state[at] == State.OBSERVED)
    known = (source.target_known[asset, i] & counted[:, :, None]).movedim(2, 1)
    returns, row = source.target[asset, i].movedim(2, 1), source.known_row[asset, i].movedim(2, 1)
    return torch.where(known, returns, torch.nan), torch.where(known, row, len(source.panel.dates))
