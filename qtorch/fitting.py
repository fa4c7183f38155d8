"""One fit from a configuration: prices in, a saved model out."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import lightning

from qtorch.data import DataModule, Panel, PanelWindowSource, WindowSource, WindowSpec
from qtorch.data.features import Features
from qtorch.data.sampling import By
from qtorch.deploy import save
from qtorch.nn import build
from qtorch.training import Forecaster, Objective, Schedule, evaluate, fit


@dataclass
class FitData:
    """Prices, their windows and how these are split and drawn.

    Attributes:
        path: a Parquet file or partitioned dataset, as of `qtorch.data.Panel.from_parquet`.
        validation_start: the first as-of date for validation, which decides when training stops; null has none, and
            trains on all before the test.
        test_start: the first as-of date that is left for a test; null leaves none.
        as_of: the time of day up to which a date knows the world, "HH:MM Zone"; null is after the last close.
        bad_rows: raise, or quarantine rows that cannot be right.
        off_calendar: keep, drop or raise on prices on days on which the exchange is closed.
        embargo: sessions of an asset's own between its last label in a part and the next part.
        batch_size: windows a batch.
        batches_per_epoch: random batches an epoch; `targets` are so many that each target is seen once on average, null
            takes each window once.
        every_position: train on targets from each session of a window; null does where the encoder can.
        sample_by: draw windows alike, each asset alike or each date alike.
        half_life: panel rows after which a training window is drawn half as often; null has no recency.
    """

    path: str
    validation_start: str | None = None
    test_start: str | None = None
    as_of: str | None = None
    bad_rows: Literal["raise", "quarantine"] = "raise"
    off_calendar: Literal["keep", "drop", "raise"] = "keep"
    embargo: int = 0
    batch_size: int = 64
    batches_per_epoch: int | Literal["targets"] | None = "targets"
    every_position: bool | None = None
    sample_by: By = "window"
    half_life: float | None = None


@dataclass
class FitModel:
    """The network, by class path and arguments; `in_features` and `horizons` follow from the windows.

    Attributes:
        encoder: class_path and init_args of the encoder; its layout decides that of the windows.
        head: class_path and init_args of the head.
        context: sessions that the model sees.
        horizons: in own sessions.
        features: the inputs, as of `qtorch.data.features.Features.to_dict`; null is the default ones.
        allow: packages beside qtorch whose classes may be named.
    """

    encoder: dict[str, Any] = field(default_factory=lambda: {"class_path": "qtorch.models.Transformer"})
    head: dict[str, Any] = field(default_factory=lambda: {"class_path": "qtorch.heads.SkewedStudentT"})
    context: int = 64
    horizons: list[int] = field(default_factory=lambda: [1, 10])
    features: dict[str, Any] | None = None
    allow: list[str] = field(default_factory=list)

    @property
    def windows(self) -> WindowSpec:
        """What the model is fed."""
        features = Features() if self.features is None else Features.from_dict(self.features)
        return WindowSpec(self.context, tuple(self.horizons), features)


@dataclass
class FitTraining:
    """How the model is trained.

    Attributes:
        objective: what is minimised, by class path; null is the log score.
        schedule: of the learning rate.
        weight_decay: of AdamW.
        max_epochs: at most.
        patience: epochs without a better validation score before training stops; null trains all epochs.
        monitor: the score that decides.
        averaging: decay of a moving average of the weights; null has none.
        compile: compile the network.
        accelerator: as of Lightning.
        devices: as of Lightning.
        strategy: as of Lightning.
        precision: as of Lightning.
        seed: of everything random.
    """

    objective: Objective | None = None
    schedule: Schedule = field(default_factory=Schedule)
    weight_decay: float = 0.01
    max_epochs: int = 15
    patience: int | None = 3
    monitor: str = "val_loss"
    averaging: float | None = 0.99
    compile: bool = False
    accelerator: str = "auto"
    devices: int | list[int] | str = 1
    strategy: str = "auto"
    precision: str = "32-true"
    seed: int = 0


@dataclass
class FitConfig:
    """The whole fit.

    Attributes:
        data: prices and windows.
        model: the network.
        training: how it is trained.
        output: a folder for the model, and for checkpoints while it is trained.
    """

    data: FitData
    model: FitModel = field(default_factory=FitModel)
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
    output, training = Path(config.output), config.training
    checkpoints = output / "checkpoints"
    if checkpoints.exists() and not resume:
        raise ValueError(f"{checkpoints} holds a run that was broken off. Go on with --resume, or remove the folder.")
    lightning.seed_everything(training.seed, verbose=False)
    model = _model(config)
    data = _data(config, model)
    fit(
        model,
        data,
        max_epochs=training.max_epochs,
        patience=training.patience,
        monitor=training.monitor,
        averaging=training.averaging,
        checkpoints=checkpoints,
        seed=training.seed,
        compile=training.compile,
        accelerator=training.accelerator,
        devices=training.devices,
        strategy=training.strategy,
        precision=training.precision,
        progress=progress,
    )
    scores = evaluate(model, data.val_dataloader())
    if model.global_rank == 0:
        dates = data.source.panel.dates
        about = {
            "as_of": f"{dates[-1]:%Y-%m-%d}",
            "trained_through": f"{dates[data.training.known_by]:%Y-%m-%d}",
            "validated_through": f"{dates[data.validation.known_by]:%Y-%m-%d}" if scores else None,
            "validation": {name: round(value, 6) for name, value in scores.items()},
            "objective": repr(model.objective),
            "assets": len(data.source.panel.assets),
            "seed": training.seed,
        }
        save(model, output, about)
        shutil.rmtree(checkpoints)
        for name, value in scores.items():
            say(f"val_{name:<16}{value:10.5f}")
    return scores


def _model(config: FitConfig) -> Forecaster:
    spec, allow, training = config.model.windows, config.model.allow, config.training
    encoder = build(config.model.encoder, allow=allow, in_features=len(spec.features))
    head = build(config.model.head, allow=allow, in_features=encoder.out_features, horizons=list(spec.horizons))
    return Forecaster(
        encoder,
        head,
        spec,
        schedule=training.schedule,
        weight_decay=training.weight_decay,
        objective=training.objective,
    )


def _data(config: FitConfig, model: Forecaster) -> DataModule:
    options = config.data
    panel = Panel.from_parquet(
        options.path, as_of=options.as_of, bad_rows=options.bad_rows, off_calendar=options.off_calendar
    )
    kind = WindowSource if model.network.layout == "asset" else PanelWindowSource
    every_position = model.network.causal if options.every_position is None else options.every_position
    return DataModule(
        panel,
        source=kind(panel, model.spec),
        validation_start=options.validation_start,
        test_start=options.test_start,
        embargo=options.embargo,
        batch_size=options.batch_size,
        batches_per_epoch=options.batches_per_epoch,
        every_position=every_position,
        sample_by=options.sample_by,
        half_life=options.half_life,
        seed=config.training.seed,
    )
