"""The configuration of the nightly job, as its YAML file names it."""

from dataclasses import dataclass, field
from typing import Literal

from qtorch.configuration import ModelConfig, PricesConfig, TrainingConfig
from qtorch.errors import ArgumentError
from qtorch.nightly.gate_config import DriftConfig, GatesConfig
from qtorch.nightly.sink_urls import check_sink
from qtorch.portfolio import Constraints, Costs


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
        calibration: class_path and init_args of what corrects values at risk night after night by what came of those
            before, such as `qtorch.calibration.AdaptiveConformal`, to which the job gives the levels; null corrects
            nothing. With `groups` in its init_args, by asset the label of its group or null for none, the assets of a
            group learn together, and one that is new starts with what its group has learned.
    """

    levels: list[float] = field(default_factory=lambda: [0.95, 0.975, 0.99])
    backtest_sessions: int = 500
    scenario_sessions: int = 1000
    dependence: Literal["past", "copula"] = "past"
    calibration: dict | None = None  # of Any, the command line's parser would make more than plain values


@dataclass
class AllocationConfig:
    """Tonight's target weights, and what leads to them.

    Attributes:
        allocator: class_path and init_args of what is called as ``allocate(panel, row, holdings)``, such as
            `qtorch.backtest.InverseVolatility`, or of a function that makes it, such as `qtorch.backtest.equal_risk`.
            `qtorch.deploy.SavedAllocator` is a trained one; its `path` is relative to the file.
        constraints: as of `qtorch.portfolio.Constraints`; the nearest weights to the allocator's that keep to them are
            the targets.
        groups: for the constraints' caps, by the name of a partition and by asset, the asset's label; null for none. A
            cap that lists a limit for each label takes the labels in alphabetical order.
        costs: rates, as of `qtorch.portfolio.Costs`, without impact.
        minimum_trade: least trade, as a weight; a smaller one is left out where the constraints can be kept without it.
        equity: the portfolio's value with its cash, in the currency of the positions; null is the sum of market values.
            With positions given as weights it makes values of the trades.
    """

    # Of Any, the command line's parser would make more than plain values.
    allocator: dict
    constraints: dict = field(default_factory=dict)
    groups: dict[str, dict[str, str | None]] = field(default_factory=dict)
    costs: Costs = field(default_factory=Costs)
    minimum_trade: float = 0.0
    equity: float | None = None

    def __post_init__(self) -> None:
        """Checks what can be without the data.

        Raises:
            ValueError: a setting is out of bounds, or a cap lacks its labels.
        """
        for name, cap in self.limits.caps.items():
            if name not in self.groups:
                raise ArgumentError(
                    f"allocation.constraints cap {name!r}: give its labels in allocation.groups.{name}."
                )
            labels = self.labels(name)
            if cap.labels is not None and cap.labels != len(labels):
                raise ArgumentError(
                    f"allocation.constraints cap {name!r} with {cap.labels} limits, but its labels are "
                    f"{', '.join(labels)}: give a limit for each of these, in this order, or one for all."
                )
        if self.costs.impact:
            raise ArgumentError(
                "allocation.costs.impact needs volumes, which the job has not: give proportional costs."
            )
        if not 0 <= self.minimum_trade < 1:
            raise ArgumentError(f"allocation.minimum_trade is a weight in [0, 1), not {self.minimum_trade}.")
        if self.equity is not None and not self.equity > 0:
            raise ArgumentError(f"allocation.equity must be positive, not {self.equity}; null is the sum of positions.")

    @property
    def path(self) -> str | None:
        """Where a saved allocator is; None of others."""
        given: str | None = (self.allocator.get("init_args") or {}).get("path")
        return given

    @path.setter
    def path(self, path: str) -> None:
        self.allocator = self.allocator | {"init_args": self.allocator["init_args"] | {"path": path}}

    @property
    def limits(self) -> Constraints:
        """The constraints."""
        try:
            return Constraints(**self.constraints)
        except TypeError as error:
            raise ArgumentError(f"allocation.constraints: {error}; see qtorch.portfolio.Constraints.") from error

    def labels(self, partition: str) -> list[str]:
        """The labels of a partition, in order."""
        return sorted({label for label in self.groups[partition].values() if label is not None})


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
        allocation: target weights; null makes none.
        sinks: URLs that a whole night is sent to: folders and object stores such as s3://bucket/nights, and databases
            such as postgresql+psycopg://risk@db/risk; ${NAME} in one is taken from the environment.
        gates: what tonight's data must be like.
        drift: what the forecasts of the last sessions must be like.
    """

    data: NightlyData
    positions: str | None = None
    model: ModelConfig = field(default_factory=ModelConfig)
    training: NightlyTraining = field(default_factory=NightlyTraining)
    risk: RiskConfig = field(default_factory=RiskConfig)
    output: str = "nightly"
    allocation: AllocationConfig | None = None
    sinks: list[str] = field(default_factory=list)
    gates: GatesConfig = field(default_factory=GatesConfig)
    drift: DriftConfig = field(default_factory=DriftConfig)

    def __post_init__(self) -> None:
        """Checks what no single field can."""
        if self.model.horizons[:1] != [1]:
            raise ArgumentError(
                f"model.horizons must begin with 1, on which the backtest is made: {self.model.horizons}."
            )
        if not self.risk.levels or not all(0 < level < 1 for level in self.risk.levels):
            raise ArgumentError(f"risk.levels are confidences inside (0, 1), such as 0.99: {self.risk.levels}.")
        if self.risk.dependence not in ("past", "copula"):
            raise ArgumentError(f"risk.dependence is past or copula, not {self.risk.dependence!r}.")
        for name, value, least in (
            ("risk.backtest_sessions", self.risk.backtest_sessions, 2),
            ("risk.scenario_sessions", self.risk.scenario_sessions, 100),
            ("training.validation_sessions", self.training.validation_sessions, 0),
        ):
            if value < least:
                raise ArgumentError(f"{name} must be at least {least}, not {value}.")
        if "://" in self.output:
            raise ArgumentError(
                f"output {self.output!r} must be a folder on this machine, since models and what was learned are kept "
                "there too: name the URL under sinks, to which each night is sent."
            )
        for sink in self.sinks:
            check_sink(sink)
