"""Models fit to what was known at a row of a panel, fresh or from the weights of an earlier fit."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from qtorch.data.datamodule import DataModule
from qtorch.data.errors import DataError
from qtorch.data.panel import Panel
from qtorch.data.sampling import Source
from qtorch.training.allocator import Allocator, fit_allocator
from qtorch.training.fit import fit
from qtorch.training.forecaster import Forecaster

Options = Mapping[str, Any]
_NONE: Options = {}
_Trained = TypeVar("_Trained", Forecaster, Allocator)


@isolate_rng()
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

    The caller's random generators are left as they were.

    Args:
        make_model: makes a fresh model, from torch's generator.
        source: the panel's windows, in the model's layout.
        row: of the panel; training and validation targets that become known after it are masked.
        seed: of everything random, with the row.
        weights: of a network to start from; None keeps the fresh one's.
        max_epochs: of a fit from a fresh model.
        warm_epochs: of a fit from weights.
        validation_sessions: rows of the panel up to this one that are not trained on, but decide when training stops;
            with none, the model is trained on all for all its epochs.
        data: further arguments of `DataModule`, such as its batch size.
        training: further arguments of `fit`, such as its averaging.

    Raises:
        DataError: there are too few rows before, or no window for training or validation.
    """
    own = _own_seed(seed, row)
    model = _begun(make_model, own, weights)
    windows = known_by(source, row, validation_sessions, {"seed": own} | dict(data))
    epochs = max_epochs if weights is None else warm_epochs
    fit(model, windows, max_epochs=epochs, **{"seed": own} | dict(training))
    return model


@isolate_rng()
def refit_allocator(
    make_model: Callable[[], Allocator],
    panel: Panel,
    row: int,
    seed: int,
    weights: Mapping[str, Tensor] | None = None,
    *,
    steps: int = 300,
    warm_steps: int = 60,
    training: Options = _NONE,
) -> Allocator:
    """An allocator fit to what a row of the panel knows; the same arguments give the same one, in any process.

    The caller's random generators are left as they were.

    Args:
        make_model: makes a fresh allocator, from torch's generator.
        panel: the market.
        row: of the panel, the last of which anything is seen.
        seed: of everything random, with the row.
        weights: of the network and the layer, as of `modules`, to start from; None keeps the fresh ones'.
        steps: batches of a fit from a fresh allocator.
        warm_steps: batches of a fit from weights.
        training: further arguments of `fit_allocator`, such as its batch size.

    Raises:
        DataError: there are too few rows before for an episode.
    """
    own = _own_seed(seed, row)
    model = _begun(make_model, own, weights)
    steps = steps if weights is None else warm_steps
    fit_allocator(model, panel, panel.dates[row], steps=steps, **{"seed": own} | dict(training))
    return model


def modules(model: Forecaster | Allocator) -> nn.Module:
    """What has the weights that a training changes, and that are saved."""
    if isinstance(model, Allocator):
        return nn.ModuleDict({"network": model.network, "allocation": model.allocation})
    return model.network


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


def _own_seed(seed: int, row: int) -> int:
    return int(np.random.SeedSequence((seed, row)).generate_state(1, np.uint32)[0])


def _begun(make_model: Callable[[], _Trained], seed: int, weights: Mapping[str, Tensor] | None) -> _Trained:
    """A fresh model of a seed, with weights of an earlier one where there are any."""
    torch.manual_seed(seed)
    model = make_model()
    if weights is not None:
        modules(model).load_state_dict(weights)
    return model
