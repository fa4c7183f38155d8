"""The night's work on a slice of assets: pure functions, so that memory is a slice's and any engine can run them."""

import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from qtorch.backtest.walk.workers import packed
from qtorch.data import Panel, SessionState, WindowSpec, recent_source
from qtorch.data.recent import Across
from qtorch.forecast import Forecast
from qtorch.models import HistoricalSimulation
from qtorch.models.baselines.riskmetrics import scaled_normal
from qtorch.nightly.config import NightlyConfig
from qtorch.nightly.forecast_history import EWMA, HISTORICAL, MODEL, limits
from qtorch.nightly.record import Record
from qtorch.nightly.uncertainty import past_shares
from qtorch.training.evaluated import Evaluated
from qtorch.training.forecasting import evaluate
from qtorch.training.network import Network

SLICE = 256  # assets


@dataclass(frozen=True, eq=False)
class Judged:
    """What the backtest of a slice's assets comes to.

    Attributes:
        assets: names.
        records: of the model and of its baselines, by name.
        transforms: probability integral transforms of the records' returns under the model; NaN where none.
        shares: epistemic shares, as of `qtorch.nightly.uncertainty.past_shares`.
    """

    assets: tuple[str, ...]
    records: dict[str, Record]
    transforms: Float64[Tensor, "T N"]
    shares: pd.DataFrame | None


def evaluate_slice(
    network: Network, spec: WindowSpec, config: NightlyConfig, panel: Panel, dates: pd.DatetimeIndex, across: Across
) -> tuple[Evaluated | None, SessionState | None]:
    """What a network says of a slice's assets at some dates, and what their sessions leave to the next night.

    Args:
        network: that sees one asset at a time.
        spec: of its windows.
        config: limits.
        panel: of the slice's assets.
        dates: as-of dates, in order.
        across: the features across all assets of the market, those of the slice.

    Returns:
        None where no asset has a usable window, and where a feature does not tell its reach.
    """
    found = recent_source(panel, spec, int(panel.rows(dates[:1])[0]), across=across)
    if not found.source.table.usable.any():
        return None, found.state
    return evaluate(network, spec, panel, dates, **limits(config), source=found.source), found.state


@torch.no_grad()
def judge_slice(network: Network, config: NightlyConfig, panel: Panel, found: Evaluated) -> Judged:
    """The records of a slice's assets over the backtest, from what the network said.

    Args:
        network: whose head the parameters are of.
        config: levels and limits.
        panel: of the slice's assets.
        found: at the backtest's as-of dates, and tonight.
    """
    forecast = found.forecast(network, panel, tuple(config.model.horizons))
    return judge(panel, forecast, found.scale, config.risk.levels)


def judge(panel: Panel, forecast: Forecast, scale: Float[Tensor, "D N"], levels: Sequence[float]) -> Judged:
    """The records of a forecast of all a panel's assets at the backtest's as-of dates and tonight.

    Args:
        panel: the market, or a part of it.
        forecast: of its assets.
        scale: volatilities of the sessions that the forecast is from, `[D, N]`.
        levels: confidences.
    """
    past = forecast.over(forecast.horizons[0]).select(slice(len(forecast.dates) - 1))
    rows = panel.dates.get_indexer(past.dates)
    returns = panel.returns()[rows + 1]
    normal = replace(past, distribution=scaled_normal(scale[:-1], (1,)))
    tails = HistoricalSimulation(500).lower_tails(panel, rows, levels)

    def there(values: Tensor) -> Tensor:
        return torch.where(past.mask, values.double(), torch.nan)

    historical = Record(
        returns,
        {level: there(var) for level, (var, _) in zip(levels, tails, strict=True)},
        {level: there(es) for level, (_, es) in zip(levels, tails, strict=True)},
    )
    records = {
        MODEL: Record.of(past, returns, levels),
        EWMA: Record.of(normal, returns, levels),
        HISTORICAL: historical,
    }
    return Judged(panel.assets, records, past.pit(returns[:, None].float())[:, 0], past_shares(forecast))


def joined(parts: list[Judged]) -> Judged:
    """Those of several slices as one."""
    if len(parts) == 1:
        return parts[0]

    def beside(values: Iterable[Tensor]) -> Tensor:
        return torch.cat(list(values), dim=1)

    records = {}
    for name, first in parts[0].records.items():
        of = [part.records[name] for part in parts]
        records[name] = Record(
            beside(record.returns for record in of),
            {level: beside(record.value_at_risk[level] for record in of) for level in first.value_at_risk},
            {level: beside(record.expected_shortfall[level] for record in of) for level in first.expected_shortfall},
        )
    shares = [part.shares for part in parts if part.shares is not None]
    return Judged(
        tuple(asset for part in parts for asset in part.assets),
        records,
        beside(part.transforms for part in parts),
        pd.concat(shares, axis=1) if shares else None,
    )


def slices_of(assets: Sequence[str]) -> list[list[str]]:
    """The assets of each slice."""
    return [list(assets[n : n + SLICE]) for n in range(0, len(assets), SLICE)]


def part_of(panel: Panel, assets: list[str]) -> Panel:
    """The panel of some assets, with tensors of its own: a view would be sent with all that it is a view of."""
    part = panel.select(assets)
    return replace(part, **{name: getattr(part, name).clone() for name in ("values", "state", "session_day")})


def in_slices(
    function: Callable[..., Any], tasks: Iterable[tuple[Any, ...]], executor: Executor | None
) -> Iterator[Any]:
    """What a function gives of each task, in their order.

    Args:
        function: of a module, with what all tasks share bound to it.
        tasks: arguments; made when they are needed, so that no more than twice as many as run at a time are in memory.
        executor: runs them elsewhere, such as a process pool or a `qtorch.backtest.RayExecutor`; None here.

    Raises:
        Exception: what the function raised.
    """
    if executor is None:
        for task in tasks:
            yield function(*task)
        return
    call = partial(packed, partial(_unpacked, function))  # one function, which Ray is sent once
    most = 2 * getattr(executor, "at_once", 2)
    done, running, wanted = dict[int, bytes](), dict[Future, int](), 0
    waiting = enumerate(tasks)
    while True:
        while len(running) + len(done) < most and (one := next(waiting, None)) is not None:
            number, task = one
            # As bytes: torch would send tensors through shared memory, whole storages and open files for as long as
            # they live.
            running[executor.submit(call, pickle.dumps(task))] = number
        if not running and not done:
            return
        if wanted not in done:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                done[running.pop(future)] = future.result()
        while wanted in done:
            # What is unpickled comes from a process of our own, not from a file.
            yield pickle.loads(done.pop(wanted))  # noqa: S301
            wanted += 1


def _unpacked(function: Callable[..., Any], task: bytes) -> Any:
    return function(*pickle.loads(task))  # noqa: S301 - from the process that started this one
