"""Frames for tear sheets; the packages that make them are in tests/harness."""

from inspect import unwrap

import numpy as np
import pandas as pd
import pytest

from qtorch.backtest import (
    Account,
    EqualWeight,
    Ledger,
    Orders,
    Signals,
    WalkForward,
    daily_returns,
    entry_prices,
    factor,
    position_values,
    pyfolio_frames,
    transactions,
)
from qtorch.data import DataError, Panel
from qtorch.portfolio import Costs
from tests.conftest import make_prices


@pytest.fixture(scope="module")
def market() -> Panel:
    """Two exchanges, opens, and a delisting."""
    frame = make_prices({"US": "XNYS", "JP": "XTKS", "OLD": "XNYS"}, "2019-04-01", "2019-06-28")
    frame["open"] = frame["close"] * np.random.default_rng(5).uniform(0.98, 1.02, len(frame))
    over = (frame["asset"] == "OLD") & (frame["date"] > "2019-06-07")
    return Panel.from_frame(frame[~over], delisted={"OLD": "2019-06-07"})


def own(market: Panel, asset: str, field: str) -> pd.Series:
    """The prices of an asset's own sessions."""
    frame = market.to_frame()
    return frame[frame["asset"] == asset].set_index("date")[field]


@pytest.mark.parametrize("fill", ["next_open", "next_close", "this_close"])
def test_a_forward_return_begins_at_the_first_fill(market, fill):
    weights = pd.DataFrame(1.0, market.dates[::5], market.assets)
    if fill == "this_close":
        weights = weights.where(market.mask.numpy()[::5])
    known_at = "close" if fill == "this_close" else None
    signals = Signals.from_panel(market, weights, known_at=known_at, fill=fill)
    prices = entry_prices(signals, market)
    for asset in ("US", "JP"):
        sessions = own(market, asset, "open" if fill == "next_open" else "close")
        for date in market.dates[:-3]:
            if fill == "this_close":
                assert prices.loc[date, asset] == sessions[:date].iloc[-1]
            else:
                assert prices.loc[date, asset] == sessions[sessions.index > date].iloc[0]
    assert prices.notna().all(axis=None)
    assert len(prices) == len(market.dates) - int(fill != "this_close")  # what is known on the last day trades later


def test_no_price_is_of_before_the_value_was_known(market):
    """A value of two days later than its row's trades two days later, and no other date's trades sooner than before."""
    stamps = pd.DatetimeIndex(market.as_of)
    late = pd.Series(stamps, market.dates).iloc[[10]] + pd.Timedelta(days=2)
    weights = pd.DataFrame(1.0, market.dates[[10]], ["US"])
    signals = Signals.from_panel(market, weights, known_at=late, fill="next_open")
    prices, opens = entry_prices(signals, market)["US"], own(market, "US", "open")
    assert late.iloc[0].day_name() == "Wednesday"
    assert prices.iloc[9] == opens[opens.index > market.dates[9]].iloc[0]
    after = opens[opens.index > late.index[0] + pd.Timedelta(days=2)].iloc[0]
    assert prices.iloc[10] == prices.iloc[11] == prices.iloc[12] == after


def test_values_out_of_order_are_refused(market):
    stamps = pd.Series(market.as_of[[10, 11]] + pd.to_timedelta([5, 0], "D"), market.dates[[10, 11]])
    signals = Signals.from_panel(market, pd.DataFrame(1.0, stamps.index, ["US"]), known_at=stamps, fill="next_open")
    with pytest.raises(DataError, match=r"known only after the value of a later date: US 2019-04-1\d"):
        entry_prices(signals, market)


def test_proceeds_of_a_delisting_stay(market):
    signals = Signals.from_panel(market, pd.DataFrame(1.0, market.dates[::5], market.assets), fill="next_close")
    prices, closes = entry_prices(signals, market)["OLD"], own(market, "OLD", "close")
    assert (prices["2019-06-06":] == closes.iloc[-1]).all()  # what is known after it never trades, and earns nothing
    assert prices["2019-06-05"] == closes.iloc[-2]


def test_frames_of_an_account_add_up(market):
    weights = pd.DataFrame({"US": [0.3, 0.5], "JP": [0.5, np.nan], "OLD": [0.2, 0.0]}, market.dates[[3, 20]])
    signals = Signals.from_panel(market, weights, fill="next_open")
    account = Ledger(Costs(proportional=0.001, cash=1e-4), cash=1e6).run(signals.orders(market))
    values, trades, returns = position_values(account), transactions(account), daily_returns(account)
    np.testing.assert_allclose(values.sum(axis=1), account.equity)
    np.testing.assert_allclose(values[list(account.assets)].div(account.equity, axis=0), account.weights)
    assert values.columns[-1] == "cash"
    traded = (trades["amount"] * trades["price"]).abs().groupby(trades.index).sum()
    np.testing.assert_allclose(0.001 * traded, account.costs[account.costs > 0])
    np.testing.assert_allclose((1 + returns).prod(), account.equity[-1] / 1e6)
    assert factor(signals).index.names == ["date", "asset"]
    assert factor(signals).to_dict()[(market.dates[3], "JP")] == 0.5
    assert len(factor(signals)) == 5


def test_returns_of_a_walk(calm):
    track = WalkForward("month", start="2019-06-03").run(calm, EqualWeight())
    np.testing.assert_allclose((1 + daily_returns(track)).cumprod(), track.wealth)


@pytest.fixture(scope="module")
def account(market) -> Account:
    weights = pd.DataFrame(np.random.default_rng(3).uniform(0, 0.3, (20, 3)), market.dates[1:41:2], market.assets)
    return Ledger(Costs(proportional=0.001), cash=1e6).run(Signals.from_panel(market, weights).orders(market))


def test_returns_are_compounded_to_one_exchanges_sessions(market, account):
    days = own(market, "US", "close").index
    assert len(account.dates.difference(days)) == 2
    returns = daily_returns(account, "XNYS")
    assert returns.index.equals(days[days >= account.dates[0]])
    equity = pd.Series(account.equity, account.dates)[returns.index]
    np.testing.assert_allclose(returns, equity / equity.shift(fill_value=1e6) - 1, atol=1e-12)
    with pytest.raises(DataError, match=r"XNYS has no session from 2019-04-19"):
        daily_returns(of_one_date(account, "2019-04-19"), "XNYS")  # Good Friday


def of_one_date(account: Account, date: str) -> Account:
    """The account of a single date."""
    one, dates = np.ones((1, 1)), pd.DatetimeIndex([date])
    return Ledger().run(Orders(one, one, one, "close", "fill", dates, ("A",), account.orders.pending))


def test_pyfolios_frames_are_of_one_exchanges_sessions(account):
    returns, positions, trades = pyfolio_frames(account, "XNYS")
    assert str(returns.index.tz) == "UTC"
    assert returns.index.equals(positions.index)
    np.testing.assert_allclose(positions.sum(axis=1), 1e6 * (1 + returns).cumprod())
    all_trades = transactions(account)
    assert not all_trades.index.isin(daily_returns(account, "XNYS").index).all()
    assert len(trades) == len(all_trades)
    assert trades.index.isin(returns.index).all()
    late = trades.index.tz_localize(None) - all_trades.index
    assert (late >= pd.Timedelta(0)).all()
    assert (late <= pd.Timedelta(days=4)).all()


def test_pyfolio_is_not_given_a_walk(calm):
    track = WalkForward("month", start="2019-06-03").run(calm, EqualWeight())
    with pytest.raises(DataError, match="no units or trades"):
        unwrap(pyfolio_frames)(track)  # the tests' own check of types aside


def test_an_asset_named_cash_is_refused(market):
    named = make_prices({"cash": "XNYS"}, "2019-04-01", "2019-04-30")
    panel = Panel.from_frame(named)
    signals = Signals.from_panel(panel, pd.DataFrame(0.5, panel.dates[:1], ["cash"]))
    with pytest.raises(DataError, match="named 'cash'"):
        position_values(Ledger().run(signals.orders(panel)))
