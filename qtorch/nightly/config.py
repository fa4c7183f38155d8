"""The configuration of the nightly job, as its YAML file names it."""

from dataclasses import dataclass, field
from typing import Literal

from qtorch.configuration import ModelConfig, PricesConfig, TrainingConfig


@dataclass
class NightlyData(PricesConfig):
    """Prices, and what the night asks of them.

    Attributes:
        max_missing_share: the night is refused if more than this share of the assets whose market was open have no
            price.
        stale_sessions: an asset is forecast until this many sessions of its exchange have passed without a price.
        retired_after: an asset without a price for this many sessions has left the universe.
        min_history: returns that an asset needs.
    """

    max_missing_share: float = 0.5
    stale_sessions: int = 5
    retired_after: int = 60
    min_history: int = 60


@dataclass
class NightlyTraining(TrainingConfig):
    """How the model is trained, and how often.

    Attributes:
        refit_after: a model older than this many sessions is trained anew.
        validation_sessions: sessions before the backtest that are not trained on, but decide when training stops; with
            none, the model is trained on all before the backtest for all its epochs.
    """

    refit_after: int = 21
    validation_sessions: int = 0


@dataclass
class RiskConfig:
    """What is measured.

    Attributes:
        levels: confidences of value at risk and expected shortfall.
        backtest_sessions: sessions before tonight that the model is never trained on and is judged by.
        scenario_sessions: past sessions whose transforms make a portfolio's scenarios, or the copula of these.
        dependence: of a portfolio's assets: past, their past transforms themselves; or copula, a Student-t copula
            fitted to them, with recent ones weighing more, and quasi-random scenarios of it. Where the model's head is
            a `JointHead`, copula is the model's own.
    """

    levels: list[float] = field(default_factory=lambda: [0.95, 0.975, 0.99])
    backtest_sessions: int = 500
    scenario_sessions: int = 1000
    dependence: Literal["past", "copula"] = "past"


@dataclass
class NightlyConfig:
    """The whole nightly job. What it does not name of model and training is the default forecaster's.

    Attributes:
        data: prices.
        positions: a CSV or Parquet file with `asset` and `weight` or `market_value`; null forecasts assets alone.
        model: the network; its horizons begin with 1, on which the backtest is made.
        training: how it is trained.
        risk: what is measured.
        output: a folder; each night writes `as_of=YYYY-MM-DD` into it.
    """

    data: NightlyData
    positions: str | None = None
    model: ModelConfig = field(default_factory=ModelConfig)
    training: NightlyTraining = field(default_factory=NightlyTraining)
    risk: RiskConfig = field(default_factory=RiskConfig)
    output: str = "nightly"

    def __post_init__(self) -> None:
        """Checks what no single field can."""
        if self.model.horizons[:1] != [1]:
            raise ValueError(f"model.horizons must begin with 1, on which the backtest is made: {self.model.horizons}.")
        if not self.risk.levels or not all(0 < level < 1 for level in self.risk.levels):
            raise ValueError(f"risk.levels are confidences inside (0, 1), such as 0.99: {self.risk.levels}.")
        if self.risk.dependence not in ("past", "copula"):
            raise ValueError(f"risk.dependence is past or copula, not {self.risk.dependence!r}.")
        for name, value, least in (
            ("risk.backtest_sessions", self.risk.backtest_sessions, 2),
            ("risk.scenario_sessions", self.risk.scenario_sessions, 100),
            ("training.validation_sessions", self.training.validation_sessions, 0),
        ):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, not {value}.")
