"""Refits of a model through time, each of which is asked about the dates up to the next, without look-ahead."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from qtorch.backtest.schedule import Rebalance
from qtorch.backtest.walk.deciding import decided
from qtorch.backtest.walk.identity import claim, identity
from qtorch.backtest.walk.refit_rows import refit_rows
from qtorch.backtest.walk.refitting import Refitting, Walkable
from qtorch.backtest.walk.result import Answer, Walk, in_turn
from qtorch.backtest.walk.running import Progress, run
from qtorch.backtest.walk.workers import process_pool
from qtorch.data import Panel, PanelWindowSource, WindowSource
from qtorch.data.rows import Date
from qtorch.data.sampling import Source
from qtorch.errors import ArgumentError
from qtorch.forecast import Forecast
from qtorch.models import default_forecaster
from qtorch.training import Allocator, Ensemble, Forecaster, mixed, refit, refit_allocator
from qtorch.training.refit import Options

_NONE: Options = {}


def walk_forward(
    panel: Panel,
    make_model: Callable[[], Any] | None = None,
    refits: Rebalance | np.integer | Iterable[Date] = "year",
    *,
    start: Date | None = None,
    end: Date | None = None,
    source: Source | None = None,
    seeds: Sequence[int] = (0,),
    warm_start: bool = True,
    max_epochs: int = 15,
    warm_epochs: int = 3,
    steps: int = 300,
    warm_steps: int = 60,
    validation_sessions: int = 0,
    data: Options = _NONE,
    training: Options = _NONE,
    forecasting: Options = _NONE,
    folder: str | Path | None = None,
    workers: int | None = None,
    executor: Executor | None = None,
    progress: Progress = "auto",
) -> Walk:
    """Refits a model at some dates and asks it, from each of them on, about every date before the next.

    A refit at a date knows the panel's rows up to it and nothing later: training and validation targets that become
    known afterwards are masked. The first answer is as of the first refit itself. An answer knows its row of the panel,
    at the UTC instant `known_at`, and nothing later.

    An allocator is asked once all refits are done, on each date in turn, around what is held by then: an account that
    begins with nothing, trades to the weights of each date, pays the allocator's costs and drifts with the prices, as
    `WalkForward` does it, through refits too. Inertia, reluctance, limits of the turnover and closed markets are so
    those of a portfolio that is traded on each date; for another schedule, run `WalkForward` with a `Walked`.

    With a folder, each refit is kept when it is done: its model as a bundle of `qtorch.deploy`, and its forecasts as
    ``walk.parquet``. The same call goes on from there after a kill, and comes out as if there had been none.

    Args:
        panel: the market.
        make_model: makes a fresh model, from torch's generator: a `Forecaster`, an `Allocator`, or a baseline such as
            `Garch` or ``partial(HAR, window=500)``, which is estimated at each refit, and in between by its own
            `refit_every`. None makes `default_forecaster(panel)`. For other processes it is a function of a module,
            or a `functools.partial` of one.
        refits: dates of the panel, ascending; or ``"year"``, ``"quarter"``, ``"month"``, ``"week"`` or a number of
            rows: at the start, and then at the last row of each, or every so many rows.
        start: the first date to answer for, of such a schedule.
        end: the last date to answer for; the panel's last by default.
        source: the panel's windows, in the model's layout, if they have been made already.
        seeds: of the models; with several, the forecast is the equal-weight mixture of theirs; weights are their mean,
            and all decide around what an account that trades to the mean holds.
        warm_start: start each refit from the weights of the one before.
        max_epochs: of a forecaster's fit from fresh weights.
        warm_epochs: of a forecaster's fit from the weights of the one before.
        steps: of an allocator's fit from fresh weights.
        warm_steps: of an allocator's fit from the weights of the one before.
        validation_sessions: of a forecaster; see `qtorch.training.refit`.
        data: further arguments of a forecaster's `DataModule`, such as its batch size.
        training: further arguments of `fit` or `fit_allocator`, such as its averaging.
        forecasting: further arguments of `Forecaster.forecast`, such as its min_history.
        folder: where refits are kept; None keeps none.
        workers: processes that run the seeds at once, and without warm start the refits too, with one thread each. As
            for any such pool, a script calls this under ``if __name__ == "__main__":``; a notebook just does.
        executor: runs them instead of `workers`, such as a `ProcessPoolExecutor` or a `RayExecutor`.
        progress: show a bar of the refits; ``"auto"`` does in terminals and notebooks.

    Raises:
        DataError: a date is not among the panel's, or there is nothing to walk.
        TypeError: with a folder, an argument or a part of the model does not show its settings, and so what it is.
        ValueError: the dates are not ascending, there is no seed, an argument is not for such a model, the folder holds
            another walk, or no weights keep to an allocator's constraints at a date.
        RefitError: a refit failed; the message names its date.

    Example:
        >>> from qtorch.data import load_sample
        >>> from qtorch.models import RiskMetrics
        >>> panel = Panel.from_frame(load_sample().query("asset in ['AAPL', 'EURUSD'] and date > '2021'"))
        >>> walk = walk_forward(panel, RiskMetrics, "quarter", start="2022-01-03")
        >>> walk
        Walk(forecasts of 256 dates 2022-01-03..2022-12-28, 4 refits)
        >>> row = walk.to_frame(levels=[0.99]).iloc[-1]
        >>> print(row["asset"], row["horizon"], row["known_at"], row["refit"].date())
        EURUSD 10 2022-12-28 21:00:00+00:00 2022-09-30
    """
    make_model = cast(Callable[[], Any], partial(default_forecaster, panel)) if make_model is None else make_model
    rows, stop = refit_rows(panel, refits, start, end)
    if not seeds:
        raise ArgumentError("a walk needs a seed, and there are 0 seeds.")
    if workers is not None and executor is not None:
        raise ArgumentError(
            "workers are processes of this walk's own, beside which there is no other executor: give one."
        )
    with torch.random.fork_rng(devices=[]):
        model = make_model()
    epochs = {"max_epochs": max_epochs, "warm_epochs": warm_epochs}
    batches = {"steps": steps, "warm_steps": warm_steps}
    of_networks = {"training": training, "seeds": tuple(seeds), "warm_start": warm_start}
    of_forecasters = epochs | {"validation_sessions": validation_sessions, "data": data, "forecasting": forecasting}
    fit: Any
    if isinstance(model, Forecaster):
        _refuse(model, batches)
        source = _windows(model, panel) if source is None else source
        fit = partial(
            refit,
            make_model,
            source,
            max_epochs=max_epochs,
            warm_epochs=warm_epochs,
            validation_sessions=validation_sessions,
            data=data,
            training=training,
        )
    elif isinstance(model, Allocator):
        _refuse(model, of_forecasters | {"source": source})
        fit = partial(refit_allocator, make_model, panel, steps=steps, warm_steps=warm_steps, training=training)
    else:
        _refuse(model, of_forecasters | batches | of_networks)
        fit = partial(_untrained, make_model)
    if source is not None and source.panel is not panel:
        raise ArgumentError("the source holds the windows of another panel. Give one of this panel, or leave it out.")
    if folder is not None:
        settings = of_networks | of_forecasters | batches
        settings |= {"refits": [f"{panel.dates[row]:%Y-%m-%d}" for row in rows]}
        settings |= {"end": f"{panel.dates[stop - 1]:%Y-%m-%d}"}
        if source is not None:
            settings |= {"source": type(source).__qualname__, "source.windows": source.spec.to_dict()}
        folder = Path(folder).absolute()
        claim(folder, identity(panel, make_model, settings))
    spans = list(zip(rows, [*rows[1:], stop], strict=True))
    warm = warm_start and isinstance(model, Forecaster | Allocator)
    of_one_seed = [spans] if warm else [[span] for span in spans]
    chains = [(seed, one_after_another) for seed in seeds for one_after_another in of_one_seed]
    refitting = Refitting(make_model, fit, panel, source, forecasting, folder)
    with nullcontext(executor) if workers is None else process_pool(workers, make_model) as pool:
        outcomes = run(refitting, chains, pool, progress)
    each = len(of_one_seed)
    per_seed = [list(chain.from_iterable(outcomes[k : k + each])) for k in range(0, len(outcomes), each)]
    answer: Answer
    if isinstance(model, Allocator):
        weights = [[given for given in of_one if not isinstance(given, Forecast)] for of_one in per_seed]
        answer = decided(panel, make_model, spans, weights)
    else:
        answer = mixed([in_turn([given for given in of_one if isinstance(given, Forecast)]) for of_one in per_seed])
    return Walk.of(answer, panel, rows, stop)


def _windows(model: Forecaster, panel: Panel) -> Source:
    kind = WindowSource if model.network.layout == "asset" else PanelWindowSource
    return kind(panel, model.spec)


def _untrained(make_model: Callable[[], Walkable], row: int, seed: int, weights: None) -> Walkable:
    """A baseline."""
    return make_model()


def _refuse(model: Walkable, given: dict[str, Any]) -> None:
    """Refuses arguments that a model has no use for, unless they are the defaults, and ensembles of what is trained.

    Raises:
        ValueError: there are such.
    """
    defaults = inspect.signature(walk_forward).parameters
    useless = [name for name, value in given.items() if value != defaults[name].default]
    if useless:
        raise ArgumentError(f"{', '.join(useless)}: not for a {type(model).__name__}. Leave it out.")
    if isinstance(model, Ensemble) and any(isinstance(member, Forecaster | Ensemble) for member in model.models):
        raise ArgumentError(
            "an ensemble's networks are not trained by a walk. Walk each, and mix the forecasts: qtorch.training.mixed."
        )
