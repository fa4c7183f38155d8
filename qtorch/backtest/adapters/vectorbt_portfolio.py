"""Orders as a portfolio of vectorbt's. Needs vectorbt: ``pip install 'qtorch-finance[vectorbt]'``."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from qtorch.backtest.adapters.checks import funded, ledger_account
from qtorch.backtest.orders import Orders
from qtorch.portfolio import Costs

if TYPE_CHECKING:
    from vectorbt import Portfolio


def to_vectorbt(orders: Orders, costs: Costs | None = None, *, cash: float = 1e6) -> "Portfolio":
    """One account of all assets, by `vectorbt.Portfolio.from_orders`; its `value()` is the ledger's equity.

    Targets go in as fractions of the account's value. vectorbt borrows nothing: of a buy beyond its cash it fills what
    it can, in silence, so weights that need more are refused here. Weights that sum to 1 leave nothing to pay costs.

    Args:
        orders: of signals.
        costs: proportional ones; none by default.
        cash: equity before the first date; large, because vectorbt takes trades of less than 1e-12 units for none.

    Raises:
        ImportError: vectorbt is not installed.
        ValueError: costs that vectorbt can't charge: impact, interest.
        DataError: the weights need more cash than there is; dates that are no session labels; a position is taken
            before an asset's first close; or the equity is lost.

    Example:
        >>> portfolio = to_vectorbt(signals.orders(panel), Costs(proportional=0.001))  # doctest: +SKIP
        >>> portfolio.value(), portfolio.sharpe_ratio(freq="D", year_freq="252 days")  # doctest: +SKIP
    """
    costs = costs or Costs()
    funded(ledger_account(orders, costs, cash), "vectorbt")
    try:
        from vectorbt import Portfolio
    except ImportError as error:
        raise ImportError("to_vectorbt needs vectorbt: pip install 'qtorch-finance[vectorbt]'.") from error
    # Nothing is held before a first close, but vectorbt multiplies by it; a later one keeps its benchmark in order.
    closes = pd.DataFrame(orders.closes, orders.dates, pd.Index(orders.assets)).bfill().fillna(1.0)
    return Portfolio.from_orders(
        closes,
        size=orders.targets,
        size_type="targetpercent",
        price=orders.prices,
        val_price=orders.sizing_values,
        fees=costs.proportional,
        min_size=0.0,  # by default less than 1e-8 units are rejected in silence
        init_cash=cash,
        group_by=True,
        cash_sharing=True,
        call_seq="auto",  # sells first
        max_orders=max(1, int(np.isfinite(orders.targets).sum())),
    )
