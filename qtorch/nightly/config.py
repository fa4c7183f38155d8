"""The configuration of the nightly job, as its YAML file names it."""

from dataclasses import dataclass, field
from typing import Any, Literal

from qtorch.data import WindowSpec


@dataclass
class DataConfig:
    """Where prices come from and how strictly they are read.

    Attributes:
        path: a Parquet file or partitioned dataset, as of `qtorch.data.Panel.from_parquet`.
        as_of: the time of day up to which a date knows the world, "HH:MM Zone"; null is after the last close.
        bad_rows: raise, or quarantine rows that cannot be right.
        off_calendar: keep, drop or raise on prices on days on which the exchange is closed.
        max_missing_share: the night is refused if more than this share of the assets whose market was open have no
            price.
        stale_sessions: an asset is forecast until this many sessions of its exchange have passed without a price.
        retired_after: an asset without a price for this many sessions has left the universe.
        min_history: returns that an asset needs.
    """

    path: str
    as_of: str | None = None
    bad_rows: Literal["raise", "quarantine"] = "raise"
    off_calendar: Literal["keep", "drop", "raise"] = "keep"
    max_missing_share: float = 0.5
    stale_sessions: int = 5
    retired_after: int = 60
    min_history: int = 60


@dataclass
class ModelConfig:
    """The network, by class path and arguments; `in_features` and `horizons` follow from the windows.

    Attributes:
        encoder: class_path and init_args of the encoder.
        head: class_path and init_args of the head.
        context: own sessions that the model sees.
        horizons: in own sessions; the first must be 1, on which the backtest is made.
        allow: packages beside qtorch whose classes may be named.
    """

    encoder: dict[str, Any] = field(default_factory=lambda: {"class_path": "qtorch.models.Transformer"})
    head: dict[str, Any] = field(default_factory=lambda: {"class_path": "qtorch.heads.SkewedStudentT"})
    context: int = 64
    horizons: list[int] = field(default_factory=lambda: [1, 10])
    allow: list[str] = field(default_factory=list)

    @property
    def windows(self) -> WindowSpec:
        """What the model is fed."""
        return WindowSpec(context=self.context, horizons=tuple(self.horizons))


@dataclass
class TrainingConfig:
    """How the model is trained, and how often.

    Attributes:
        refit_after: a model older than this many sessions is trained anew.
        validation_sessions: sessions before the backtest that decide when training stops.
        max_epochs: at most.
        batches_per_epoch: random batches an epoch.
        batch_size: windows a batch.
        learning_rate: the highest of the schedule.
        patience: epochs without a better validation loss before training stops.
        accelerator: as of Lightning.
        precision: as of Lightning.
        seed: of everything random.
    """

    refit_after: int = 21
    validation_sessions: int = 750
    max_epochs: int = 8
    batches_per_epoch: int = 40
    batch_size: int = 64
    learning_rate: float = 3e-3
    patience: int = 3
    accelerator: str = "auto"
    precision: str = "32-true"
    seed: int = 0


@dataclass
class RiskConfig:
    """What is measured.

    Attributes:
        levels: confidences of value at risk and expected shortfall.
        backtest_sessions: sessions before tonight that the model is never trained on and is judged by.
        scenario_sessions: past sessions whose transforms make a portfolio's scenarios.
    """

    levels: list[float] = field(default_factory=lambda: [0.95, 0.975, 0.99])
    backtest_sessions: int = 500
    scenario_sessions: int = 1000


@dataclass
class NightlyConfig:
    """The whole nightly job.

    Attributes:
        data: prices.
        positions: a CSV or Parquet file with `asset` and `weight` or `market_value`; null forecasts assets alone.
        model: the network.
        training: how it is trained.
        risk: what is measured.
        output: a folder; each night writes `as_of=YYYY-MM-DD` into it.
    """

    data: DataConfig
    positions: str | None = None
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    risk: RiskConfig = field(default_factory=RiskConfig)
    output: str = "nightly"

    def __post_init__(self) -> None:
        """Checks what no single field can."""
        if self.model.horizons[:1] != [1]:
            raise ValueError(f"model.horizons must begin with 1, on which the backtest is made: {self.model.horizons}.")
        if not self.risk.levels or not all(0 < level < 1 for level in self.risk.levels):
            raise ValueError(f"risk.levels are confidences inside (0, 1), such as 0.99: {self.risk.levels}.")
        for name, value, least in (
            ("risk.backtest_sessions", self.risk.backtest_sessions, 2),
            ("risk.scenario_sessions", self.risk.scenario_sessions, 100),
            ("training.validation_sessions", self.training.validation_sessions, 1),
        ):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, not {value}.")
