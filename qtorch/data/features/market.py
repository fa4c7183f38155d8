"""Features across the assets that are open on a date."""

from dataclasses import dataclass, field

import numpy as np

from qtorch.data.calendars import NO_SESSION
from qtorch.data.features.feature import CrossSection, Feature, furthest, one_column
from qtorch.data.features.series import FLOOR, Return, Scaled, Volatility, check_decay
from qtorch.data.features.volatility import log_ratio
from qtorch.data.features.windowed import ewma
from qtorch.data.panel import Panel
from qtorch.errors import ArgumentError

_ROWS = 256  # dates sorted at once
_APART = 60  # minutes between closes that are not one


@dataclass(frozen=True)
class Rank(CrossSection):
    """The rank of a feature among the assets observed on the row, from -1 (lowest) to 1; ties share their mean.

    Attributes:
        of: a feature of own sessions, of one column.
        min_assets: with fewer observed the row is masked.
    """

    of: Feature = field(default_factory=Return)
    min_assets: int = 2

    def __post_init__(self) -> None:
        _check(self.of, "Rank", self.min_assets)

    @property
    def names(self) -> tuple[str, ...]:
        return (f"rank_{self.of.names[0]}",)

    @property
    def bases(self) -> tuple[Feature, ...]:
        """The feature."""
        return (self.of,)

    @property
    def reach(self) -> int | None:
        """That of the bases: a row needs no other."""
        return furthest(self.bases)

    def across(self, base: list[np.ndarray], panel: Panel) -> np.ndarray:
        """The ranks."""
        from scipy.stats import rankdata

        out = np.empty_like(base[0])
        for t in range(0, len(out), _ROWS):
            x = base[0][t : t + _ROWS]
            count = (~np.isnan(x)).sum(1, keepdims=True)
            rank = rankdata(x, axis=1, nan_policy="omit")
            scaled = 2 * (rank - 1) / np.maximum(count - 1, 1) - 1
            out[t : t + _ROWS] = np.where(count >= self.min_assets, scaled, np.nan)
        return out[:, :, None]


@dataclass(frozen=True)
class ZScore(CrossSection):
    """A feature less its mean and over its standard deviation among the assets observed on the row, within +-bound.

    Attributes:
        of: a feature of own sessions, of one column.
        bound: beyond which values are cut.
        min_assets: with fewer observed the row is masked.
    """

    of: Feature = field(default_factory=Return)
    bound: float = 10.0
    min_assets: int = 3

    def __post_init__(self) -> None:
        _check(self.of, "ZScore", self.min_assets)

    @property
    def names(self) -> tuple[str, ...]:
        return (f"zscore_{self.of.names[0]}",)

    @property
    def bases(self) -> tuple[Feature, ...]:
        """The feature."""
        return (self.of,)

    @property
    def reach(self) -> int | None:
        """That of the bases: a row needs no other."""
        return furthest(self.bases)

    def across(self, base: list[np.ndarray], panel: Panel) -> np.ndarray:
        """The scores."""
        (x,) = base
        there = ~np.isnan(x)
        count = there.sum(1, keepdims=True)
        mean = _sum(np.where(there, x, 0))[:, None] / np.maximum(count, 1)
        deviation = np.where(there, x - mean, 0)
        spread = np.sqrt(_sum(deviation**2)[:, None] / np.maximum(count - 1, 1))
        usable = there & (count >= self.min_assets) & (spread > 0)
        score = np.divide(deviation, spread, out=np.full(x.shape, np.nan), where=usable)
        return np.clip(score, -self.bound, self.bound)[:, :, None]


@dataclass(frozen=True)
class MarketState(CrossSection):
    """The state of the market on a row, from the assets observed there; the same for all of them.

    With z the returns in units of their volatility sigma: the mean of z, its absolute value, the log of the root mean
    square of the returns over the mean of sigma, log volatility ratios of the mean of z (one per decay), the log of
    its volatility. Rows on which nothing trades keep the state before them.

    Attributes:
        decay: of sigma, and of the volatility of the mean of z.
        decays: of its volatilities whose ratios to that one are columns.
    """

    carries = True

    decay: float = 0.94
    decays: tuple[float, ...] = (0.5, 0.8, 0.985, 0.996)

    def __post_init__(self) -> None:
        check_decay(self.decay, *self.decays)

    @property
    def names(self) -> tuple[str, ...]:
        ratios = (f"market_volatility_ratio_{decay:g}_{self.decay:g}" for decay in self.decays)
        return ("market_mean", "market_abs_mean", "market_dispersion", *ratios, "market_volatility")

    @property
    def bases(self) -> tuple[Feature, ...]:
        """Scaled returns and volatilities, from an asset's first return on."""
        return (Scaled(self.decay, min_sessions=0), Volatility(self.decay, min_sessions=0))

    @property
    def reach(self) -> int | None:
        """That of the bases: a row needs no other."""
        return furthest(self.bases)

    def across(self, base: list[np.ndarray], panel: Panel) -> np.ndarray:
        """The state, `[T, 1, F]`."""
        return self.over_rows(self.by_row(base, panel))

    def by_row(self, base: list[np.ndarray], panel: Panel) -> np.ndarray:
        """The mean of z, the root mean square of returns, the mean of sigma, and whether anything traded `[T, 4]`."""
        mean, size, level, traded = out = np.empty((4, len(base[0])))
        for t in range(0, len(mean), _ROWS):
            rows = slice(t, t + _ROWS)
            z, sigma = (part[rows] for part in base)
            there = ~np.isnan(z)
            count = np.maximum(there.sum(1), 1)
            mean[rows] = _sum(np.where(there, z, 0)) / count
            size[rows] = np.sqrt(_sum(np.where(there, (z * sigma) ** 2, 0)) / count)
            level[rows] = _sum(np.where(there, sigma, 0)) / count
            traded[rows] = there.any(1)
        return out.T

    def over_rows(self, by_row: np.ndarray) -> np.ndarray:
        """The state from what all rows come to."""
        mean, size, level = np.ascontiguousarray(by_row[:, :3].T)
        traded = by_row[:, 3] > 0
        last = np.maximum.accumulate(np.where(traded, np.arange(len(mean)), 0))

        def variance(decay: float) -> np.ndarray:
            out = np.full(len(mean), np.nan)
            out[traded] = ewma(mean[None, traded, None] ** 2, decay)[0, :, 0]
            return out[last]

        reference = variance(self.decay)
        columns = [
            mean,
            np.abs(mean),
            np.clip(np.log((size + FLOOR) / (level + FLOOR)), -3, 3),
            *(log_ratio(variance(decay), reference, 1e-6) for decay in self.decays),
            np.clip(0.5 * np.log(np.maximum(reference, 1e-6)), -3, 1),
        ]
        return np.stack(columns, axis=-1)[:, None, :]


@dataclass(frozen=True)
class LaterCloses(CrossSection):
    """What markets did that closed after the asset's own on the row: New York's day, as Tokyo will find it at its open.

    With z the returns in units of their volatility: the mean of z over all assets of exchanges that closed an hour or
    more after the asset's; the mean over those that closed last of all, and its absolute value. 0 for an asset of the
    last exchange to close, and where none was open.

    Attributes:
        decay: of the volatility.

    References:
        Becker, Finnerty and Gupta (1990), The intertemporal relation between the U.S. and Japanese stock markets,
        Journal of Finance 45.
    """

    decay: float = 0.94

    def __post_init__(self) -> None:
        check_decay(self.decay)

    @property
    def names(self) -> tuple[str, ...]:
        return ("later_mean", "latest_mean", "abs_latest_mean")

    @property
    def bases(self) -> tuple[Feature, ...]:
        """Scaled returns, from an asset's first on."""
        return (Scaled(self.decay, min_sessions=0),)

    @property
    def reach(self) -> int | None:
        """That of the bases: a row needs no other."""
        return furthest(self.bases)

    def across(self, base: list[np.ndarray], panel: Panel) -> np.ndarray:
        """The means, by exchange."""
        z, exchange = base[0], np.array(panel.exchange_index)
        there = ~np.isnan(z)
        close = panel.exchange_close.cpu().numpy().astype(np.int64)
        X = close.shape[1]
        total, count = np.zeros(close.shape), np.zeros(close.shape)
        for x in range(X):
            total[:, x] = _sum(np.where(there[:, exchange == x], z[:, exchange == x], 0))
            count[:, x] = there[:, exchange == x].sum(1)
        close = np.where(count > 0, close, NO_SESSION)  # of exchanges on which nothing traded
        out = np.zeros((*z.shape, 3))
        for x in range(X):
            later = close >= close[:, x : x + 1] + _APART
            latest = later & (close > close.max(1, keepdims=True) - _APART)
            mean, last = (
                np.where(which, total, 0).sum(1) / np.maximum(np.where(which, count, 0).sum(1), 1)
                for which in (later, latest)
            )
            out[:, exchange == x] = np.stack([mean, last, np.abs(last)], axis=-1)[:, None, :]
        return out


def _sum(x: np.ndarray) -> np.ndarray:
    """Sums over the assets of `[T, N]`, one after the other: an asset of zeros more changes no bit of them."""
    return np.add.accumulate(x, axis=1, dtype=np.float64)[:, -1] if x.shape[1] else np.zeros(len(x))


def _check(of: Feature, user: str, min_assets: int) -> None:
    one_column(of, user)
    if isinstance(of, CrossSection):
        raise ArgumentError(f"{user} takes a feature of own sessions, not {type(of).__name__}.")
    if min_assets < 2:
        raise ArgumentError(f"{user} needs min_assets of at least 2, not {min_assets}.")
