"""Orders as a backtest of bt's. Needs bt: ``pip install 'qtorch-finance[bt]'``."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from qtorch.backtest.adapters.checks import ledger_account
from qtorch.backtest.orders import Orders
from qtorch.portfolio import Costs

if TYPE_CHECKING:
    from bt import Backtest

_CLOSE = pd.Timedelta(hours=12)  # after a date's opens


def to_bt(orders: Orders, costs: Costs | None = None, *, cash: float = 1e6, name: str = "qtorch") -> "Backtest":
    """A backtest for `bt.run`, of whole and broken units; its strategy's values are the ledger's equity.

    Orders at opens need two rows of prices a date, the opens at 00:00 and the closes at 12:00, so the equity of dates
    is `backtest.strategy.values.resample("D").last().loc[orders.dates]`. bt's statistics are of this daily series too.

    Args:
        orders: of signals.
        costs: proportional ones, as bt's commissions; none by default.
        cash: equity before the first date.
        name: of the strategy, in bt's results.

    Raises:
        ImportError: bt is not installed.
        ValueError: costs other than proportional ones.
        DataError: dates that are no session labels, on which bt would stay in cash; a position is taken before an
            asset's first close; or the equity is lost, after which bt would sell all and go on.

    Example:
        >>> bt.run(to_bt(signals.orders(panel), Costs(proportional=0.001))).display()  # doctest: +SKIP
    """
    costs = costs or Costs()
    ledger_account(orders, costs, cash)
    try:
        import bt
    except ImportError as error:
        raise ImportError("to_bt needs bt: pip install 'qtorch-finance[bt]'.") from error
    names = pd.Index(orders.assets)
    prices = pd.DataFrame(orders.fill_values, orders.dates, names)
    if orders.phase == "open":
        prices = pd.concat([prices, pd.DataFrame(orders.closes, orders.dates + _CLOSE, names)]).sort_index()
    rate = costs.proportional
    return bt.Backtest(
        bt.Strategy(name, [_Fill(orders)]),
        prices,
        initial_capital=cash,
        commissions=lambda units, price: rate * abs(units) * price,
        integer_positions=False,
    )


@dataclass
class _Fill:
    """Trades to the weights, an algo of bt's.

    bt's own `Rebalance` closes what has no weight today, where no order leaves a position alone; and it buys for an
    amount that costs are part of, where they come on top here.
    """

    orders: Orders

    def __call__(self, target: Any) -> bool:
        """Fills a date's orders; at its close, where they are of opens, there are none."""
        t = int(self.orders.dates.get_indexer(pd.DatetimeIndex([target.now]))[0])
        if t >= 0:
            assets, children = self.orders.assets, target.children
            held = np.array([children[each].position if each in children else 0.0 for each in assets], dtype=float)
            for n, units in self.orders.trades(t, held, float(target.capital)):
                target.transact(units, child=assets[n])
        return True
