"""What tonight's data and forecasts must be like, and what is done about those that are not."""

from dataclasses import dataclass, field
from typing import Literal

from qtorch.errors import ArgumentError

Action = Literal["off", "warn", "hold"]
ACTIONS = ("off", "warn", "hold")


@dataclass
class StaleGate:
    """Prices that stand still.

    Attributes:
        action: off, warn, or hold the night back.
        share: of the assets with a price tonight, above which there is an alarm.
        sessions: an asset counts if its last so many closes are each the one before.
    """

    action: Action = "warn"
    share: float = 0.1
    sessions: int = 5


@dataclass
class JumpGate:
    """Prices that move beyond belief.

    Attributes:
        action: off, warn, or hold the night back.
        share: of the assets with a price tonight, above which there is an alarm.
        volatilities: an asset counts if its return tonight is beyond so many volatilities, the root mean square of its
            last 60 returns before; null does not look at these.
        move: it counts too if its return is beyond this, in decimals; null does not look at it.
    """

    action: Action = "warn"
    share: float = 0.1
    volatilities: float | None = 10.0
    move: float | None = 0.5


@dataclass
class UniverseGate:
    """Assets that came or left since the last night of the output folder.

    Attributes:
        action: off, warn, or hold the night back.
        share: of the last night's assets, above which there is an alarm.
    """

    action: Action = "warn"
    share: float = 0.1


@dataclass
class GatesConfig:
    """What tonight's data must be like; looked at before a model is trained.

    Attributes:
        stale: prices that stand still.
        jumps: prices that move beyond belief.
        universe: assets that came or left.
    """

    stale: StaleGate = field(default_factory=StaleGate)
    jumps: JumpGate = field(default_factory=JumpGate)
    universe: UniverseGate = field(default_factory=UniverseGate)

    def __post_init__(self) -> None:
        """Checks the bounds."""
        for name, gate in (("stale", self.stale), ("jumps", self.jumps), ("universe", self.universe)):
            check_action(f"gates.{name}", gate.action)
            if not 0 <= gate.share <= 1:
                raise ArgumentError(f"gates.{name}.share is a share in [0, 1], not {gate.share}.")
        if self.stale.sessions < 1:
            raise ArgumentError(f"gates.stale.sessions must be at least 1, not {self.stale.sessions}.")
        for name in ("volatilities", "move"):
            value = getattr(self.jumps, name)
            if value is not None and not value > 0:
                raise ArgumentError(f"gates.jumps.{name} must be positive, or null: {value}.")


@dataclass
class UniformityDrift:
    """Outcomes that do not fall where the forecasts said, as of `qtorch.nightly.drift.uniformity`.

    Attributes:
        action: off, warn, or hold the night back.
        evidence: an e-value, above which there is an alarm (see `CoverageDrift`),
        distance: if the distribution of the transforms is also further than this from the uniform one, anywhere: with
            enough outcomes there is much evidence of a harmless difference.
    """

    action: Action = "warn"
    evidence: float = 100.0
    distance: float = 0.05


@dataclass
class VolatilityDrift:
    """Tonight's risk far from that of the last nights.

    Attributes:
        action: off, warn, or hold the night back.
        ratio: of tonight's value at risk to the asset's median of the nights before, of the median asset, beyond which
            there is an alarm, or below one over it.
        nights: how many nights before.
    """

    action: Action = "warn"
    ratio: float = 2.0
    nights: int = 5


@dataclass
class CoverageDrift:
    """Too many losses beyond the value at risk, as of `qtorch.nightly.drift.coverage_evidence`.

    Attributes:
        action: off, warn, or hold the night back.
        evidence: an e-value, above which there is an alarm: if the value at risk were right, one above 100 would come
            with a probability of 1 % at most, however the assets depend on each other.
    """

    action: Action = "warn"
    evidence: float = 100.0


@dataclass
class DriftConfig:
    """What the forecasts of the last sessions must be like, judged by what came.

    Attributes:
        sessions: how many are looked at, of the backtest's; with fewer than 60 nothing is said.
        uniformity: where outcomes fall in their forecasts.
        volatility: the level of tonight's risk.
        coverage: losses beyond the value at risk at the highest level.
    """

    sessions: int = 250
    uniformity: UniformityDrift = field(default_factory=UniformityDrift)
    volatility: VolatilityDrift = field(default_factory=VolatilityDrift)
    coverage: CoverageDrift = field(default_factory=CoverageDrift)

    def __post_init__(self) -> None:
        """Checks the bounds."""
        for name in ("uniformity", "volatility", "coverage"):
            check_action(f"drift.{name}", getattr(self, name).action)
        for name, value, fits in (
            ("sessions", self.sessions, self.sessions >= 60),
            ("uniformity.evidence", self.uniformity.evidence, self.uniformity.evidence >= 0),
            ("uniformity.distance", self.uniformity.distance, 0 <= self.uniformity.distance < 1),
            ("volatility.ratio", self.volatility.ratio, self.volatility.ratio > 1),
            ("volatility.nights", self.volatility.nights, self.volatility.nights >= 1),
            ("coverage.evidence", self.coverage.evidence, self.coverage.evidence >= 0),
        ):
            if not fits:
                raise ArgumentError(f"drift.{name}={value} is out of bounds; see the reference of the configuration.")


def check_action(where: str, action: str) -> None:
    """Refuses what is no action.

    Raises:
        ValueError: it is none of off, warn and hold.
    """
    if action not in ACTIONS:
        raise ArgumentError(f"{where}.action is off, warn or hold, not {action!r}.")
