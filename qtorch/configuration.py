"""What every job's configuration says of prices, model and training, and the forecaster and windows made of it.

What a configuration does not name is that of `qtorch.models.default_forecaster`.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from qtorch.data import DataModule, Panel, PanelWindowSource, WindowSource, WindowSpec
from qtorch.data.features import Features
from qtorch.data.sampling import By
from qtorch.data.window import Window
from qtorch.heads import Ensemble
from qtorch.models import EncoderEnsemble
from qtorch.models.defaults import default_encoder, default_schedule, default_windows
from qtorch.nn import build, construct
from qtorch.training import Forecaster, Objective, Schedule


@dataclass
class PricesConfig:
    """Where prices come from and how strictly they are read.

    Attributes:
        path: a Parquet file or partitioned dataset, as of `qtorch.data.Panel.from_parquet`.
        as_of: the time of day up to which a date knows the world, "HH:MM Zone"; null is after the last close.
        bad_rows: raise, or quarantine rows that cannot be right.
        off_calendar: keep, drop or raise on prices on days on which the exchange is closed.
    """

    path: str
    as_of: str | None = None
    bad_rows: Literal["raise", "quarantine"] = "raise"
    off_calendar: Literal["keep", "drop", "raise"] = "keep"


@dataclass
class ModelConfig:
    """The network, by class path and arguments; `in_features` and `horizons` follow from the windows.

    Attributes:
        encoder: class_path and init_args of the encoder, whose layout decides that of the windows; null is the default
            forecaster's.
        head: class_path and init_args of the head. Those of a `JointHead`, which needs an encoder in panel layout, are
            marginals and copula, each with class_path and init_args.
        context: sessions that the model sees.
        horizons: in own sessions.
        features: the inputs, as of `qtorch.data.features.Features.to_dict`; null is the default forecaster's.
        allow: packages beside qtorch whose classes may be named.
        members: networks with weights of their own that are trained together and forecast as a mixture, which knows
            where they disagree.
    """

    # Of Any, the command line's parser would make more than plain values of the parts of a head that is made of heads.
    encoder: dict | None = None
    head: dict = field(default_factory=lambda: {"class_path": "qtorch.heads.SkewedStudentT"})
    context: int = 64
    horizons: list[int] = field(default_factory=lambda: [1, 10])
    features: dict[str, Any] | None = None
    allow: list[str] = field(default_factory=list)
    members: int = 1

    def windows(self, panel: Panel) -> WindowSpec:
        """What the model is fed of a market."""
        if self.features is None:
            return default_windows(panel, horizons=self.horizons, context=self.context)
        return WindowSpec(self.context, tuple(self.horizons), Features.from_dict(self.features))


@dataclass
class TrainingConfig:
    """How a model is trained.

    Attributes:
        objective: what is minimised, by class path; null is the log score.
        schedule: of the learning rate.
        weight_decay: of AdamW.
        augmentation: changes training windows: class_path and init_args of what makes it of a `WindowSpec`; null leaves
            them as they are.
        batch_size: windows a batch.
        batches_per_epoch: random batches an epoch; `targets` are so many that each target is seen once on average, null
            takes each window once.
        every_position: train on targets from each session of a window; null does where the encoder can.
        sample_by: draw windows alike, each asset alike or each date alike.
        half_life: panel rows after which a training window is drawn half as often; null has no recency.
        max_epochs: at most; all of them where there is no validation.
        patience: epochs without a better validation score before training stops; null trains all epochs.
        averaging: decay of a moving average of the weights; null has none.
        accelerator: as of Lightning.
        precision: as of Lightning.
        seed: of everything random.
    """

    objective: Objective | None = None
    schedule: Schedule = field(default_factory=default_schedule)
    weight_decay: float = 0.01
    augmentation: dict[str, Any] | None = field(
        default_factory=lambda: {"class_path": "qtorch.training.HideInputs.by_kind"}
    )
    batch_size: int = 64
    batches_per_epoch: int | Literal["targets"] | None = "targets"
    every_position: bool | None = None
    sample_by: By = "window"
    half_life: float | None = None
    max_epochs: int = 15
    patience: int | None = 3
    averaging: float | None = 0.99
    accelerator: str = "auto"
    precision: str = "32-true"
    seed: int = 0


def make_forecaster(model: ModelConfig, training: TrainingConfig, spec: WindowSpec) -> Forecaster:
    """A fresh forecaster of windows, from torch's generator.

    Raises:
        ValueError: a class is not allowed, does not exist, or its arguments do not fit.
    """
    inputs = len(spec.features)
    named = model.encoder
    encoder = default_encoder(spec) if named is None else build(named, allow=model.allow, in_features=inputs)
    head = build(model.head, allow=model.allow, in_features=encoder.out_features, horizons=list(spec.horizons))
    if model.members > 1:
        encoder, head = EncoderEnsemble(encoder, model.members), Ensemble(head, model.members)
    augmentation: Callable[[Window], Window] | None = None
    if training.augmentation is not None:
        augmentation = construct(training.augmentation, allow=model.allow, spec=spec)
    return Forecaster(
        encoder,
        head,
        spec,
        schedule=training.schedule,
        weight_decay=training.weight_decay,
        objective=training.objective,
        augmentation=augmentation,
    )


def make_windows(model: Forecaster, training: TrainingConfig, own: WindowSource, **split: Any) -> DataModule:
    """The windows that a model is trained on, in its layout.

    Args:
        model: the model.
        training: how the windows are drawn.
        own: the panel's windows of single assets.
        **split: where the parts begin, as of `qtorch.data.DataModule`.
    """
    by_asset = model.network.layout == "asset"
    return DataModule(
        own.panel,
        source=own if by_asset else PanelWindowSource(own.panel, own.spec, own.table),
        batch_size=training.batch_size,
        batches_per_epoch=training.batches_per_epoch,
        every_position=model.network.causal if training.every_position is None else training.every_position,
        sample_by=training.sample_by,
        half_life=training.half_life,
        seed=training.seed,
        **split,
    )


def fit_options(training: TrainingConfig) -> dict[str, Any]:
    """The arguments of `qtorch.training.fit` that every job shares."""
    names = ("max_epochs", "patience", "averaging", "accelerator", "precision", "seed")
    return {name: getattr(training, name) for name in names}


def plain(config: Any) -> dict[str, Any]:
    """A configuration as plain values; an objective as the expression that makes it."""
    values = asdict(config)
    for name, value in vars(config).items():
        if isinstance(value, Objective):
            values[name] = repr(value)
        elif isinstance(value, TrainingConfig):
            values[name] = plain(value)
    return values
