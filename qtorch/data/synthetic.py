"""A synthetic market whose every return comes with its true conditional distribution."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float64, Int64, UInt8
from scipy import special
from scipy.signal import lfilter
from torch import Tensor

from qtorch.data.calendars import sessions
from qtorch.data.states import State
from qtorch.distributions import Affine, JumpStudentT, take
from qtorch.distributions.checks import require

_DAY = 86_400_000_000  # microseconds
_FEWEST = 10  # sessions of an exchange, so that listings and delistings have room
_WORST = -0.99  # a simple return cannot pass -1, but Student's t can; the law's mass below is what the clip costs
_OVERNIGHT = 0.3  # share of a session's variance before its open
# News comes mostly while New York trades: the share of a weekday's variance that has passed by these hours, UTC. It
# makes Tokyo go with New York's day before far more than with New York's same day, as the two do.
_HOURS, _PASSED = (0, 13, 21, 24), (0.0, 0.35, 0.9, 1.0)


@dataclass(frozen=True)
class StochasticVolatility:
    """How an asset's volatility moves: its logarithm is an AR(1) over the asset's own sessions.

    Attributes:
        level: median volatility of a weekday's return, over assets and time.
        spread: standard deviation over assets of the logarithm of their medians.
        persistence: autocorrelation of log volatility from one session to the next.
        dispersion: standard deviation over time of log volatility.
        leverage: correlation of a session's shock with its news of the next session's volatility.

    References:
        Taylor (1986), Modelling Financial Time Series; Harvey and Shephard (1996), Estimation of an asymmetric
        stochastic volatility model for asset returns, JBES 14, for the leverage.
    """

    level: float = 0.012
    spread: float = 0.3
    persistence: float = 0.97
    dispersion: float = 0.4
    leverage: float = -0.5

    def __post_init__(self) -> None:
        """Checks the settings."""
        require(0 < self.level < 0.2, "level", self.level, "give a daily volatility in (0, 0.2), such as 0.012")
        require(0 <= self.spread <= 1, "spread", self.spread, "give a number in [0, 1], such as 0.3")
        require(0 <= self.persistence < 1, "persistence", self.persistence, "give a number in [0, 1), such as 0.97")
        require(0 <= self.dispersion <= 1, "dispersion", self.dispersion, "give a number in [0, 1], such as 0.4")
        require(-1 <= self.leverage <= 1, "leverage", self.leverage, "give a correlation in [-1, 1], such as -0.5")


@dataclass(frozen=True)
class Absences:
    """Where prices are not there, independently of what the prices are.

    Attributes:
        late: share of assets listed after the start, in the first half of the span.
        early: share of assets delisted before the end, in the second half.
        halts: probability that a halt begins at a session.
        halt_length: mean length of a halt in sessions (geometric).
        faults: probability that a single session's price is lost.
    """

    late: float = 0.2
    early: float = 0.1
    halts: float = 0.001
    halt_length: float = 5.0
    faults: float = 0.002

    def __post_init__(self) -> None:
        """Checks the settings."""
        for name in ("late", "early", "halts", "faults"):
            share = getattr(self, name)
            require(0 <= share <= 1, name, share, "give a share in [0, 1], such as 0.1")
        require(1 <= self.halt_length < math.inf, "halt_length", self.halt_length, "give 1 session or more")


@dataclass(frozen=True)
class SyntheticMarket:
    """The settings of a market of several exchanges with their real calendars.

    The simple return of asset i over its own session s, from close c_(s-1) to close c_s, is

        R = m d + v sqrt(d) X,   X of the law `shock`, v known at c_(s-1),

    with d the time between the closes on a clock on which a weekday takes 1 and a weekend day `weekend`, so that
    variance grows over weekends and holidays. Four Gaussian shocks drive a session: its return, the news of its
    volatility, the chi-square divisor of Student's t, and whether there is a jump. Each is the sum of a market's, a
    sector's and the asset's own part; the first two are increments of Brownian motions on the UTC clock. So assets
    fall, storm and jump together, and Tokyo's return of today goes with New York's of yesterday, most of whose hours
    it shares, more than with that of today; yet given what is known at c_(s-1), X has its law exactly.

    Attributes:
        exchanges: number of assets on each exchange, by code (MIC).
        start: first day.
        end: last day.
        sectors: number of sectors, spread evenly over the exchanges.
        market: share of the shocks' variance that all assets have in common.
        sector: share that the assets of a sector have in common besides.
        drift: mean return of a weekday, m.
        weekend: variance of a weekend day in units of a weekday's.
        shock: law of the standardised shocks.
        volatility: how volatilities move.
        absences: listings, delistings, halts and faults. The first asset of each exchange is listed throughout.
        seed: the same settings and seed give the same bytes.

    Raises:
        ValueError: a setting is outside its domain.

    References:
        French and Roll (1986), Stock return variances, JFE 17, for the variance of closed days.

    Example:
        >>> market = SyntheticMarket({"XNYS": 3, "XTKS": 2}, start="2018-01-01", end="2018-12-31")
        >>> simulation = market.simulate()
        >>> list(simulation.frame.columns)
        ['date', 'asset', 'exchange', 'open', 'high', 'low', 'close', 'volume']
        >>> law, mask = simulation.truth()
        >>> value_at_risk = -law.icdf(torch.tensor(0.01))
        >>> value_at_risk.shape == simulation.returns.shape == (len(simulation.dates), 5)
        True
        >>> round(simulation.pit()[mask].mean().item(), 1)
        0.5
    """

    exchanges: Mapping[str, int] = field(default_factory=lambda: {"XNYS": 6, "XLON": 4, "XTKS": 4})
    start: str = "2010-01-01"
    end: str = "2019-12-31"
    sectors: int = 3
    market: float = 0.35
    sector: float = 0.2
    drift: float = 0.0003
    weekend: float = 0.1
    shock: JumpStudentT = field(default_factory=JumpStudentT)
    volatility: StochasticVolatility = field(default_factory=StochasticVolatility)
    absences: Absences = field(default_factory=Absences)
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the settings."""
        require(len(self.exchanges) > 0, "exchanges", self.exchanges, 'name at least one, such as {"XNYS": 6}')
        for code, count in self.exchanges.items():
            require(count >= 1, f"exchanges[{code!r}]", count, "give each exchange at least 1 asset, or leave it out")
        span = f"{self.start} to {self.end}"
        require(pd.Timestamp(self.start) < pd.Timestamp(self.end), "span", span, "let start come before end")
        require(self.sectors >= 1, "sectors", self.sectors, "give at least 1")
        require(self.market >= 0, "market", self.market, "give a share of variance in [0, 1], such as 0.35")
        require(self.sector >= 0, "sector", self.sector, "give a share of variance in [0, 1], such as 0.2")
        common = self.market + self.sector
        require(common <= 1, "market + sector", common, "lower one, so that they sum to at most 1")
        require(abs(self.drift) < 0.1, "drift", self.drift, "give a daily mean return, such as 0.0003")
        require(0 < self.weekend <= 1, "weekend", self.weekend, "give a number in (0, 1], such as 0.1")
        require(self.seed >= 0, "seed", self.seed, "give an integer of at least 0")

    def simulate(self) -> "Simulation":
        """Draws the market.

        Raises:
            DataError: an exchange code is unknown, or its calendar does not reach from `start` to `end`.
            ValueError: an exchange has fewer than 10 sessions in the span.
        """
        rng = np.random.default_rng(self.seed)
        start, end = pd.Timestamp(self.start), pd.Timestamp(self.end)
        days, closes = {}, {}
        for code in sorted(self.exchanges):
            calendar = sessions(code, start, end)
            days[code] = calendar.days[calendar.days <= end]
            closes[code] = calendar.closes.as_unit("us").asi8[: len(days[code])]
            span = f"{self.start} to {self.end}"
            require(len(days[code]) >= _FEWEST, "span", span, f"{code} needs at least {_FEWEST} sessions in it")
        dates = pd.DatetimeIndex(np.unique(np.concatenate(list(days.values())))).rename("date")
        exchange = np.repeat(list(days), [self.exchanges[code] for code in days])
        number = np.concatenate([np.arange(self.exchanges[code]) for code in days])
        assets = [f"{code}-{i:04d}" for code, i in zip(exchange, number, strict=True)]
        sector = np.arange(len(assets)) % self.sectors

        T, N = len(dates), len(assets)
        grid: dict[str, np.ndarray] = {}
        first, last = np.zeros(N, dtype=int), np.zeros(N, dtype=int)  # rows of the first and the last price
        delisted = np.zeros(N, dtype=bool)
        shocks = self._shocks(rng, closes, {code: sector[exchange == code] for code in days})
        for code, (elapsed, gaussian) in shocks.items():
            rows, columns = dates.get_indexer(days[code]), np.flatnonzero(exchange == code)
            begin, finish, observed = self._observed(rng, len(rows), len(columns))
            first[columns], last[columns], delisted[columns] = rows[begin], rows[finish], finish < len(rows) - 1
            block = self._prices(rng, elapsed, gaussian)
            block |= {"session": np.ones_like(observed), "observed": observed}
            block["mask"] = np.vstack([np.zeros_like(observed[:1]), observed[1:] & observed[:-1]])
            for name, values in block.items():
                absent = False if values.dtype == bool else np.nan
                cells = grid.setdefault(name, np.full((T, N), absent, dtype=values.dtype))
                cells[rows[:, None], columns] = values

        row = np.arange(T)[:, None]
        state = np.where(grid["session"], State.MISSING, State.CLOSED)
        state = np.where((row >= first) & (row <= last), state, State.UNLISTED)
        state = np.where(grid["observed"], State.OBSERVED, state).astype(np.uint8)
        n, t = np.nonzero(grid["observed"].T)
        frame = pd.DataFrame({"date": dates[t], "asset": pd.Index(assets)[n], "exchange": pd.Index(exchange)[n]})
        for name in ("open", "high", "low", "close", "volume"):
            frame[name] = grid[name][t, n]
        listings = pd.DataFrame(
            {"exchange": exchange, "sector": sector, "first": dates[first], "last": dates[last], "delisted": delisted},
            index=pd.Index(assets, name="asset"),
        )
        names = ("returns", "mean", "volatility", "jump", "mask")
        truth = {name: torch.from_numpy(grid[name]) for name in names}
        return Simulation(frame, listings, dates, self.shock, torch.from_numpy(state), **truth)

    def _shocks(
        self, rng: np.random.Generator, closes: Mapping[str, np.ndarray], sectors: Mapping[str, np.ndarray]
    ) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """For each exchange, the time its sessions take on the market's clock [S] and four standard normals [4, S, N].

        The common parts are Brownian motions, drawn once at all closes of all exchanges on one line of UTC instants.
        """
        opened = {code: np.concatenate([close[:1] - _DAY, close[:-1]]) for code, close in closes.items()}
        line = np.unique(np.concatenate([*opened.values(), *closes.values()]))
        clock = _clock(line, self.weekend)
        step = np.sqrt(np.diff(clock, prepend=clock[0]))
        path = (step * rng.standard_normal((4, 1 + self.sectors, len(line)))).cumsum(axis=-1)
        out = {}
        for code, sector in sectors.items():
            i, j = np.searchsorted(line, opened[code]), np.searchsorted(line, closes[code])
            elapsed = clock[j] - clock[i]
            common = np.moveaxis((path[..., j] - path[..., i]) / np.sqrt(elapsed), 1, 2)  # [4, S, 1 + sectors]
            gaussian = rng.standard_normal((4, len(elapsed), len(sector)))
            gaussian *= math.sqrt(max(1 - self.market - self.sector, 0))
            gaussian += math.sqrt(self.market) * common[..., :1] + math.sqrt(self.sector) * common[..., 1 + sector]
            out[code] = elapsed, gaussian
        return out

    def _observed(self, rng: np.random.Generator, S: int, N: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The sessions of each asset's first and last price [N], and at which ones there is a price [S, N]."""
        absences, session = self.absences, np.arange(S)[:, None]
        kept = np.arange(N) == 0  # so that the panel's dates are all sessions of the exchange
        first = np.where(~kept & (rng.random(N) < absences.late), rng.integers(1, S // 2, N), 0)
        last = np.where(~kept & (rng.random(N) < absences.early), rng.integers(S // 2, S - 1, N), S - 1)
        begins = rng.random((S, N)) < absences.halts
        until = np.where(begins, session + rng.geometric(1 / absences.halt_length, (S, N)), 0)
        lost = (np.maximum.accumulate(until, axis=0) > session) | (rng.random((S, N)) < absences.faults)
        listed = (session >= first) & (session <= last)
        return first, last, listed & (~lost | (session == first) | (session == last))

    def _prices(self, rng: np.random.Generator, elapsed: np.ndarray, gaussian: np.ndarray) -> dict[str, np.ndarray]:
        """Prices, returns and their truth [S, N] from the four shocks [4, S, N]."""
        news, turn, storm, surprise = gaussian
        law, vol, shape = self.shock, self.volatility, news.shape
        median = vol.level * np.exp(vol.spread * rng.standard_normal(shape[1]))
        turn = vol.leverage * news + math.sqrt(1 - vol.leverage**2) * turn
        step = vol.dispersion * math.sqrt(1 - vol.persistence**2) * turn
        # A session's news moves the volatility of the next one; the first is drawn from the stationary law.
        step = np.vstack([vol.dispersion * rng.standard_normal(shape[1]), step[:-1]])
        sigma = median * np.exp(lfilter([1.0], [1.0, -vol.persistence], step, axis=0))

        volatility = sigma * np.sqrt(elapsed)[:, None]
        mean = np.broadcast_to(self.drift * elapsed[:, None], shape)
        jump = surprise < special.ndtri(law.weights[1].item())
        df = law.components.df[0].item()
        chi_square = 2 * special.gammaincinv(df / 2, special.ndtr(storm))
        spread = law.components.scale.numpy()[jump.astype(int)] * np.sqrt(df / chi_square)
        x = law.components.loc.numpy()[jump.astype(int)] + spread * news
        returns = np.maximum(mean + volatility * x, _WORST)
        close = 50 * np.exp(0.5 * rng.standard_normal(shape[1])) * (1 + returns).cumprod(axis=0)

        # Given its variance, a session is a Brownian motion of the log price: the open is drawn from the bridge between
        # the closes, and the high and the low each from the exact law of the bridge's maximum after the open.
        s = volatility * spread
        move = np.log1p(returns)
        share = math.sqrt(_OVERNIGHT * (1 - _OVERNIGHT))
        rest = (1 - _OVERNIGHT) * move - share * s * rng.standard_normal(shape)  # log close - log open
        reach = -2 * (1 - _OVERNIGHT) * s**2 * np.log1p(-rng.random((2, *shape)))
        above, below = (np.sqrt(rest**2 + reach) - np.abs(rest)) / 2
        open_ = close * np.exp(-rest)
        volume = np.exp(13 + rng.standard_normal(shape[1]) + 0.4 * rng.standard_normal(shape)) * (s / median) ** 0.7
        return {
            "open": open_,
            "high": np.maximum(open_, close) * np.exp(above),
            "low": np.minimum(open_, close) * np.exp(-below),
            "close": close,
            "volume": np.ceil(volume),
            "returns": returns,
            "mean": mean,
            "volatility": volatility,
            "jump": jump,
        }


@dataclass(frozen=True, eq=False)
class Simulation:
    """A drawn market: the prices that a user would have, and the truth behind them.

    The `T` rows and `N` columns of the truth are those of ``Panel.from_frame(simulation.frame)``.

    Attributes:
        frame: the prices, for `Panel.from_frame`: date, asset, exchange, open, high, low, close, volume.
        listings: of each asset: exchange, sector, dates of its first and last price, whether the last is before the
            exchange's last session.
        dates: session labels, the union of the exchanges' calendars.
        shock: law of the standardised shocks.
        state: a `State` per cell.
        returns: simple return of the asset's session of that date from its session before, drawn also where no price
            is in the frame; NaN where the exchange is closed.
        mean: true conditional mean of that return.
        volatility: true conditional standard deviation of that return, known at the session before.
        jump: whether that return is a jump.
        mask: where that return is one from price to price of the frame.
    """

    frame: pd.DataFrame
    listings: pd.DataFrame
    dates: pd.DatetimeIndex
    shock: JumpStudentT
    state: UInt8[Tensor, "T N"]
    returns: Float64[Tensor, "T N"]
    mean: Float64[Tensor, "T N"]
    volatility: Float64[Tensor, "T N"]
    jump: Bool[Tensor, "T N"]
    mask: Bool[Tensor, "T N"]

    @property
    def assets(self) -> tuple[str, ...]:
        """Names, in the order of the columns."""
        return tuple(self.listings.index)

    def truth(self, *, ahead: bool = False) -> tuple[Affine, Bool[Tensor, "T N"]]:
        """The law of one-session simple returns given all that is known anywhere at the asset's close before.

        That includes the latent volatility, which no model sees. It does not include what other exchanges' later closes
        say before the asset's next one: a forecast made at the end of Tokyo's day that knows New York's close may be
        sharper than this law, though never better calibrated.

        Args:
            ahead: False gives at each row the law of the return that ends there, beside `Panel.returns`; True that of
                the next return of the asset, beside a forecast made there.

        Returns:
            The law, batch shape `[T, N]`, and where it speaks of a return from price to price of the frame. Elsewhere
            it is a placeholder.
        """
        mean, volatility, mask = self.mean, self.volatility, self.mask
        if ahead:
            following, exists = self._following()
            mean, volatility = mean.gather(0, following), volatility.gather(0, following)
            mask = mask.gather(0, following) & exists & (self.state == State.OBSERVED)
        return Affine(self.shock, torch.where(mask, mean, 0.0), torch.where(mask, volatility, 1.0)), mask

    def pit(self) -> Float64[Tensor, "T N"]:
        """Probability integral transforms of the realised returns, uniform and, for an asset, independent; else NaN."""
        law, mask = self.truth()
        out = torch.full_like(self.returns, torch.nan)
        out[mask] = take(law, mask).cdf(self.returns[mask])
        return out

    def _following(self) -> tuple[Int64[Tensor, "T N"], Bool[Tensor, "T N"]]:
        """The row of each asset's next session after a row, and whether there is one."""
        T, row = len(self.dates), torch.arange(len(self.dates))[:, None]
        session = torch.where(self.volatility.isfinite(), row, T)
        upcoming = session.flip(0).cummin(0).values.flip(0)
        following = torch.cat([upcoming[1:], torch.full_like(upcoming[:1], T)])
        return following.clamp(max=T - 1), following < T


def _clock(instants: np.ndarray, weekend: float) -> np.ndarray:
    """The market's time since Monday, 29 December 1969, of UTC instants in microseconds: weekdays take 1."""
    week, day = np.divmod(instants / _DAY + 3, 7)
    weekdays = np.floor(day) + np.interp(24 * (day % 1), _HOURS, _PASSED)
    return week * (5 + 2 * weekend) + np.where(day < 5, weekdays, 5 + weekend * (day - 5))
