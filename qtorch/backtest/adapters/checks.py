"""What harnesses can't do, refused before they do something else in silence."""

import numpy as np

from qtorch.backtest.account import Account
from qtorch.backtest.instants import session_labels
from qtorch.backtest.ledger import Ledger
from qtorch.backtest.orders import Orders
from qtorch.data import DataError
from qtorch.data.errors import listing
from qtorch.distributions.checks import require
from qtorch.portfolio import Costs

_ROUNDING = 1e-12  # of the equity


def ledger_account(orders: Orders, costs: Costs, cash: float) -> Account:
    """The ledger's account of orders that a harness can fill as the ledger does.

    Args:
        orders: to be given to a harness.
        costs: rates.
        cash: equity before the first date.

    Raises:
        ValueError: costs other than proportional ones, or cash that is not above 0.
        DataError: dates that are no session labels; a position is taken in an asset before its first close; the equity
            is lost.
    """
    require(
        costs.cash == costs.financing == 0, "costs", costs, "harnesses pay no interest: use Ledger, or leave it out"
    )
    session_labels(orders.dates)
    unvalued = np.isnan(orders.closes) & (np.nan_to_num(orders.targets) != 0)
    if unvalued.any():
        t, n = np.nonzero(unvalued)
        cells = [f"{orders.assets[j]} {orders.dates[i]:%Y-%m-%d}" for i, j in zip(t[:5], n[:5], strict=True)]
        raise DataError(f"positions before a first close: {listing(cells, total=len(t))}. Begin after it.")
    return Ledger(costs, cash).run(orders)


def funded(account: Account, library: str) -> None:
    """Refuses an account that borrows.

    Args:
        account: of the ledger.
        library: that borrows nothing, for the message.

    Raises:
        DataError: cash falls below 0 by more than rounding; the message names the first date.
    """
    short = account.cash < -_ROUNDING * account.equity
    if short.any():
        t, missing = int(short.argmax()), (-account.cash / account.equity)[short]
        raise DataError(
            f"{account.dates[t]:%Y-%m-%d}: the weights and their costs need {missing[0]:.3g} of the equity more than "
            f"there is cash ({len(missing)} dates in all), and {library} borrows nothing. Scale them down to leave "
            "room for the costs, or use Ledger."
        )
