"""The same orders through skfolio's portfolios, one from each instant at which prices are known to the next."""

import numpy as np
import pandas as pd
import pytest

from qtorch.backtest import Ledger, Orders
from qtorch.portfolio import Costs
from tests.harness.conftest import random_orders
from tests.harness.test_equal_equity import CONVENTIONS

pytestmark = pytest.mark.harness


def by_skfolio(orders: Orders, costs: Costs) -> np.ndarray:
    """Equity at each close before the costs of what trades at it, in units of the first.

    skfolio holds weights and no units: those of a portfolio are the drifted ones of that before it, and the targets.
    """
    from skfolio import Portfolio

    opens = orders.phase == "open"
    values = orders.fill_values
    if opens:
        values = np.stack([values, orders.closes], axis=1).reshape(-1, len(orders.assets))
    relatives = pd.DataFrame(values).pct_change(fill_method=None).fillna(0.0)
    equity, last_close, weights, record = 1.0, 1.0, np.zeros(len(orders.assets)), []
    for k in range(len(values)):
        t, at_close = (k // 2, bool(k % 2)) if opens else (k, True)
        if at_close:
            record.append(equity)
        before = weights
        if at_close != opens:  # the instant of the date's orders
            targets = orders.targets[t]
            if orders.sizing == "known" and t:
                with np.errstate(invalid="ignore"):  # no close yet: no order but of 0
                    sized = targets * orders.prices[t] / orders.closes[t - 1] * last_close / equity
                targets = np.where(targets == 0, 0.0, sized)
            weights = np.where(np.isnan(targets), weights, targets)
        if k + 1 == len(values):
            break
        portfolio = Portfolio(
            relatives.iloc[[k + 1]], weights, previous_weights=before, transaction_costs=costs.proportional
        )
        if at_close:
            last_close = equity * (1 - portfolio.total_cost)
        growth = 1 + float(portfolio.returns[0])
        weights = weights * (1 + relatives.to_numpy()[k + 1]) / growth
        equity *= growth
    return np.array(record)


@pytest.mark.parametrize("rate", [0.0, 0.002])
@pytest.mark.parametrize(("fill", "sizing"), CONVENTIONS)
def test_equity_is_the_ledgers(world, fill: str, sizing: str, rate: float):
    orders, costs = random_orders(world, fill, sizing), Costs(proportional=rate)
    account = Ledger(costs).run(orders)
    before = account.equity + (account.costs if orders.phase == "close" else 0.0)
    np.testing.assert_allclose(by_skfolio(orders, costs), before, rtol=1e-11)
