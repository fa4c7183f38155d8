"""Windows of the last rows of a panel, computed from where an earlier run has ended."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from qtorch.data.errors import DataError
from qtorch.data.features import CrossSection, Features
from qtorch.data.features.feature import Feature, OwnSessions, furthest, reach_of
from qtorch.data.features.sums import Sums
from qtorch.data.panel import Panel
from qtorch.data.store import release
from qtorch.data.table import (
    SCALE,
    Layout,
    SessionTable,
    blocks,
    empty_grids,
    empty_streams,
    fill_across,
    fill_own,
    put_bases,
    session_table,
)
from qtorch.data.whole_folder import recover, whole_folder
from qtorch.data.window import WindowSpec
from qtorch.data.windows import WindowSource
from qtorch.errors import ArgumentError

_FORMAT = 1  # of a state's files: what they hold and mean
_PLAIN = "sessions.json"
_ROWS = 512  # features across assets are made of so many rows at once


@dataclass(frozen=True, eq=False)
class SessionState:
    """What the sessions up to a row of a panel leave to those after it; see `recent_source`.

    Attributes:
        rows: of the panel that it was made of.
        digest: of those rows and of the windows' spec.
        assets: names.
        sums: as of `qtorch.data.features.sums.Sums.kept`.
        inputs: of each asset's last entries `[N, C, F]`, those that are not there in front.
        usable: `[N, C]`.
        scale: `[N, C]`.
        by_row: of features across assets that carry from row to row, what each row came to `[T, ...]`.
    """

    rows: int
    digest: str
    assets: tuple[str, ...]
    sums: tuple[np.ndarray, ...]
    inputs: np.ndarray
    usable: np.ndarray
    scale: np.ndarray
    by_row: tuple[np.ndarray, ...]

    def save(self, folder: str | Path) -> None:
        """Writes the state to a folder, whole or not at all, in the place of one that is there."""
        tensors = {"inputs": self.inputs, "usable": self.usable, "scale": self.scale}
        tensors |= {f"sums.{k}": each for k, each in enumerate(self.sums)}
        tensors |= {f"by_row.{k}": each for k, each in enumerate(self.by_row)}
        with whole_folder(Path(folder)) as part:
            for name, array in tensors.items():
                np.save(part / f"{name}.npy", array, allow_pickle=False)
            description = {
                "format": _FORMAT,
                "rows": self.rows,
                "digest": self.digest,
                "assets": self.assets,
                "sha256": {name: _hash(part / f"{name}.npy") for name in tensors},
            }
            (part / _PLAIN).write_text(json.dumps(description) + "\n")

    @classmethod
    def load(cls, folder: str | Path) -> "SessionState":
        """The state of a folder written by `save`.

        Raises:
            DataError: there is none, or it is of another format or not what was written.
        """
        folder = Path(folder)
        recover(folder)
        try:
            about = json.loads((folder / _PLAIN).read_text())
            if about["format"] != _FORMAT:
                raise DataError(f"{folder} was written by another version of qtorch. Remove it.")
            tensors = {}
            for name, hash_ in about["sha256"].items():
                if _hash(folder / f"{name}.npy") != hash_:
                    raise DataError(f"{folder}/{name}.npy is not what was written (its SHA-256 is another). Remove it.")
                tensors[name] = np.load(folder / f"{name}.npy", allow_pickle=False)
            sums, by_row = (
                tuple(tensors[f"{kind}.{k}"] for k in range(sum(name.startswith(f"{kind}.") for name in tensors)))
                for kind in ("sums", "by_row")
            )
            state = tensors["inputs"], tensors["usable"], tensors["scale"]
            return cls(about["rows"], about["digest"], tuple(about["assets"]), sums, *state, by_row)
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{folder}: no readable state of sessions ({error}). Remove it.") from error

    @classmethod
    def beside(cls, parts: Sequence["SessionState"], panel: Panel, spec: WindowSpec) -> "SessionState":
        """That of a market, from those of its parts in the order of its assets."""
        rows = len(panel.dates)
        return cls(
            rows,
            _digest(panel, spec, rows, panel.assets),
            panel.assets,
            tuple(np.concatenate(sums, axis=1) for sums in zip(*(part.sums for part in parts), strict=True)),
            np.concatenate([part.inputs for part in parts]),
            np.concatenate([part.usable for part in parts]),
            np.concatenate([part.scale for part in parts]),
            parts[0].by_row,
        )

    def unfit(self, panel: Panel, spec: WindowSpec, first: int) -> str:
        """In words why the windows of a panel from a row on can't be gone on from here; empty where they can."""
        if self.rows > len(panel.dates):
            return f"the state is of {self.rows} rows, the panel has {len(panel.dates)}"
        ends = f"{panel.dates[self.rows - 1]:%Y-%m-%d}"
        if self.rows > first:
            return f"the state ends on {ends}, after the first row that is asked for"
        known = set(panel.assets)
        if gone := [asset for asset in self.assets if asset not in known]:
            return f"{gone[0]} has left"
        before = panel.mask[: self.rows].any(0).cpu().numpy()
        old = set(self.assets)
        if early := [asset for asset, there in zip(panel.assets, before, strict=True) if there and asset not in old]:
            return f"{early[0]} had prices before {ends} that the state does not know"
        if self.digest != _digest(panel, spec, self.rows, self.assets):
            return f"the windows, or the data up to {ends}, are not what they were"
        return ""


@dataclass(frozen=True, eq=False)
class Across:
    """The features across all assets of a market, for panels of parts of it.

    Attributes:
        values: of each feature `[T, N, F]`, or `[T, 1, F]` where the assets share a value; float32.
        by_row: of features that carry from row to row, what each row came to `[T, ...]`.
    """

    values: dict[CrossSection, np.ndarray]
    by_row: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, panel: Panel, features: Features) -> "Across":
        """Those of a market."""
        grids = empty_grids(panel, features)
        for block in blocks(len(panel.assets)) if grids else []:
            put_bases(grids, block, OwnSessions(panel.select(panel.assets[block])))
        values, by_row = _across(grids, panel, features, 0, None)
        return cls({part: grid.astype(np.float32, copy=False) for part, grid in values.items()}, by_row)

    def columns(self, at: Sequence[int]) -> "Across":
        """Those of some assets."""
        return replace(self, values={part: x if x.shape[1] == 1 else x[:, at] for part, x in self.values.items()})


@dataclass(frozen=True, eq=False)
class Recent:
    """Windows of the last rows, and what they leave to a later run.

    Attributes:
        source: of the windows, as of `WindowSource` with all rows at these; it refuses earlier rows.
        state: of the panel to its end; None where a feature cannot be gone on from.
        note: in words, what was gone on from, or why all was computed anew.
    """

    source: WindowSource
    state: SessionState | None
    note: str


def recent_source(
    panel: Panel, spec: WindowSpec, first: int, state: SessionState | None = None, *, across: Across | None = None
) -> Recent:
    """The windows of the rows of a panel from one on, and each asset's last one before.

    They are those of `WindowSource(panel, spec)`, in every bit. With the state that an earlier run left, of a panel
    that ended before the row, only what is new is computed: the new sessions of each asset, and as many before as a
    feature's window needs; exponentially weighted sums go on from where they were. Of the sessions before, the panel's
    prices are hashed, to be sure that they are what they were, and nothing else is done.

    Where there is no state, where it is of other data or windows, or where a feature does not tell its `reach`, all is
    computed anew, and `note` says why.

    Args:
        panel: the market.
        spec: of the windows.
        first: row of the panel.
        state: of an earlier run; of the same assets, and perhaps fewer.
        across: of a panel that is a part of a market, the features across all assets of that; without a state.

    Raises:
        ArgumentError: the panel has no such row, or there is a state beside features across a market.

    Example:
        >>> from qtorch.data import load_sample
        >>> panel = Panel.from_frame(load_sample()).select(["AAPL", "EURUSD"])
        >>> yesterday = panel.until(panel.dates[-2])
        >>> state = recent_source(yesterday, WindowSpec(), len(yesterday.dates) - 1).state
        >>> tonight = recent_source(panel, WindowSpec(), len(panel.dates) - 1, state)
        >>> tonight.note
        'gone on from 2022-12-27'
    """
    if not 0 <= first < len(panel.dates):
        raise ArgumentError(f"first must be a row of the panel, 0 to {len(panel.dates) - 1}, not {first}.")
    if state is not None and across is not None:
        raise ArgumentError("a part of a market can't be gone on from: leave out state, or give the whole market.")
    why = "no state of an earlier run"
    if state is not None:
        found, why = gone_on(panel, spec, first, state)
        if found is not None:
            return found
    parts = spec.features.parts
    if furthest(parts) is None:
        untold = next(part for part in parts if reach_of(part) is None)
        note = (
            f"computed anew: {type(untold).__name__} does not tell its reach, so that it may need all sessions before"
        )
        pad = max(spec.context - 1, spec.horizons[-1])
        given = None if across is None else across.values
        table = session_table(panel, spec.features, spec.horizons, pad, across=given)
        return Recent(WindowSource(panel, spec, table), None, note)
    return _computed(panel, spec, first, None, f"computed anew: {why}", across)


def gone_on(panel: Panel, spec: WindowSpec, first: int, state: SessionState) -> tuple[Recent | None, str]:
    """The same from where an earlier run has ended; and in words why there is nothing, where that can't be."""
    if furthest(spec.features.parts) is None:
        return None, "a feature does not tell its reach"
    if why := state.unfit(panel, spec, first):
        return None, why
    note = f"gone on from {panel.dates[state.rows - 1]:%Y-%m-%d}"
    return _computed(panel, spec, first, state, note, None), note


def _computed(
    panel: Panel,
    spec: WindowSpec,
    first: int,
    state: SessionState | None,
    note: str,
    market: Across | None,
) -> Recent:
    features, C, horizons = spec.features, spec.context, spec.horizons
    depth = furthest(features.parts) or 0
    since = first if state is None else state.rows
    begin = 0 if state is None else state.rows  # features across assets are computed of the rows from here on
    there = panel.mask.cpu()
    length, known = ((rows.sum(0) - 1).clamp(min=0).numpy() for rows in (there, there[:since]))
    back = max(C, depth) + 1
    skipped = np.zeros_like(length) if state is None else np.maximum(known - back, 0)
    kept_from = np.maximum(length - back, 0)
    held = np.maximum(known - C, 0)
    pad = max(C - 1, horizons[-1])
    layout = Layout.since(length, held, held if state is None else known, pad)
    arrays = empty_streams(layout.positions, features, horizons)
    grids = empty_grids(panel, features, begin) if market is None else {}
    place = {} if state is None else {asset: n for n, asset in enumerate(state.assets)}
    column = np.array([place.get(asset, -1) for asset in panel.assets])
    made: list[Sums] = []

    def sums(block: slice) -> Sums:
        given = [] if state is None else [_columns(each, column[block], axis=1) for each in state.sums]
        made.append(Sums(skipped[block], kept_from[block], given))
        return made[-1]

    fill_own(arrays, panel, features, horizons, layout, grids, sums, None, lambda done: None)
    if state is not None:
        _put_back(arrays, state, layout, known, column)
    if market is None:
        across, by_row = _across(grids, panel, features, begin, state)
    else:
        across, by_row = market.values, market.by_row
    fill_across(arrays, features, layout, across, first=begin)
    left = SessionState(
        len(panel.dates),
        _digest(panel, spec, len(panel.dates), panel.assets),
        panel.assets,
        tuple(np.concatenate(parts, axis=1) for parts in zip(*(each.kept for each in made), strict=True)),
        *_last_entries(arrays, layout, C),
        by_row,
    )
    device = panel.values.device
    streams = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
    start, count = (torch.from_numpy(each).to(device) for each in (layout.start, length))
    table = SessionTable(panel, features, horizons, pad, start=start, length=count, **streams, folder=None, since=since)
    return Recent(WindowSource(panel, spec, table), left, note)


def _columns(array: np.ndarray, column: np.ndarray, axis: int) -> np.ndarray:
    """Some columns of what a state holds by asset, 0 for assets that it does not know."""
    wide = np.take(array, np.maximum(column, 0), axis=axis)
    wide[(slice(None),) * axis + (column < 0,)] = 0
    return wide


def _entries(layout: Layout, last: np.ndarray, C: int) -> tuple[np.ndarray, np.ndarray]:
    """The positions of the `C` entries of each asset before `last`, and which of them there are."""
    entry = last[:, None] + np.arange(-C, 0)
    return np.maximum(layout.start[:, None] + entry, 0), entry >= 0


def _put_back(
    arrays: dict[str, np.ndarray], state: SessionState, layout: Layout, known: np.ndarray, column: np.ndarray
) -> None:
    """Puts the entries that a state holds in their places."""
    position, there = _entries(layout, known, state.inputs.shape[1])
    at, from_ = position[there], np.broadcast_to(column[:, None], there.shape)[there]
    step = np.broadcast_to(np.arange(there.shape[1]), there.shape)[there]
    arrays["inputs"][at] = state.inputs[from_, step]
    arrays["usable"][at] = state.usable[from_, step]
    arrays["record"].view(np.float32)[at, SCALE] = state.scale[from_, step]


def _last_entries(arrays: dict[str, np.ndarray], layout: Layout, C: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs, whether they are usable, and scales of each asset's last entries."""
    position, there = _entries(layout, layout.length, C)
    return (
        np.where(there[:, :, None], arrays["inputs"][position], np.float32(0)),
        there & arrays["usable"][position],
        np.where(there, arrays["record"].view(np.float32)[position, SCALE], np.float32(1)),
    )


def _across(
    grids: dict[Feature, np.ndarray], panel: Panel, features: Features, begin: int, state: SessionState | None
) -> tuple[dict[CrossSection, np.ndarray], tuple[np.ndarray, ...]]:
    """The features across assets of the rows from `begin` on, and what all rows came to of those that carry."""
    across: dict[CrossSection, np.ndarray] = {}
    carried: list[np.ndarray] = []
    T = len(panel.dates)
    bounds = [*range(begin, T, _ROWS), T]
    for part in features.parts:
        if not isinstance(part, CrossSection) or begin == T:
            continue
        pieces = []
        for t, stop in pairwise(bounds):
            rows = _rows(panel, t, stop)
            piece = part.by_row([grids[base][t - begin : stop - begin] for base in part.bases], rows)
            pieces.append(piece if part.carries else piece.astype(np.float32))
        by_row = np.concatenate(pieces)
        if part.carries:
            by_row = by_row if state is None else np.concatenate([state.by_row[len(carried)], by_row])
            carried.append(by_row)
            by_row = part.over_rows(by_row)[begin:]
        across[part] = by_row
    return across, state.by_row if begin == T and state is not None else tuple(carried)


def _rows(panel: Panel, first: int, stop: int) -> Panel:
    """Some rows of a panel, as they are."""
    tensors = ("values", "state", "session_day", "exchange_is_session", "exchange_next_day", "exchange_close")
    rows = {name: getattr(panel, name)[first:stop] for name in tensors}
    return replace(panel, dates=panel.dates[first:stop], as_of=panel.as_of[first:stop], **rows)


def _digest(panel: Panel, spec: WindowSpec, rows: int, assets: tuple[str, ...]) -> str:
    """A hash of the windows' spec and of all that features of the first rows are made of."""
    place = {asset: n for n, asset in enumerate(panel.assets)}
    at = [place[asset] for asset in assets]
    settings = json.dumps([spec.features.to_dict(), spec.context], sort_keys=True, default=str)
    of = (
        version("qtorch-finance"),
        settings,
        assets,
        [panel.exchanges[n] for n in at],
        panel.fields,
        panel.exchange_codes,
    )
    digest = hashlib.blake2b(repr(of).encode(), digest_size=32)
    for times in (panel.dates[:rows], panel.as_of[:rows]):
        digest.update(times.as_unit("us").asi8.tobytes())
    for tensor in (panel.exchange_is_session, panel.exchange_next_day, panel.exchange_close):
        digest.update(tensor[:rows].cpu().numpy().tobytes())
    for block in blocks(len(at)):
        columns = at[block]
        in_a_row = columns == list(range(columns[0], columns[-1] + 1))
        index: Any = slice(columns[0], columns[-1] + 1) if in_a_row else columns
        values = panel.values[:rows, index].cpu().numpy()
        there = panel.mask[:rows, index].cpu().numpy()
        digest.update(np.packbits(there).tobytes())
        digest.update(values[there].tobytes())
        digest.update(panel.session_day[:rows, index].cpu().numpy()[there].tobytes())
        release()
    return digest.hexdigest()


def _hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
