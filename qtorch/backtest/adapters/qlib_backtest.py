"""Orders as a backtest of qlib's. Needs qlib: ``pip install 'qtorch-finance[qlib]'``."""

from typing import Any

import numpy as np
import pandas as pd

from qtorch.backtest.account import Account
from qtorch.backtest.adapters.checks import funded, ledger_account
from qtorch.backtest.orders import Orders
from qtorch.data import DataError
from qtorch.data.errors import listing
from qtorch.portfolio import Costs

_TAKEN = ("cash", "cash_delay", "now_account_value")  # keys of qlib's positions beside the assets


def to_qlib(
    orders: Orders, costs: Costs | None = None, *, cash: float = 1e6, benchmark: pd.Series | None = None
) -> dict[str, Any]:
    """The arguments of `qlib.backtest.backtest`, whose report's `account` is then the ledger's equity.

    Calendar, prices and orders are the ones given: nothing is read from qlib's store, though ``qlib.init`` must have
    been called. Sells go before buys, units are not rounded, and no limits of price or volume apply. qlib goes neither
    short nor into debt: of such orders it fills what it can, in silence, so they are refused here.

    Args:
        orders: of signals.
        costs: proportional ones; none by default.
        cash: equity before the first date; large, because qlib takes trades of a value of less than 1e-5 for none.
        benchmark: returns by date, for qlib's reports; 0 by default.

    Raises:
        ImportError: qlib is not installed.
        ValueError: costs that qlib can't charge alike: impact, interest.
        DataError: negative weights, or weights that need more cash than there is; a position that is sold but for less
            than 1e-5 of it, all of which qlib would take away; dates that are no session labels; a position is taken
            before an asset's first close; the equity is lost; an asset has a name that qlib uses for its cash or
            account; or qlib is not initialised.

    Example:
        >>> report, positions = qlib.backtest.backtest(**to_qlib(orders))[0]["1day"]  # doctest: +SKIP
        >>> report["account"]  # doctest: +SKIP
    """
    costs = costs or Costs()
    account = ledger_account(orders, costs, cash)
    taken = [asset for asset in orders.assets if asset in _TAKEN]
    if taken:
        raise DataError(f"assets named {listing(taken)}, as qlib names parts of its account. Give them other names.")
    short = np.nan_to_num(orders.targets) < 0
    if short.any():
        t, n = (index[:5] for index in np.nonzero(short))
        cells = [f"{orders.assets[j]} {orders.dates[i]:%Y-%m-%d}" for i, j in zip(t, n, strict=True)]
        raise DataError(
            f"negative weights: {listing(cells, total=int(short.sum()))}. qlib sells nothing short: use Ledger, or bt."
        )
    funded(account, "qlib")
    _refuse_remnants(account)
    try:
        from qlib.config import C

        from qtorch.backtest.adapters.qlib_parts import Executor, Quotes, Targets
    except ImportError as error:
        raise ImportError("to_qlib needs qlib: pip install 'qtorch-finance[qlib]'.") from error
    if not C.registered:
        raise DataError("qlib is not initialised. Call qlib.init(provider_uri=...) first; its store may be empty.")
    first, last = orders.dates[0], orders.dates[-1]
    return {
        "start_time": first,
        "end_time": last,
        "strategy": Targets(orders),
        "executor": Executor(orders.dates),
        "benchmark": pd.Series(0.0, orders.dates) if benchmark is None else benchmark,
        "account": float(cash),
        "exchange_kwargs": {"exchange": Quotes(orders, costs.proportional)},
    }


def _refuse_remnants(account: Account) -> None:
    """Sells after which so little is left that qlib, by `numpy.isclose`, takes the position for sold."""
    after, traded = account.units, np.diff(account.units, axis=0, prepend=0.0)
    remnant = (traded < 0) & (after != 0) & np.isclose(after - traded, -traded)
    if remnant.any():
        e, n = (index[:5] for index in np.nonzero(remnant))
        dates = account.dates[account.trade_rows[e]]
        cells = [f"{account.assets[j]} {date:%Y-%m-%d}" for j, date in zip(n, dates, strict=True)]
        raise DataError(
            f"sold but for less than 1e-5 of the position: {listing(cells, total=int(remnant.sum()))}. qlib would take "
            "the rest away without paying for it. Give a weight of 0 there."
        )
