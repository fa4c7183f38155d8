"""Refits of a model at several dates, each of which forecasts the dates up to the next, without look-ahead."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from qtorch.data.datamodule import DataModule
from qtorch.data.errors import DataError
from qtorch.data.sampling import Source
from qtorch.distributions import concatenate
from qtorch.forecast import Forecast
from qtorch.training.ensemble import mixed
from qtorch.training.fit import fit
from qtorch.training.forecaster import Forecaster

Date = str | pd.Timestamp
Options = Mapping[str, Any]
_NONE: Options = {}


def walk_forward(
    make_model: Callable[[], Forecaster],
    source: Source,
    refits: Iterable[Date],
    *,
    end: Date | None = None,
    seeds: Sequence[int] = (0,),
    warm_start: bool = True,
    max_epochs: int = 15,
    warm_epochs: int = 3,
    validation_sessions: int = 0,
    data: Options = _NONE,
    training: Options = _NONE,
    forecasting: Options = _NONE,
    executor: Executor | None = None,
) -> Forecast:
    """Refits a model at some dates and forecasts, from each of them on, every date before the next.

    A refit at a date knows the panel's rows up to it and nothing later: training and validation targets that become
    known afterwards are masked. The first forecast is as of the first refit itself.

    Args:
        make_model: makes a fresh model, from torch's generator. For an executor of processes it is a function of a
            module, or a `functools.partial` of one.
        source: the panel's windows, in the model's layout.
        refits: dates of the panel, ascending.
        end: the last date to forecast; the panel's last by default.
        seeds: of the models; with several, the forecast is the equal-weight mixture of theirs.
        warm_start: start each refit from the weights of the one before.
        max_epochs: of a fit from a fresh model.
        warm_epochs: of a fit from the weights of the one before.
        validation_sessions: rows of the panel up to a refit that are not trained on, but decide when training stops;
            with none, the model is trained on all for all its epochs.
        data: further arguments of `DataModule`, such as its batch size.
        training: further arguments of `fit`, such as its averaging.
        forecasting: further arguments of `Forecaster.forecast`, such as its min_history.
        executor: runs the seeds at once, and without warm start the refits too, such as a `ProcessPoolExecutor`; None
            runs one after the other. The outcome is the same.

    Raises:
        DataError: a date is not among the panel's, there are too few rows before a refit, or nothing to forecast.
        ValueError: the dates are not ascending, or there is no refit or seed.
    """
    panel = source.panel
    rows = [panel.row(pd.Timestamp(date)) for date in refits]
    stop = 1 + (len(panel.dates) - 1 if end is None else panel.row(pd.Timestamp(end)))
    spans = list(zip(rows, [*rows[1:], stop], strict=False))
    if not spans or not seeds or any(first >= last for first, last in spans):
        raise ValueError(
            f"a walk needs a seed and refits at ascending dates up to its end, {panel.dates[stop - 1]:%Y-%m-%d}; there "
            f"are {len(seeds)} seeds and refits at {[f'{panel.dates[row]:%Y-%m-%d}' for row in rows]}."
        )
    fit_at = partial(
        refit,
        make_model,
        source,
        max_epochs=max_epochs,
        warm_epochs=warm_epochs,
        validation_sessions=validation_sessions,
        data=data,
        training=training,
    )
    chains = [spans] if warm_start else [[span] for span in spans]
    tasks = [(chain, seed) for seed in seeds for chain in chains]
    run = map if executor is None else executor.map
    parts = list(run(partial(_chain, fit_at, source, forecasting), *zip(*tasks, strict=True)))
    per_seed = [parts[k : k + len(chains)] for k in range(0, len(parts), len(chains))]
    return mixed([_one_after_another(of_one) for of_one in per_seed])


def refit(
    make_model: Callable[[], Forecaster],
    source: Source,
    row: int,
    seed: int,
    weights: Mapping[str, Tensor] | None = None,
    *,
    max_epochs: int = 15,
    warm_epochs: int = 3,
    validation_sessions: int = 0,
    data: Options = _NONE,
    training: Options = _NONE,
) -> Forecaster:
    """A model fit to what a row of the panel knows; the same arguments give the same model, in any process.

    Args:
        make_model: makes a fresh model, from torch's generator.
        source: the panel's windows, in the model's layout.
        row: of the panel.
        seed: of everything random, with the row.
        weights: of a network to start from; None keeps the fresh one's.
        max_epochs: as of `walk_forward`, as the following.
        warm_epochs: with weights to start from.
        validation_sessions: rows up to this one.
        data: further arguments of `DataModule`.
        training: further arguments of `fit`.

    Raises:
        DataError: there are too few rows before, or no window for training or validation.
    """
    own = int(np.random.SeedSequence((seed, row)).generate_state(1, np.uint32)[0])
    torch.manual_seed(own)
    model = make_model()
    if weights is not None:
        model.network.load_state_dict(weights)
    windows = known_by(source, row, validation_sessions, {"seed": own} | dict(data))
    epochs = max_epochs if weights is None else warm_epochs
    fit(model, windows, max_epochs=epochs, **{"seed": own} | dict(training))
    return model


def known_by(source: Source, row: int, validation_sessions: int, options: Options) -> DataModule:
    """Windows for a fit at a row of the panel: validation on the rows up to it, and nothing that is known later.

    Args:
        source: the panel's windows.
        row: of the panel.
        validation_sessions: rows for validation.
        options: further arguments of `DataModule`.

    Raises:
        DataError: there are too few rows before, or no window for training or validation.
    """
    dates = source.panel.dates
    first = row - validation_sessions + 1
    if first < 1:
        raise DataError(
            f"a refit at {dates[row]:%Y-%m-%d} knows {row + 1} rows of the panel, too few for {validation_sessions} of "
            "validation. Begin later, or lower validation_sessions."
        )
    start = dates[first] if validation_sessions else None
    return DataModule(source.panel, source=source, validation_start=start, until=dates[row], **options)


def _chain(
    fit_at: Callable[..., Forecaster],
    source: Source,
    forecasting: Options,
    spans: Sequence[tuple[int, int]],
    seed: int,
) -> Forecast:
    """Refits at the first row of each span, each from the weights of the one before, and their forecasts."""
    weights, forecasts = None, []
    for row, stop in spans:
        model = fit_at(row, seed, weights)
        weights = model.network.state_dict()
        forecasts.append(model.forecast(source.panel, source.panel.dates[row:stop], source=source, **forecasting))
    return _one_after_another(forecasts)


def _one_after_another(forecasts: Sequence[Forecast]) -> Forecast:
    """Forecasts of one panel at different dates as one."""
    first = forecasts[0]
    return Forecast(
        concatenate([forecast.distribution for forecast in forecasts]),
        torch.cat([forecast.mask for forecast in forecasts]),
        torch.cat([forecast.state for forecast in forecasts]),
        pd.DatetimeIndex(np.concatenate([forecast.dates for forecast in forecasts])),
        first.assets,
        first.horizons,
    )
