"""Volatility as inputs for networks, and estimates of it from a session's range."""

from dataclasses import dataclass

import numpy as np

from qtorch.data.features.feature import Feature, OwnSessions
from qtorch.data.features.series import FLOOR, check_decay, variance
from qtorch.data.features.windowed import rolling_moment
from qtorch.errors import ArgumentError

_TAIL = 1.65  # volatilities; 5 % of a normal law lie beyond


@dataclass(frozen=True)
class VolatilityRatio(Feature):
    """The log ratio of two EWMA volatilities, bounded by log(10) on either side.

    Attributes:
        decay: of the numerator.
        reference: decay of the denominator.
        min_sessions: returns before the first usable value.
    """

    decay: float = 0.8
    reference: float = 0.94
    min_sessions: int = 20

    def __post_init__(self) -> None:
        check_decay(self.decay, self.reference)

    @property
    def names(self) -> tuple[str, ...]:
        return (f"volatility_ratio_{self.decay:g}_{self.reference:g}",)

    @property
    def reach(self) -> int:
        """Its own entry alone, beside sums."""
        return 0

    def own(self, sessions: OwnSessions) -> np.ndarray:
        return log_ratio(variance(sessions, self.decay), variance(sessions, self.reference), FLOOR**2)[:, :, None]


@dataclass(frozen=True)
class DownsideRatio(Feature):
    """The log ratio of the EWMA volatility of losses, as if gains mirrored them, to that of all returns; bounded.

    Half the log of the EWMA of 2 r^2 1{r < 0} over that of r^2, within +-log(10).

    Attributes:
        decay: of the numerator.
        reference: decay of the denominator.
        min_sessions: returns before the first usable value.

    References:
        Barndorff-Nielsen, Kinnebrock and Shephard (2010), Measuring downside risk: realised semivariance.
    """

    decay: float = 0.94
    reference: float = 0.94
    min_sessions: int = 20

    def __post_init__(self) -> None:
        check_decay(self.decay, self.reference)

    @property
    def names(self) -> tuple[str, ...]:
        return (f"downside_ratio_{self.decay:g}_{self.reference:g}",)

    @property
    def reach(self) -> int:
        """Its own entry alone, beside sums."""
        return 0

    def own(self, sessions: OwnSessions) -> np.ndarray:
        losses = 2 * np.minimum(sessions.returns, 0)[:, :, None] ** 2
        return log_ratio(sessions.ewma(losses, self.decay), variance(sessions, self.reference)[:, :, None], FLOOR**2)


@dataclass(frozen=True)
class TailHistory(Feature):
    """How heavy an asset's tails have been: exponentially weighted means about its returns in units of their forecast.

    With z = r_t / sigma_{t-1}, within +-8, the means of min(z^2, 16)^2 / 10, of 10 1{z < -q}, of 10 max(-z - q, 0) and
    of 10 1{z > q} with q = 1.65, each less a half: near 0 for moderate tails.

    Attributes:
        decay: of the means.
        scale_decay: of the volatility sigma.
        min_sessions: returns before the first usable value.
    """

    decay: float = 0.985
    scale_decay: float = 0.94
    min_sessions: int = 20

    def __post_init__(self) -> None:
        check_decay(self.decay, self.scale_decay)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"{name}_{self.decay:g}" for name in ("fourth_power", "losses", "excess_losses", "gains"))

    @property
    def reach(self) -> int:
        """The volatility of the session before."""
        return 1

    def own(self, sessions: OwnSessions) -> np.ndarray:
        sigma = np.sqrt(np.maximum(variance(sessions, self.scale_decay), FLOOR**2))
        z = np.clip(sessions.returns / np.concatenate([sigma[:, :1], sigma[:, :-1]], axis=1), -8, 8)
        parts = [
            np.minimum(z**2, 16) ** 2 / 10,
            10.0 * (z < -_TAIL),
            10 * np.maximum(-z - _TAIL, 0),
            10.0 * (z > _TAIL),
        ]
        series = np.where(np.isnan(z)[:, :, None], np.nan, np.stack(parts, axis=-1))
        return sessions.ewma(series, self.decay, self.reach) - 0.5


@dataclass(frozen=True)
class VolatilityLevel(Feature):
    """The log of an EWMA volatility over 1 %, bounded to [-5, 3].

    Attributes:
        decay: of the volatility.
        min_sessions: returns before the first usable value.
    """

    decay: float = 0.94
    min_sessions: int = 20

    def __post_init__(self) -> None:
        check_decay(self.decay)

    @property
    def names(self) -> tuple[str, ...]:
        return (f"volatility_level_{self.decay:g}",)

    @property
    def reach(self) -> int:
        """Its own entry alone, beside sums."""
        return 0

    def own(self, sessions: OwnSessions) -> np.ndarray:
        sigma = np.sqrt(np.maximum(variance(sessions, self.decay), FLOOR**2))
        return np.clip(np.log(sigma / 0.01), -5, 3)[:, :, None]


@dataclass(frozen=True)
class RangeVariance(Feature):
    """The variance of a session from its open, high, low and close; what happens overnight is not in it.

    Masked where the source lacks a price or the prices contradict each other (a high below the close).

    Attributes:
        estimator: `parkinson`, `garman_klass` or `rogers_satchell`; see the functions of those names.
    """

    estimator: str = "garman_klass"

    def __post_init__(self) -> None:
        if self.estimator not in ESTIMATORS:
            raise ArgumentError(f"estimator {self.estimator!r} is none of {', '.join(ESTIMATORS)}.")

    @property
    def names(self) -> tuple[str, ...]:
        return (self.estimator,)

    @property
    def reach(self) -> int:
        """Its own entry alone, beside sums."""
        return 0

    def own(self, sessions: OwnSessions) -> np.ndarray:
        return ESTIMATORS[self.estimator](*_prices(sessions))[:, :, None]


@dataclass(frozen=True)
class YangZhang(Feature):
    """The variance of a session, night and day, over the last sessions; it does not depend on the drift.

    With o the log of open over the close before, c the log of close over open, and RS of Rogers and Satchell, over n
    sessions: var(o) + k var(c) + (1 - k) mean(RS), k = .34 / (1.34 + (n + 1) / (n - 1)).

    Attributes:
        window: sessions n.

    References:
        Yang and Zhang (2000), Drift-independent volatility estimation, equations 7 and 14.
    """

    window: int = 21

    def __post_init__(self) -> None:
        if self.window < 2:
            raise ArgumentError(f"YangZhang needs a window of at least 2 sessions, not {self.window}.")

    @property
    def names(self) -> tuple[str, ...]:
        return (f"yang_zhang_{self.window}",)

    @property
    def lookback(self) -> int:
        """Own returns before the first usable value."""
        return self.window - 1

    @property
    def reach(self) -> int:
        """The window's other sessions."""
        return self.window - 1

    def own(self, sessions: OwnSessions) -> np.ndarray:
        n = self.window
        open_, high, low, close = _prices(sessions)
        night, day = np.log(open_ / sessions.before("close")), np.log(close / open_)
        series = np.stack([night, day, rogers_satchell(open_, high, low, close)], axis=-1)
        spread = rolling_moment(series[:, :, :2], n, "std", 1.0) ** 2
        k = 0.34 / (1.34 + (n + 1) / (n - 1))
        return spread[:, :, :1] + k * spread[:, :, 1:] + (1 - k) * rolling_moment(series[:, :, 2:], n, "mean", 1.0)


@dataclass(frozen=True)
class RangeRatio(Feature):
    """The log ratio of the EWMA of a range's volatility to that of returns, bounded by log(10) on either side.

    Attributes:
        estimator: as of `RangeVariance`; or `realised`, the panel's field `realised_variance`.
        decay: of the range's.
        reference: decay of the returns'.
        min_sessions: returns before the first usable value.
    """

    estimator: str = "garman_klass"
    decay: float = 0.8
    reference: float = 0.94
    min_sessions: int = 20

    def __post_init__(self) -> None:
        check_decay(self.decay, self.reference)
        if self.estimator != "realised":
            RangeVariance(self.estimator)

    @property
    def names(self) -> tuple[str, ...]:
        return (f"{self.estimator}_ratio_{self.decay:g}_{self.reference:g}",)

    @property
    def reach(self) -> int:
        """Its own entry alone, beside sums."""
        return 0

    def own(self, sessions: OwnSessions) -> np.ndarray:
        if self.estimator == "realised":
            range_ = sessions.field("realised_variance")[:, :, None]
        else:
            range_ = RangeVariance(self.estimator).own(sessions)
        return log_ratio(sessions.ewma(range_, self.decay), variance(sessions, self.reference)[:, :, None], FLOOR**2)


def parkinson(open_: np.ndarray, high: np.ndarray, low: np.ndarray, close: np.ndarray) -> np.ndarray:
    """Variance from the range: log(high / low)^2 / (4 log 2).

    References:
        Parkinson (1980), The extreme value method for estimating the variance of the rate of return, equation 12.
    """
    return np.log(high / low) ** 2 / (4 * np.log(2))


def garman_klass(open_: np.ndarray, high: np.ndarray, low: np.ndarray, close: np.ndarray) -> np.ndarray:
    """Variance log(high / low)^2 / 2 - (2 log 2 - 1) log(close / open)^2.

    References:
        Garman and Klass (1980), On the estimation of security price volatilities from historical data, equation 21.
    """
    return 0.5 * np.log(high / low) ** 2 - (2 * np.log(2) - 1) * np.log(close / open_) ** 2


def rogers_satchell(open_: np.ndarray, high: np.ndarray, low: np.ndarray, close: np.ndarray) -> np.ndarray:
    """Variance log(high / close) log(high / open) + log(low / close) log(low / open), whatever the drift.

    References:
        Rogers and Satchell (1991), Estimating variance from high, low and closing prices, equation 3.
    """
    return np.log(high / close) * np.log(high / open_) + np.log(low / close) * np.log(low / open_)


ESTIMATORS = {"parkinson": parkinson, "garman_klass": garman_klass, "rogers_satchell": rogers_satchell}


def log_ratio(variance: np.ndarray, reference: np.ndarray, floor: float) -> np.ndarray:
    """Log ratio of two volatilities, bounded by log(10) on either side."""
    lift = 0.01 * reference + floor
    return 0.5 * np.clip(np.log((variance + lift) / (reference + lift)), -2 * np.log(10), 2 * np.log(10))


def _prices(sessions: OwnSessions) -> list[np.ndarray]:
    """Open, high, low and close, NaN where one lacks or they contradict each other."""
    open_, high, low, close = (sessions.field(name) for name in ("open", "high", "low", "close"))
    slack = 1e-9 * close  # adjusted prices are rounded
    with np.errstate(invalid="ignore"):
        right = (high >= np.maximum(open_, close) - slack) & (low <= np.minimum(open_, close) + slack)
    return [np.where(right, price, np.nan) for price in (open_, high, low, close)]
