from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qtorch.backtest import Account, Ledger, Orders, Signals
from qtorch.data import DataError, Panel
from qtorch.portfolio import Costs, simulate
from tests.conftest import make_prices

NAN = np.nan


def orders(targets: Any, prices: Any, closes: Any, **settings: Any) -> Orders:
    targets, prices, closes = (np.array(each, dtype=float) for each in (targets, prices, closes))
    dates = pd.bdate_range("2024-01-01", periods=len(targets))
    options = {"phase": "close", "sizing": "fill", "pending": pd.DataFrame()} | settings
    return Orders(targets, prices, closes, dates=dates, assets=tuple("ABC"[: targets.shape[1]]), **options)


def test_a_target_at_the_close_is_sized_by_that_close():
    closes = [[100.0, 50.0], [110.0, 50.0], [99.0, 60.0]]
    account = Ledger(cash=1000.0).run(orders([[0.5, 0.5], [NAN, NAN], [1.0, 0.0]], closes, closes))
    np.testing.assert_allclose(account.units, [[5.0, 10.0], [1095 / 99, 0.0]])
    np.testing.assert_allclose(account.equity, [1000.0, 1050.0, 1095.0])
    np.testing.assert_allclose(account.turnover, [1.0, 0.0, (1095 - 495 + 600) / 1095])
    np.testing.assert_allclose(account.weights, [[0.5, 0.5], [550 / 1050, 500 / 1050], [1.0, 0.0]])


def test_a_target_at_the_close_may_be_sized_by_the_close_before():
    closes = [[100.0], [110.0], [99.0]]
    account = Ledger(cash=1000.0).run(orders([[NAN], [0.5], [0.25]], closes, closes, sizing="known"))
    equity = 1000 + 5 * (99 - 110)
    np.testing.assert_allclose(account.units, [[5.0], [0.25 * 1000 / 110]])
    np.testing.assert_allclose(account.equity, [1000.0, 1000.0, equity])
    np.testing.assert_allclose(account.cash, [1000.0, 450.0, equity - 99 * 0.25 * 1000 / 110])


def test_a_target_at_the_open_is_sized_by_the_opens():
    opens, closes = [[100.0, 10.0], [120.0, 10.0]], [[110.0, 10.0], [130.0, 10.0]]
    account = Ledger(cash=1000.0).run(orders([[0.5, 0.0], [NAN, 0.5]], opens, closes, phase="open"))
    np.testing.assert_allclose(account.units, [[5.0, 0.0], [5.0, 55.0]])  # 500 + 5 x 120 = 1100 at the second open
    np.testing.assert_allclose(account.equity, [1050.0, 1150.0])


def test_a_target_at_the_open_may_be_sized_by_the_close_before():
    opens, closes = [[100.0], [120.0], [150.0]], [[110.0], [130.0], [140.0]]
    account = Ledger(cash=1000.0).run(orders([[NAN], [0.5], [0.5]], opens, closes, phase="open", sizing="known"))
    first = 0.5 * 1000 / 110
    second = 0.5 * (1000 + 10 * first) / 130
    np.testing.assert_allclose(account.units, [[first], [second]])
    np.testing.assert_allclose(account.equity[-1], 1000 + 10 * first + 20 * first - 10 * second)


def test_costs_are_of_the_traded_value_and_paid_from_cash():
    closes = [[100.0], [100.0], [100.0]]
    account = Ledger(Costs(proportional=0.01), cash=1000.0).run(orders([[1.0], [NAN], [0.0]], closes, closes))
    np.testing.assert_allclose(account.costs, [10.0, 0.0, 10.0])
    np.testing.assert_allclose(account.equity, [990.0, 990.0, 980.0])
    np.testing.assert_allclose(account.cash, [-10.0, -10.0, 980.0])
    trades = account.trades_frame()
    assert trades["units"].tolist() == [10.0, -10.0]
    assert trades["cost"].tolist() == [10.0, 10.0]


@pytest.mark.parametrize(("weight", "spare"), [(0.4, 600.0), (-0.4, 600.0), (1.5, -500.0), (-1.5, -500.0)])
def test_cash_earns_and_debt_pays_from_close_to_close(weight, spare):
    closes = [[100.0], [100.0], [100.0]]
    costs = Costs(cash=0.001, financing=0.002)
    account = Ledger(costs, cash=1000.0).run(orders([[weight], [NAN], [NAN]], closes, closes))
    rate = 0.001 if spare > 0 else 0.002
    np.testing.assert_allclose(account.financing, [0.0, spare * rate, spare * (1 + rate) * rate])
    np.testing.assert_allclose(account.equity, 1000 + account.financing.cumsum())


def test_cash_earns_before_the_first_order():
    closes = [[NAN], [100.0]]
    account = Ledger(Costs(cash=0.01)).run(orders([[NAN], [NAN]], closes, closes))
    np.testing.assert_allclose(account.equity, [1.0, 1.01])
    assert account.units.shape == (0, 1)


def test_the_date_on_which_all_is_lost_is_named():
    closes = [[100.0], [100.0], [60.0], [50.0]]
    with pytest.raises(DataError, match=r"2024-01-03.*equity is -0\.2"):
        Ledger().run(orders([[3.0], [NAN], [NAN], [NAN]], closes, closes))


def test_orders_that_no_price_can_fill_are_refused():
    closes = [[NAN], [100.0]]
    with pytest.raises(DataError, match="without a price above 0: A 2024-01-01"):
        orders([[0.5], [NAN]], closes, closes)
    with pytest.raises(DataError, match="no close before their fill.*A 2024-01-02"):
        orders([[NAN], [0.5]], closes, closes, sizing="known")


def test_impact_is_refused():
    with pytest.raises(ValueError, match=r"costs\.impact=1"):
        Ledger(Costs(impact=1.0))


@pytest.mark.parametrize("rates", [Costs(), Costs(proportional=0.002, cash=1e-4, financing=3e-4)])
def test_closes_alone_give_what_simulate_gives(rates):
    """Long and short, levered or not, where an exchange is closed."""
    panel = Panel.from_frame(make_prices({"A": "XNYS", "B": "XTKS", "C": "XLON"}, "2019-04-01", "2019-06-28"))
    generator = torch.Generator().manual_seed(3)
    weights = torch.rand(len(panel.dates), 3, generator=generator).double() * 1.2 - 0.5
    open_ = panel.mask
    wanted = weights.masked_fill(~open_, NAN)
    signals = Signals.from_panel(panel, wanted, panel.dates, known_at="close", fill="this_close")
    account = Ledger(rates).run(signals.orders(panel))
    r = panel.returns()[1:]
    got = simulate(weights[:-1], r, r.isfinite(), tradable=open_[:-1], costs=rates)
    before = (account.equity + account.costs)[1:]  # of the trades at each close
    np.testing.assert_allclose(before, (1 + got.returns).cumprod(0).numpy(), rtol=1e-12)
    np.testing.assert_allclose(account.turnover[:-1], got.turnover.numpy(), rtol=1e-11, atol=1e-14)


def random_market(seed: int, T: int, N: int, phase: str, sizing: str) -> tuple[Orders, Costs]:
    """Orders over prices with late listings and halts."""
    rng = np.random.default_rng(seed)
    closes = 100 * np.exp(np.cumsum(0.02 * rng.standard_normal((T, N)), axis=0))
    opens = closes * np.exp(0.01 * rng.standard_normal((T, N)))
    there = rng.random((T, N)) < 0.8
    closes = pd.DataFrame(np.where(there, closes, NAN)).ffill().to_numpy()
    prices = np.where(there, opens if phase == "open" else closes, NAN)
    before = np.vstack([np.full((1, N), NAN), closes[:-1]])
    can = there & (rng.random((T, N)) < 0.6) & (~np.isnan(before) if sizing == "known" else True)
    targets = np.where(can, rng.uniform(-0.6, 0.9, (T, N)), NAN)
    costs = Costs(0.003 * rng.random(), 0.0, 0.001 * rng.standard_normal(), 0.001 * rng.random())
    return orders(targets, prices, closes, phase=phase, sizing=sizing), costs


@given(
    st.integers(0, 2**32 - 1),
    st.integers(2, 12),
    st.integers(1, 3),
    st.sampled_from(["open", "close"]),
    st.sampled_from(["fill", "known"]),
)
@settings(max_examples=60, deadline=None)
def test_no_money_appears_or_vanishes(seed, dates, assets, phase, sizing):
    """Each date's equity changes by what the units of before and after its trades earn, less costs, with interest."""
    placed, costs = random_market(seed, dates, assets, phase, sizing)
    account = Ledger(costs, cash=7.0).run(placed)
    units = units_by_row(account)
    old, new = np.vstack([np.zeros_like(units[:1]), units[:-1]]), units
    last = np.vstack([placed.closes[:1], placed.closes[:-1]])  # before the first date nothing is held
    fill = np.where(np.isnan(placed.prices), last, placed.prices)
    gain = np.where(old == 0, 0.0, old * (fill - last)) + np.where(new == 0, 0.0, new * (placed.closes - fill))
    trades = account.trades_frame()
    paid = trades.groupby("date")["cost"].sum().reindex(placed.dates, fill_value=0.0).to_numpy()
    np.testing.assert_allclose(paid, costs.proportional * np.nansum(np.abs(new - old) * fill, axis=1), atol=1e-12)
    spare = account.equity * (1 - np.abs(account.weights).sum(1))
    interest = np.append(0.0, np.where(spare > 0, costs.cash, costs.financing) * spare)[:-1]
    np.testing.assert_allclose(account.financing, interest, atol=1e-12)
    change = np.diff(account.equity, prepend=7.0)
    np.testing.assert_allclose(change, gain.sum(1) - paid + interest, atol=1e-11)
    np.testing.assert_allclose(np.cumprod(1 + account.returns) * 7, account.equity)


def units_by_row(account: Account) -> np.ndarray:
    return account.units_frame().reindex(account.dates).ffill().fillna(0.0).to_numpy()
