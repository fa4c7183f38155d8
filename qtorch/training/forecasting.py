"""From a network and a panel to a forecast at some dates."""

import warnings
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from qtorch.data.errors import DataError, listing
from qtorch.data.panel import Panel
from qtorch.data.panel_windows import PanelWindowSource
from qtorch.data.rows import Dates
from qtorch.data.sampling import Source
from qtorch.data.window import WindowSpec
from qtorch.data.windows import WindowSource
from qtorch.errors import ArgumentError
from qtorch.forecast import Forecast
from qtorch.training.compiling import compile_whole
from qtorch.training.evaluated import Evaluated
from qtorch.training.network import Network


@torch.no_grad()
def forecast(
    network: Network,
    spec: WindowSpec,
    panel: Panel,
    dates: Dates,
    min_history: int,
    stale: int,
    *,
    batch_size: int,
    source: Source | None = None,
    compile: bool = False,
) -> Forecast:
    """Forecasts every asset of a panel at some of its dates; arguments as of `Forecaster.forecast`.

    An asset is forecast from the window that ends at its own last session up to the date, in panel layout too, where
    that window holds what all assets had done by then.
    """
    options: Any = {"batch_size": batch_size, "source": source, "compile": compile}
    found = evaluate(network, spec, panel, dates, min_history, stale, **options)
    if not found.valid.any():
        raise DataError(
            f"nothing to forecast at {listing(f'{date:%Y-%m-%d}' for date in found.dates)}: no asset has {min_history} "
            f"returns and a price within its last {stale} sessions. Give more history, or lower min_history."
        )
    return found.forecast(network, panel, spec.horizons)


@torch.no_grad()
def evaluate(
    network: Network,
    spec: WindowSpec,
    panel: Panel,
    dates: Dates,
    min_history: int,
    stale: int,
    *,
    batch_size: int = 1024,
    source: Source | None = None,
    compile: bool = False,
) -> Evaluated:
    """What a forecast is made of; arguments as of `Forecaster.forecast`. There need be no asset that has one."""
    rows = panel.rows(dates)
    dates = panel.dates[rows].rename(None)
    if source is not None and (source.panel is not panel or source.spec != spec):
        raise ArgumentError("the source holds the windows of another panel or spec. Give the model's, or leave it out.")
    if isinstance(source, WindowSource):
        own = source
    else:
        own = WindowSource(panel, spec, None if source is None else source.table)
    entries, valid = own.at(rows, min_history, stale)
    # Where there is no forecast at all, a usable window gives the parameters their shapes.
    asked = entries[valid] if valid.any() else entries[:1, :1].flatten()
    if compile:
        compile_whole(network)
        if network.layout == "asset" and network.shares:
            warnings.warn(
                "compile=True: windows of this encoder share the work of their common sessions, which is faster than a "
                "compiled network, and is not compiled itself. Leave compile=True out of forecasts.",
                stacklevel=6,  # whoever called the model's method, past no_grad twice
            )
    training = network.training
    network.eval()
    try:
        if network.layout == "asset":
            chosen = _of_assets(network, own, asked, batch_size)
        else:
            across = source if isinstance(source, PanelWindowSource) else PanelWindowSource(panel, spec, own.table)
            chosen = _of_panels(network, across, *own.places(asked), batch_size)
    finally:
        network.train(training)
    D, N = valid.shape
    spread = []
    for values in chosen:
        values = values.to(valid.device)
        dense = values[:1].expand(D, N, *values.shape[1:]).clone()  # a placeholder where there is no forecast
        if valid.any():
            dense[valid] = values
        spread.append(dense)
    *parameters, scale = spread
    latest = None
    if network.joint:
        row = torch.full((D, N), -1, dtype=torch.int64, device=valid.device)
        row[valid] = own.places(entries[valid])[0].long().to(valid.device)
        latest = row.argmax(1)
    return Evaluated(valid, tuple(parameters), scale.squeeze(-1), dates, panel.assets, latest)


def _of_assets(
    network: Network, source: WindowSource, entries: Int64[Tensor, " K"], batch_size: int
) -> tuple[Tensor, ...]:
    """The head's parameters `[K, H, ...]` and the scales `[K, 1]` of some windows in asset layout.

    A window is evaluated once, however many dates it stands for, and beside those of the dates around it, with which
    it shares most of its sessions.
    """
    device = next(network.parameters()).device
    own, which = entries.unique(return_inverse=True)
    batches = []
    for part in own.split(batch_size):
        inputs, mask, place, scale = (tensor.to(device) for tensor in source.overlapping(part))
        batches.append((*network.last_of(inputs, mask, place, source.spec.context), scale.unsqueeze(-1)))
    return tuple(torch.cat(values)[which.to(device)] for values in zip(*batches, strict=True))


def _of_panels(
    network: Network, source: PanelWindowSource, rows: Tensor, columns: Tensor, batch_size: int
) -> tuple[Tensor, ...]:
    """The same of some cells of the panel, from the windows in panel layout that end at their rows.

    Hidden states are 0 at masked cells, so that a forecast is taken only where the asset has a session.
    """
    device = next(network.parameters()).device
    ends, place = rows.unique(return_inverse=True)
    batches = []
    for part in ends.split(max(1, batch_size // len(source.panel.assets))):
        window = source.gather(part).to(device)
        batches.append((*network(window.inputs, window.mask), window.scale.unsqueeze(-1)))
    cells = place.to(device), columns.long().to(device)
    return tuple(torch.cat(values)[cells] for values in zip(*batches, strict=True))
