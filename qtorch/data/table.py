"""Every asset's own sessions in one stream, which windows are cut from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int32, Int64
from torch import Tensor

from qtorch.data.errors import DataError
from qtorch.data.features import CrossSection, Features, OwnSessions, Volatility
from qtorch.data.features.feature import BLOCK, Feature
from qtorch.data.features.sums import Sums
from qtorch.data.fingerprint import fingerprint
from qtorch.data.panel import Panel
from qtorch.data.progress import progress_bar
from qtorch.data.store import TensorFolder, release

ROW, ASSET, SCALE, TARGET = range(4)  # columns of `record`; the targets are the last `H`
_STREAMS = ("record", "close", "usable", "inputs")


@dataclass(frozen=True, eq=False)
class SessionTable:
    """Every asset's own sessions without the holes, asset after asset in one stream of `P` positions.

    Entry i of an asset is its i-th observed return, at position ``start + i``. Before each asset and after the last
    there are `pad` masked positions, so that a window or a horizon that leaves an asset finds nothing there. No
    position is spent on dates on which an asset was closed or not listed.

    Attributes:
        panel: the market.
        features: the inputs.
        horizons: of the targets.
        pad: masked positions between assets.
        start: the position of each asset's first entry.
        length: the number of entries of each asset.
        record: `row`, `asset` and the bits of `scale` and `target`, side by side because windows need them together.
        close: closing prices, NaN in the padding; one over the one before is a one-session return.
        usable: where the warm-up is over and all inputs are there.
        inputs: of `Features`, through the position; 0 where not usable.
        folder: where the streams are on disk, if they are.
        since: the first panel row whose windows are whole here; 0 where all are. Of entries before the contexts of
            those nothing is held, and `start` is where an asset's first entry would be.
    """

    panel: Panel
    features: Features
    horizons: tuple[int, ...]
    pad: int
    start: Int64[Tensor, " N"]
    length: Int64[Tensor, " N"]
    record: Int32[Tensor, "P R"]
    close: Float64[Tensor, " P"]
    usable: Bool[Tensor, " P"]
    inputs: Float32[Tensor, "P F"]
    folder: TensorFolder | None
    since: int = 0

    def of(self, asset: int) -> slice:
        """The positions of an asset, by its column."""
        first = int(self.start[asset])
        return slice(first, first + int(self.length[asset]))

    @property
    def row(self) -> Int32[Tensor, " P"]:
        """The panel row of each position; -1 in the padding."""
        return self.record[:, ROW]

    @property
    def asset(self) -> Int32[Tensor, " P"]:
        """The column of each position's asset; -1 in the padding."""
        return self.record[:, ASSET]

    @property
    def scale(self) -> Float32[Tensor, " P"]:
        """Causal EWMA volatility of the returns through each position; 1 where not usable."""
        return self.record.view(torch.float32)[:, SCALE]

    @property
    def target(self) -> Float32[Tensor, "P H"]:
        """Simple returns over the horizons from each position; NaN where not known or the position is not usable."""
        return self.record.view(torch.float32)[:, TARGET:]


def session_table(
    panel: Panel,
    features: Features,
    horizons: tuple[int, ...],
    pad: int,
    *,
    store: str | Path | None = None,
    progress: bool = False,
    across: Mapping[CrossSection, np.ndarray] | None = None,
) -> SessionTable:
    """Computes the inputs and targets of every asset's sessions, some assets at a time.

    Args:
        panel: the market.
        features: the inputs.
        horizons: of the targets, in the asset's own sessions.
        pad: masked positions between assets, as many as the longest horizon at least.
        store: a folder for streams larger than memory; if it holds those of the same panel and features already,
            they are opened.
        progress: show a progress bar.
        across: of a panel that is a part of a market, the features across all assets of that, as of
            `qtorch.data.recent.Across`; None computes them of the panel's own assets.

    Raises:
        DataError: the folder holds something else, or a feature needs a field that the panel does not have.
    """
    count = panel.mask.sum(0).cpu()
    length = (count - 1).clamp(min=0)
    start = pad + torch.cat([torch.zeros(1, dtype=torch.int64), (length + pad).cumsum(0)[:-1]])
    P = int((length + pad).sum()) + pad
    about = {"kind": "sessions", "pad": pad, "horizons": list(horizons), "features": features.to_dict()}

    def table(streams: dict[str, Tensor], folder: TensorFolder | None) -> SessionTable:
        record, close, usable, inputs = (streams[name] for name in _STREAMS)
        places = start.to(record.device), length.to(record.device)
        return SessionTable(panel, features, horizons, pad, *places, record, close, usable, inputs, folder)

    folder = None
    if store is not None:
        about["panel"] = fingerprint(panel)
        if (Path(store) / "store.json").exists():
            folder = TensorFolder(store)
            return table(_open(folder, about), folder)
        folder = TensorFolder.create(store)
    grids = empty_grids(panel, features) if across is None else {}
    arrays = empty_streams(P, features, horizons, folder)
    layout = Layout.of_all(start.numpy(), length.numpy(), pad)
    try:
        with progress_bar("computing features", len(panel.assets) if progress else None) as advance:
            fill_own(arrays, panel, features, horizons, layout, grids, None, folder, advance)
        values = across_assets(grids, panel, features) if across is None else across
        fill_across(arrays, features, layout, values, folder)
    except BaseException:
        if folder is not None:
            folder.discard()
        raise
    if folder is not None:
        folder.describe(about, or_there=True)
        return table(_open(folder, about), folder)
    return table({name: torch.from_numpy(array).to(panel.values.device) for name, array in arrays.items()}, None)


@dataclass(frozen=True, eq=False)
class Layout:
    """Which entries of each asset have a place in the streams, and which of them are computed; all `[N]`.

    Attributes:
        start: the position of the first entry, whether or not it is held.
        length: entries.
        held: the first entry that has a place.
        fresh: the first entry whose inputs are computed.
        pad: masked positions between assets.
    """

    start: np.ndarray
    length: np.ndarray
    held: np.ndarray
    fresh: np.ndarray
    pad: int

    @classmethod
    def of_all(cls, start: np.ndarray, length: np.ndarray, pad: int) -> "Layout":
        """All entries."""
        return cls(start, length, np.zeros_like(start), np.zeros_like(start), pad)

    @classmethod
    def since(cls, length: np.ndarray, held: np.ndarray, fresh: np.ndarray, pad: int) -> "Layout":
        """The last entries of each asset."""
        size = length - held + pad
        return cls(pad + size.cumsum() - size - held, length, held, fresh, pad)

    @property
    def positions(self) -> int:
        """How many positions there are in all."""
        return int((self.length - self.held + self.pad).sum()) + self.pad

    def span(self, block: slice, beyond: int = 0) -> slice:
        """The positions of some assets that follow each other, and some around them."""
        first, last = block.start, block.stop - 1
        return slice(
            int(self.start[first] + self.held[first]) - beyond, int(self.start[last] + self.length[last]) + beyond
        )


def blocks(assets: int) -> list[slice]:
    """Assets handled at once."""
    return [slice(n, min(n + BLOCK, assets)) for n in range(0, assets, BLOCK)]


def empty_streams(
    P: int, features: Features, horizons: tuple[int, ...], folder: TensorFolder | None = None
) -> dict[str, np.ndarray]:
    """The streams of `P` positions, all of them masked, in memory or in a folder."""
    full = (lambda _, shape, kind, value: np.full(shape, value, kind)) if folder is None else folder.full
    return {
        "record": full("record", (P, TARGET + len(horizons)), np.int32, -1),  # the bits of -1 are those of a NaN
        "close": full("close", (P,), np.float64, np.nan),
        "usable": full("usable", (P,), np.bool_, 0),
        "inputs": full("inputs", (P, len(features)), np.float32, 0),
    }


def empty_grids(panel: Panel, features: Features, first: int = 0) -> dict[Feature, np.ndarray]:
    """What features across assets are made of, on the rows from `first` on, still without a value."""
    shape = (len(panel.dates) - first, len(panel.assets))
    bases = dict.fromkeys(base for part in features.parts if isinstance(part, CrossSection) for base in part.bases)
    return {base: np.full(shape, np.nan, np.float32) for base in bases}


def columns_of(features: Features) -> dict[Feature, slice]:
    """The columns of each feature among the inputs."""
    first, columns = 0, {}
    for part in features.parts:
        columns[part] = slice(first, first + len(part.names))
        first += len(part.names)
    return columns


def across_assets(grids: dict[Feature, np.ndarray], panel: Panel, features: Features) -> dict[CrossSection, np.ndarray]:
    """The features across assets from the grids of their bases."""
    parts = [part for part in features.parts if isinstance(part, CrossSection)]
    return {part: part.across([grids[base] for base in part.bases], panel) for part in parts}


def put_bases(grids: dict[Feature, np.ndarray], block: slice, sessions: OwnSessions) -> None:
    """Fills the columns of some assets in the grids of `empty_grids`."""
    for base, grid in grids.items():
        values = base.own(sessions)
        values[sessions.entry < base.lookback] = np.nan
        grid[:, block] = sessions.scatter(values, sessions.T - len(grid))[:, :, 0]


def fill_own(
    arrays: dict[str, np.ndarray],
    panel: Panel,
    features: Features,
    horizons: tuple[int, ...],
    layout: Layout,
    grids: dict[Feature, np.ndarray],
    sums: Callable[[slice], Sums] | None,
    folder: TensorFolder | None,
    advance: Callable[[int], None],
) -> None:
    """Features of own sessions, a block of assets at a time; `grids` are filled beside the streams.

    Args:
        arrays: the streams.
        panel: the market.
        features: the inputs.
        horizons: of the targets.
        layout: of the streams.
        grids: of the rows from some row on, as of `empty_grids`.
        sums: what an earlier run has left of some assets, that this one goes on from.
        folder: where the streams are on disk, if they are.
        advance: told how many assets have been done.
    """
    columns = columns_of(features)
    scale_of = Volatility(features.scale_decay)
    numbers = arrays["record"].view(np.float32)
    for block in blocks(len(panel.assets)):
        sessions = OwnSessions(panel.select(panel.assets[block]), None if sums is None else sums(block))
        inside, entry = sessions.inside, sessions.entry
        held, fresh = (inside & (entry >= first[block, None]) for first in (layout.held, layout.fresh))
        place = layout.start[block, None] + entry
        region, asset = place[held], np.broadcast_to(np.arange(block.start, block.stop)[:, None], inside.shape)[held]
        close = sessions.field("close")
        numbers[layout.span(block, layout.pad), SCALE] = 1.0
        arrays["record"][region, ROW], arrays["record"][region, ASSET] = sessions.row[held], asset
        for h, horizon in enumerate(horizons):
            target = np.full_like(close, np.nan)
            target[:, :-horizon] = close[:, horizon:] / close[:, :-horizon] - 1
            numbers[region, TARGET + h] = target[held]
        arrays["close"][region] = close[held]
        region = place[fresh]
        numbers[region, SCALE] = scale_of.own(sessions)[:, :, 0][fresh]
        inputs = np.zeros((len(region), len(features)), np.float32)
        for part, at in columns.items():
            if not isinstance(part, CrossSection):
                inputs[:, at] = part.own(sessions)[fresh]
        arrays["inputs"][region] = inputs
        arrays["usable"][region] = entry[fresh] >= features.first_usable
        put_bases(grids, block, sessions)
        advance(block.stop - block.start)
        if folder is not None:
            release()


def fill_across(
    arrays: dict[str, np.ndarray],
    features: Features,
    layout: Layout,
    across: Mapping[CrossSection, np.ndarray],
    folder: TensorFolder | None = None,
    first: int = 0,
) -> None:
    """Features across assets, of the rows from `first` on; then masks what is not usable."""
    columns = columns_of(features)
    numbers = arrays["record"].view(np.float32)
    for block in blocks(len(layout.start)):
        span = layout.span(block)
        row, asset = arrays["record"][span, ROW], arrays["record"][span, ASSET]
        inside = row >= first
        inputs = arrays["inputs"][span]
        for part, values in across.items():
            inputs[inside, columns[part]] = values[row[inside] - first, asset[inside] if values.shape[1] > 1 else 0]
        usable = arrays["usable"][span]
        usable &= np.isfinite(inputs).all(1)
        inputs[~usable] = 0.0
        numbers[span][~usable, SCALE] = 1.0
        numbers[span][~usable, TARGET:] = np.nan
        if folder is not None:
            release()


def _open(folder: TensorFolder, about: dict[str, Any]) -> dict[str, Tensor]:
    """The streams of a folder, if it holds what is wanted."""
    held = folder.description("sessions")
    different = [name for name, value in about.items() if held.get(name) != _plain(value)]
    if different:
        raise DataError(
            f"{folder.path} holds the sessions of another panel or other windows ({', '.join(different)} differ). "
            "Remove it or name another folder."
        )
    return {name: folder.read(name) for name in _STREAMS}


def _plain(value: Any) -> Any:
    """A value as JSON gives it back."""
    import json

    return json.loads(json.dumps(value))
