"""Frames that quantstats, pyfolio and alphalens make tear sheets of; none of them is imported here.

| package | takes |
|---|---|
| quantstats | `daily_returns(account)`, and of a benchmark |
| pyfolio-reloaded | `pyfolio_frames(account)` |
| alphalens-reloaded | `factor(signals)`, `entry_prices(signals, panel)` |

These packages take a year for 252 rows. An account over several exchanges has a row on each date on which one of them
trades, some 308 a year in New York, Tokyo and Tel Aviv together, and they would take ten months for twelve. So give
`exchange`, for rows on one exchange's sessions alone; or tell the package the rows of a year, as `periods` of
quantstats' functions. bt's own statistics have no such argument.
"""

from typing import Literal

import numpy as np
import pandas as pd

from qtorch.backtest.account import Account
from qtorch.backtest.signals import Signals
from qtorch.backtest.track import Track
from qtorch.data import DataError, Panel, sessions
from qtorch.data.calendars import AnyCalendar
from qtorch.data.standing import known_gone


def daily_returns(record: Account | Track, exchange: AnyCalendar | None = None) -> pd.Series:
    """Net returns by date, in decimals; of a benchmark, those of an account that holds it.

    Args:
        record: of a ledger or a walk.
        exchange: on whose sessions they are, each compounded from the session before; what comes after the last is left
            out. By default on all dates of the record.

    Raises:
        DataError: the exchange is not known, or has no session within the record's dates.

    Example:
        >>> import torch
        >>> from qtorch.backtest import Ledger
        >>> from qtorch.data import load_sample
        >>> panel = Panel.from_frame(load_sample().query("asset in ['AAPL', 'KO'] and date > '2022-06'"))
        >>> signals = Signals.from_panel(panel, torch.full((1, 2), 0.5), ["2022-07-01"])
        >>> account = Ledger().run(signals.orders(panel))
        >>> daily_returns(account).loc["2022-07-06":"2022-07-07"].round(5).to_list()
        [0.00583, 0.00812]
    """
    net = record.net.cpu().numpy() if isinstance(record, Track) else record.returns
    returns = pd.Series(net, record.dates, name="returns")
    if exchange is None:
        return returns
    wealth = (1 + returns).cumprod().reindex(_sessions(record.dates, exchange), method="ffill")
    return wealth / wealth.shift(fill_value=1.0) - 1


def _sessions(dates: pd.DatetimeIndex, exchange: AnyCalendar) -> pd.DatetimeIndex:
    """An exchange's sessions from the first date to the last."""
    days = sessions(exchange, dates[0], dates[-1]).days
    days = days[(days >= dates[0]) & (days <= dates[-1])]
    if not len(days):
        raise DataError(f"{exchange} has no session from {dates[0]:%Y-%m-%d} to {dates[-1]:%Y-%m-%d}. Give another.")
    return days


def position_values(account: Account) -> pd.DataFrame:
    """The value of each position at each date's close, a column an asset, and `cash`; a row's sum is the equity.

    Args:
        account: of a ledger.

    Raises:
        DataError: an asset has the name ``"cash"``.
    """
    if "cash" in account.assets:
        raise DataError("an asset is named 'cash', which is the column of cash. Give it another name.")
    values = account.weights * account.equity[:, None]
    return pd.DataFrame(values, account.dates, list(account.assets)).assign(cash=account.cash)


def transactions(account: Account) -> pd.DataFrame:
    """The trades, by date: `symbol`, `amount` in units bought (positive) or sold, `price`.

    Args:
        account: of a ledger; costs are in its returns, and not in the prices.
    """
    trades = account.trades_frame().set_index("date").rename_axis(None)
    return trades.rename(columns={"asset": "symbol", "units": "amount"})[["symbol", "amount", "price"]]


def pyfolio_frames(
    account: Account, exchange: AnyCalendar | None = None
) -> tuple[pd.Series, pd.DataFrame, pd.DataFrame]:
    """Returns, positions and transactions, in the order in which pyfolio takes them; it wants dates in UTC.

    Args:
        account: of a ledger.
        exchange: on whose sessions they are, as of `daily_returns`; what is traded on other dates is dated the session
            after. By default on all dates of the account.

    Raises:
        DataError: an asset has the name ``"cash"``; the record of a walk is given, which has no trades in units; or see
            `daily_returns`.

    Example:
        >>> pyfolio.create_simple_tear_sheet(*pyfolio_frames(account))  # doctest: +SKIP
    """
    if isinstance(account, Track):
        raise DataError(
            "a walk's record has weights and no units or trades. Give the account of Ledger().run(orders), or "
            "daily_returns(track) to what takes returns alone."
        )
    returns, positions, trades = daily_returns(account, exchange), position_values(account), transactions(account)
    if exchange is not None:
        days = returns.index
        positions = positions.reindex(days, method="ffill")
        trades = trades[trades.index <= days[-1]]
        trades.index = days[days.searchsorted(trades.index)]
    return returns.tz_localize("UTC"), positions.tz_localize("UTC"), trades.tz_localize("UTC")


def factor(signals: Signals) -> pd.Series:
    """The values, indexed by (date, asset).

    Args:
        signals: weights or forecasts.
    """
    return signals.to_frame().set_index(["date", "asset"])["value"].rename("factor")


def entry_prices(signals: Signals, panel: Panel) -> pd.DataFrame:
    """On each date, the price at which what is known on it first trades, up to the last date on which something does.

    alphalens takes a date's forward return from the date's price: from closes, of which a signal was made, it would be
    one that nobody can have. From these it is that from the signal's first fill, at the open or close that `fill` says,
    to the fill of a signal some rows later. What is known to be delisted stays at its last close; else it is NaN where
    nothing trades any more within the panel, and alphalens then takes the date's before.

    Args:
        signals: that say when their values are known; what has none on a date is taken to be known at the row's
            `as_of`, or at its own close where the signals fill at it, and no sooner than what came before. A day on
            which nothing can fill has the price of the day before.
        panel: with the prices, and the signals' dates.

    Raises:
        DataError: a value is known only after that of a later date; a date is not the panel's; or the signals can't be
            put on it, see `Signals.orders`.
    """
    panel = panel.select(signals.assets)
    T, N = panel.state.shape
    rows = np.array([panel.row(date) for date in signals.dates], dtype=np.int64)
    sessions = panel.is_session.cpu().numpy()
    trading = sessions if signals.fill == "this_close" else np.repeat(sessions.any(1, keepdims=True), N, axis=1)
    number = np.where(trading, np.arange(1.0, T + 1)[:, None], np.nan)
    known_at: Literal["close"] | None = "close" if signals.fill == "this_close" else None
    calendars = [each for each in signals.exchanges if not isinstance(each, str)]
    wide = pd.DataFrame(number, panel.dates, panel.assets)
    usual = Signals.from_panel(panel, wide, known_at=known_at, calendars=calendars, fill=signals.fill)
    stamps = usual.known_at.copy()
    given = ~np.isnan(signals.values)
    stamps[rows] = np.where(given, signals.known_at, stamps[rows])
    stamps = np.maximum.accumulate(stamps, axis=0)
    later = given & (stamps[rows] != signals.known_at)
    if later.any():
        raise DataError(
            f"known only after the value of a later date: {signals.named(later)}. Leave out what is out of date."
        )
    numbered = Signals(number, stamps, panel.dates, panel.assets, signals.exchanges, signals.fill)
    orders = numbered.orders(panel)
    # A row fills the last date known before it; an earlier date's fill is the first row whose number is not below its.
    reached = np.maximum.accumulate(np.nan_to_num(orders.targets), axis=0)
    prices = np.full((T, N), np.nan)
    for n in range(N):
        row = reached[:, n].searchsorted(np.arange(1.0, T + 1))
        inside = row < T
        prices[inside, n] = orders.prices[row[inside], n]
    for t in range(1, T):
        np.copyto(prices[t], prices[t - 1], where=~trading[t])
    gone = known_gone(panel)[-1].cpu().numpy()
    never = np.isnan(prices) & gone
    prices[never] = orders.closes[never]
    known = ~np.isnan(prices[:, ~gone]).all(1)
    stop = T - int(known[::-1].argmax()) if known.any() else T
    return pd.DataFrame(prices[:stop], panel.dates[:stop], list(panel.assets))
