"""The same orders through the ledger and through qlib's exchange, executor and account."""

import numpy as np
import pandas as pd
import pytest

from qtorch.backtest import Account, Ledger, Orders, Signals
from qtorch.backtest.adapters import to_qlib
from qtorch.data import DataError
from qtorch.portfolio import Costs
from tests.harness.conftest import random_orders
from tests.harness.test_equal_equity import CONVENTIONS

pytestmark = [
    pytest.mark.harness,
    pytest.mark.filterwarnings("ignore:Mean of empty slice:RuntimeWarning"),  # qlib's, of a day without orders
]


@pytest.fixture(scope="module", autouse=True)
def store(tmp_path_factory) -> None:
    """qlib on a folder without data, in a region whose limits of a day's move would stop some of the orders."""
    import qlib

    qlib.init(provider_uri=str(tmp_path_factory.mktemp("qlib")), region="cn")


def by_qlib(orders: Orders, costs: Costs, **options) -> pd.DataFrame:
    from qlib.backtest import backtest

    portfolio, _ = backtest(**to_qlib(orders, costs, **options))
    return portfolio["1day"][0]


def by_ledger(orders: Orders, costs: Costs) -> Account:
    return Ledger(costs, cash=1e6).run(orders)


@pytest.mark.parametrize("rate", [0.0, 0.002])
@pytest.mark.parametrize(("fill", "sizing"), CONVENTIONS)
def test_equity_is_the_ledgers(world, fill: str, sizing: str, rate: float):
    orders, costs = random_orders(world, fill, sizing, least=0.0), Costs(proportional=rate)
    report, account = by_qlib(orders, costs), by_ledger(orders, costs)
    assert (report.index == orders.dates).all()
    np.testing.assert_allclose(report["account"], account.equity, rtol=1e-11)
    np.testing.assert_allclose(report["cash"], account.cash, rtol=1e-9)
    np.testing.assert_allclose(report["total_cost"], account.costs.cumsum(), rtol=1e-9)


@pytest.mark.parametrize("assets", [["US2"], ["US2", "JP1", "UK1"]])
def test_all_of_the_equity_may_be_invested(world, assets):
    """Without costs, every date, where rounding alone would ask for more cash than there is."""
    panel = world.select(assets)
    shared = panel.dates[panel.mask.all(1).numpy()][:-3]
    orders = Signals.from_panel(panel, pd.DataFrame(1 / len(assets), shared, assets), fill="next_open").orders(panel)
    orders.targets[np.isnan(orders.targets).any(1)] = np.nan  # where one is bought before another can be sold
    np.testing.assert_allclose(by_qlib(orders, Costs())["account"], by_ledger(orders, Costs()).equity, rtol=1e-9)


def test_a_backtest_runs_again_and_has_a_benchmark(world):
    orders = random_orders(world, "next_open", "fill", least=0.0)
    bench = pd.Series(0.001, orders.dates)
    first, second = by_qlib(orders, Costs(), benchmark=bench), by_qlib(orders, Costs(), benchmark=bench)
    pd.testing.assert_frame_equal(first, second)
    np.testing.assert_allclose(first["bench"], 0.001)


def test_a_rest_that_qlib_would_take_away_is_refused(world):
    """And would be taken away indeed."""
    panel = world.select(["US2"])
    dates = panel.dates[panel.mask[:, 0].numpy()]
    signals = Signals.from_panel(panel, pd.DataFrame([0.9, 1e-6], dates[[5, 10]], ["US2"]))
    with pytest.raises(DataError, match="sold but for less than 1e-5 of the position: US2 2019-03-18"):
        to_qlib(signals.orders(panel))
