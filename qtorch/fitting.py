"""One fit from a configuration: prices in, a saved model out."""

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import lightning

from qtorch.configuration import ModelConfig, PricesConfig, TrainingConfig, fit_options, make_forecaster, make_windows
from qtorch.data import Panel, WindowSource
from qtorch.deploy import save
from qtorch.errors import ArgumentError
from qtorch.training import evaluate, fit


@dataclass
class FitData(PricesConfig):
    """Prices, and how their windows are split.

    Attributes:
        validation_start: the first as-of date for validation, which decides when training stops; null has none, and
            trains on all before the test.
        test_start: the first as-of date that is left for a test; null leaves none.
        embargo: sessions of an asset's own between its last label in a part and the next part.
    """

    validation_start: str | None = None
    test_start: str | None = None
    embargo: int = 0


@dataclass
class FitTraining(TrainingConfig):
    """How the model is trained, and on what.

    Attributes:
        monitor: the validation score that decides when training stops.
        compile: compile the network.
        devices: as of Lightning.
        strategy: as of Lightning.
    """

    monitor: str = "val_loss"
    compile: bool = False
    devices: int | list[int] | str = 1
    strategy: str = "auto"


@dataclass
class FitConfig:
    """The whole fit. What it does not name of model and training is the default forecaster's.

    Attributes:
        data: prices and how their windows are split.
        model: the network.
        training: how it is trained.
        output: a folder for the model, and for checkpoints while it is trained.
    """

    data: FitData
    model: ModelConfig = field(default_factory=ModelConfig)
    training: FitTraining = field(default_factory=FitTraining)
    output: str = "model"


def run(
    config: FitConfig, *, resume: bool = False, progress: bool = False, say: Callable[[str], None] = print
) -> dict[str, float]:
    """Trains a model, saves it to the output folder as of `qtorch.deploy.save`, and says its validation scores.

    Args:
        config: the fit.
        resume: go on from the checkpoints of a run that was broken off, if there are any.
        progress: show a progress bar while training.
        say: receives a line per score.

    Returns:
        The validation scores by name.

    Raises:
        DataError: the data cannot be used.
        ValueError: a setting can't be used, or there are checkpoints of a run to go on from and nobody asked for it.
        FloatingPointError: a loss is not finite.
    """
    output, prices, training = Path(config.output), config.data, config.training
    checkpoints = output / "checkpoints"
    if checkpoints.exists() and not resume:
        raise ArgumentError(
            f"{checkpoints} holds a run that was broken off. Go on with --resume, or remove the folder."
        )
    lightning.seed_everything(training.seed, verbose=False)
    panel = Panel.from_parquet(
        prices.path, as_of=prices.as_of, bad_rows=prices.bad_rows, off_calendar=prices.off_calendar
    )
    model = make_forecaster(config.model, training, config.model.windows(panel))
    data = make_windows(
        model,
        training,
        WindowSource(panel, model.spec),
        validation_start=prices.validation_start,
        test_start=prices.test_start,
        embargo=prices.embargo,
    )
    fit(
        model,
        data,
        monitor=training.monitor,
        checkpoints=checkpoints,
        compile=training.compile,
        devices=training.devices,
        strategy=training.strategy,
        progress=progress,
        **fit_options(training),
    )
    scores = evaluate(model, data.val_dataloader())
    if model.global_rank == 0:
        dates = data.source.panel.dates
        known = {name: value for name, value in scores.items() if math.isfinite(value)}
        about = {
            "as_of": f"{dates[-1]:%Y-%m-%d}",
            "trained_through": f"{dates[data.training.known_by]:%Y-%m-%d}",
            "validated_through": f"{dates[data.validation.known_by]:%Y-%m-%d}" if scores else None,
            "validation": {name: round(value, 6) for name, value in known.items()},
            "objective": repr(model.objective),
            "assets": len(data.source.panel.assets),
            "seed": training.seed,
        }
        save(model, output, about, metrics={f"val_{name}": value for name, value in known.items()})
        shutil.rmtree(checkpoints)
        for name, value in scores.items():
            say(f"val_{name:<16}{value:10.5f}")
    return scores
