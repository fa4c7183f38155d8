"""The same orders through the ledger and through other libraries; run by make test-harness."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pandas as pd
import pytest

from qtorch.backtest import Account, Ledger, Orders, Signals
from qtorch.backtest.adapters import to_bt, to_vectorbt
from qtorch.portfolio import Costs
from tests.harness.conftest import random_orders

pytestmark = pytest.mark.harness

CONVENTIONS = list(product(("next_open", "next_close", "this_close"), ("fill", "known")))


def by_vectorbt(orders: Orders, costs: Costs) -> np.ndarray:
    return to_vectorbt(orders, costs).value().to_numpy()


def by_bt(orders: Orders, costs: Costs) -> np.ndarray:
    backtest = to_bt(orders, costs)
    backtest.run()
    return backtest.strategy.values.resample("D").last().loc[orders.dates].to_numpy()


def by_ledger(orders: Orders, costs: Costs) -> Account:
    return Ledger(costs, cash=1e6).run(orders)


@pytest.mark.parametrize("harness", [by_vectorbt, by_bt])
@pytest.mark.parametrize("rate", [0.0, 0.002])
@pytest.mark.parametrize(("fill", "sizing"), CONVENTIONS)
def test_equity_is_the_ledgers(
    world, fill: str, sizing: str, rate: float, harness: Callable[[Orders, Costs], np.ndarray]
):
    orders, costs = random_orders(world, fill, sizing), Costs(proportional=rate)
    np.testing.assert_allclose(harness(orders, costs), by_ledger(orders, costs).equity, rtol=1e-11)


def test_each_convention_is_another_curve(world):
    """So that agreement with the ledger says something."""
    last = [by_ledger(random_orders(world, *each), Costs()).equity[-1] / 1e6 for each in CONVENTIONS]
    assert np.diff(np.sort(last)).min() > 1e-6


@pytest.mark.parametrize("harness", [by_vectorbt, by_bt])
@pytest.mark.parametrize("assets", [["US2"], ["US2", "JP1", "UK1"]])
def test_all_of_the_equity_may_be_invested(world, assets, harness):
    """Without costs, every date, where rounding alone would ask for more cash than there is."""
    panel = world.select(assets)
    shared = panel.dates[panel.mask.all(1).numpy()][:-3]
    signals = Signals.from_panel(panel, pd.DataFrame(1 / len(assets), shared, assets), fill="next_open")
    orders = signals.orders(panel)
    orders.targets[np.isnan(orders.targets).any(1)] = np.nan  # where one is bought before another can be sold
    np.testing.assert_allclose(harness(orders, Costs()), by_ledger(orders, Costs()).equity, rtol=1e-9)


def test_bt_borrows_as_the_ledger_does(world):
    orders, costs = random_orders(world, "next_open", "fill", least=-0.5, most=0.9), Costs(proportional=0.002)
    account = by_ledger(orders, costs)
    assert (account.cash < 0).any()
    np.testing.assert_allclose(by_bt(orders, costs), account.equity, rtol=1e-11)


def test_vectorbts_trades_are_the_ledgers(world):
    orders, costs = random_orders(world, "next_open", "known"), Costs(proportional=0.002)
    trades = by_ledger(orders, costs).trades_frame()
    theirs = to_vectorbt(orders, costs).orders.records
    theirs = theirs.sort_values(["idx", "col"])
    assert len(theirs) == len(trades)
    np.testing.assert_allclose(theirs["size"] * np.where(theirs["side"] == 0, 1, -1), trades["units"], rtol=1e-9)
    np.testing.assert_allclose(theirs["fees"], trades["cost"], rtol=1e-9)


def test_bts_statistics_are_daily(world):
    orders, costs = random_orders(world, "next_open", "fill"), Costs(proportional=0.001)
    backtest = to_bt(orders, costs)
    backtest.run()
    account = by_ledger(orders, costs)
    prices = backtest.stats.daily_prices  # from the day before the first trade, at 100
    first = len(account.dates) - len(prices)
    assert account.trade_rows[0] - 1 == first
    assert (prices.index == account.dates[first:]).all()
    np.testing.assert_allclose(prices, account.equity[first:] / account.initial * 100, rtol=1e-11)
