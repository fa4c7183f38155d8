"""Features of one column from an asset's own prices: returns, fields, ranges; and what is made of them."""

from dataclasses import dataclass, field

import numpy as np

from qtorch.data.features.feature import Feature, OwnSessions, reach_of
from qtorch.data.features.windowed import MOMENTS, rolling_moment
from qtorch.errors import ArgumentError

FLOOR = 1e-6  # of daily volatility: a price that never moves must not make a scale of zero


@dataclass(frozen=True)
class Return(Feature):
    """The return from the asset's previous observed close, over closed days.

    Attributes:
        log: logarithmic, else simple.
    """

    log: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        return ("log_return" if self.log else "return",)

    @property
    def reach(self) -> int:
        """Its own entry alone, beside sums."""
        return 0

    def own(self, sessions: OwnSessions) -> np.ndarray:
        return (np.log1p(sessions.returns) if self.log else sessions.returns.copy())[:, :, None]


@dataclass(frozen=True)
class Field(Feature):
    """A field of the panel as it is: a price, a volume, a realised variance; masked where the source lacks it.

    Attributes:
        name: of the field.
    """

    name: str = "close"

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,)

    @property
    def reach(self) -> int:
        """Its own entry alone, beside sums."""
        return 0

    def own(self, sessions: OwnSessions) -> np.ndarray:
        return sessions.field(self.name)[:, :, None].copy()


@dataclass(frozen=True)
class Volatility(Feature):
    """The square root of the EWMA of squared returns: RiskMetrics' volatility of a session.

    Attributes:
        decay: weight of a session over that of the next; .94 is RiskMetrics'.
        min_sessions: returns before the first usable value.

    References:
        J.P. Morgan (1996), RiskMetrics Technical Document, section 5.2.
    """

    decay: float = 0.94
    min_sessions: int = 20

    def __post_init__(self) -> None:
        check_decay(self.decay)

    @property
    def names(self) -> tuple[str, ...]:
        return (f"volatility_{self.decay:g}",)

    @property
    def reach(self) -> int:
        """Its own entry alone, beside sums."""
        return 0

    def own(self, sessions: OwnSessions) -> np.ndarray:
        return np.sqrt(np.maximum(variance(sessions, self.decay), FLOOR**2))[:, :, None]


@dataclass(frozen=True)
class Scaled(Feature):
    """A return in units of the volatility of the sessions up to and with its own; bounded by 1 / sqrt(1 - decay).

    Attributes:
        decay: of the volatility.
        min_sessions: returns before the first usable value.
    """

    decay: float = 0.94
    min_sessions: int = 20

    @property
    def names(self) -> tuple[str, ...]:
        return (f"scaled_return_{self.decay:g}",)

    @property
    def reach(self) -> int:
        """Its own entry alone, beside sums."""
        return 0

    def own(self, sessions: OwnSessions) -> np.ndarray:
        return sessions.returns[:, :, None] / Volatility(self.decay).own(sessions)


@dataclass(frozen=True)
class Absolute(Feature):
    """The absolute values of another feature."""

    of: Feature = field(default_factory=Scaled)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"abs_{name}" for name in self.of.names)

    @property
    def reach(self) -> int | None:
        """That of the feature."""
        return reach_of(self.of)

    def own(self, sessions: OwnSessions) -> np.ndarray:
        return np.abs(self.of.own(sessions))


@dataclass(frozen=True)
class Log(Feature):
    """The logarithms of another feature, masked where it is not positive."""

    of: Feature = field(default_factory=Volatility)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"log_{name}" for name in self.of.names)

    @property
    def reach(self) -> int | None:
        """That of the feature."""
        return reach_of(self.of)

    def own(self, sessions: OwnSessions) -> np.ndarray:
        values = self.of.own(sessions)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(values > 0, np.log(values), np.nan)


@dataclass(frozen=True)
class Ewma(Feature):
    """The exponentially weighted mean of another feature over own sessions, its weights normalised from the start.

    Closed days take no weight; a session on which the feature is missing takes none of it either, but ages the rest.

    Attributes:
        of: the feature.
        decay: weight of a session over that of the next.
        min_sessions: returns before the first usable value, beside those of the feature.
    """

    of: Feature = field(default_factory=Return)
    decay: float = 0.94
    min_sessions: int = 20

    def __post_init__(self) -> None:
        check_decay(self.decay)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"ewma_{self.decay:g}_{name}" for name in self.of.names)

    @property
    def reach(self) -> int | None:
        """That of the feature."""
        return reach_of(self.of)

    def own(self, sessions: OwnSessions) -> np.ndarray:
        return sessions.ewma(self.of.own(sessions), self.decay, self.reach)


@dataclass(frozen=True)
class Drift(Feature):
    """The exponentially weighted mean of scaled returns over its own standard deviation, were they independent.

    mean sqrt((1 + decay) / (1 - decay)), within +-5: what has fallen for long varies more than what has risen.

    Attributes:
        decay: of the mean.
        scale_decay: of the volatility in whose units returns are.
        min_sessions: returns before the first usable value.

    References:
        Christie (1982), The stochastic behavior of common stock variances, Journal of Financial Economics 10, for the
        leverage effect.
    """

    decay: float = 0.94
    scale_decay: float = 0.94
    min_sessions: int = 20

    def __post_init__(self) -> None:
        check_decay(self.decay, self.scale_decay)

    @property
    def names(self) -> tuple[str, ...]:
        return (f"drift_{self.decay:g}",)

    @property
    def reach(self) -> int:
        """Its own entry alone, beside sums."""
        return 0

    def own(self, sessions: OwnSessions) -> np.ndarray:
        mean = sessions.ewma(Scaled(self.scale_decay, min_sessions=0).own(sessions), self.decay)
        return np.clip(mean * np.sqrt((1 + self.decay) / (1 - self.decay)), -5, 5)


@dataclass(frozen=True)
class Rolling(Feature):
    """A moment of another feature over the last own sessions; closed days are skipped.

    Attributes:
        of: the feature.
        window: sessions.
        moment: `mean`, `std` (over n - 1), or `skew` and `kurtosis` (the moments' ratios, 0 and 3 for a normal law).
        min_share: share of the window that must hold a value, else it is masked.
    """

    of: Feature = field(default_factory=Return)
    window: int = 21
    moment: str = "std"
    min_share: float = 0.8

    def __post_init__(self) -> None:
        if self.window < 2 or self.moment not in MOMENTS or not 0 < self.min_share <= 1:
            raise ArgumentError(
                f"Rolling needs a window of at least 2 sessions, not {self.window}; a moment of mean, std, skew and "
                f"kurtosis, not {self.moment!r}; and a min_share in (0, 1], not {self.min_share}."
            )

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"{self.moment}_{self.window}_{name}" for name in self.of.names)

    @property
    def lookback(self) -> int:
        """Own returns before the first usable value."""
        return self.of.lookback + self.window - 1

    @property
    def reach(self) -> int | None:
        """That of the feature, and the window's other sessions."""
        of = reach_of(self.of)
        return None if of is None else of + self.window - 1

    def own(self, sessions: OwnSessions) -> np.ndarray:
        return rolling_moment(self.of.own(sessions), self.window, self.moment, self.min_share)


@dataclass(frozen=True)
class WithIndicator(Feature):
    """Another feature with 0 where it is missing, and a column that says where it is there.

    For what only some sources have, such as ranges: an asset that lacks it is not masked for it.
    """

    of: Feature = field(default_factory=lambda: Field("volume"))

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.of.names, *(f"has_{name}" for name in self.of.names))

    @property
    def reach(self) -> int | None:
        """That of the feature."""
        return reach_of(self.of)

    def own(self, sessions: OwnSessions) -> np.ndarray:
        values = self.of.own(sessions)
        values[sessions.entry < self.of.lookback] = np.nan
        there = ~np.isnan(values)
        both = np.concatenate([np.where(there, values, 0.0), there.astype(float)], axis=-1)
        return np.where(sessions.inside[:, :, None], both, np.nan)

    @property
    def lookback(self) -> int:
        """None: until the look-back of the feature is over, it counts as missing."""
        return 0


def variance(sessions: OwnSessions, decay: float) -> np.ndarray:
    """The EWMA of squared returns at the entries, made once for a decay."""
    return sessions.of(("variance", decay), lambda: sessions.ewma((sessions.returns**2)[:, :, None], decay)[:, :, 0])


def check_decay(*decays: float) -> None:
    """Refuses decays outside (0, 1).

    Raises:
        ValueError: one is.
    """
    if not all(0 < decay < 1 for decay in decays):
        raise ArgumentError(f"decays must lie inside (0, 1), not {', '.join(map(str, decays))}.")
