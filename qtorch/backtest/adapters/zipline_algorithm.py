"""Orders as an algorithm of zipline's. Needs zipline-reloaded: ``pip install 'qtorch-finance[zipline]'``."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float64

from qtorch.backtest.account import Account
from qtorch.backtest.adapters.checks import ledger_account
from qtorch.backtest.orders import Orders
from qtorch.data import DataError
from qtorch.data.errors import listing
from qtorch.distributions.checks import require
from qtorch.portfolio import Costs

if TYPE_CHECKING:
    from zipline.algorithm import TradingAlgorithm

_MOST = 1e11  # shares in one order, above which zipline fails
_CHOSEN = 1e10  # shares: with equity in doubles, and a rounding to whole ones that is as small


def to_zipline(
    orders: Orders, costs: Costs | None = None, *, cash: float = 1e6, shares_per_unit: float | None = None
) -> "TradingAlgorithm":
    """An algorithm that trades orders on bars of their own prices; the `portfolio_value` of its run is the equity.

    The market is in memory: one session on each of the orders' dates, so that several exchanges trade in one account,
    and none of zipline's own costs. Orders are placed before a session and fill at its open or close.

    zipline trades whole shares, so each position is rounded to one. By default a share is a part of a unit, at a part
    of the price: that power of 2, by asset, at which the largest position or order is of 5e9 to 1e10 shares. A position
    is then wrong by at most 1e-10 of the asset's largest; with ``shares_per_unit=1.0`` it is by half a unit.

    The algorithm keeps the account of its run: run it once.

    Args:
        orders: of signals.
        costs: proportional ones; none by default.
        cash: equity before the first date.
        shares_per_unit: zipline's shares that make one unit of any asset; chosen for each by default.

    Raises:
        ImportError: zipline is not installed.
        ValueError: costs other than proportional ones, or shares_per_unit that is not above 0.
        DataError: dates that are no session labels; a position is taken before an asset's first close; the equity is
            lost; or an order is of more than 1e11 shares, which zipline refuses.

    Example:
        >>> performance = to_zipline(signals.orders(panel), Costs(proportional=0.001)).run()  # doctest: +SKIP
        >>> performance["portfolio_value"]  # doctest: +SKIP
    """
    costs = costs or Costs()
    account = ledger_account(orders, costs, cash)
    require(
        shares_per_unit is None or shares_per_unit > 0,
        "shares_per_unit",
        shares_per_unit,
        "give a number above 0: 1.0 for whole units",
    )
    shares = _shares(account, shares_per_unit)
    try:
        from zipline.algorithm import TradingAlgorithm
        from zipline.finance.blotter import SimulationBlotter
        from zipline.finance.commission import PerDollar
        from zipline.finance.execution import MarketOrder
        from zipline.finance.slippage import SlippageModel
        from zipline.finance.trading import SimulationParameters

        from qtorch.backtest.adapters.zipline_market import portal
    except ImportError as error:
        raise ImportError("to_zipline needs zipline-reloaded: pip install 'qtorch-finance[zipline]'.") from error
    of_shares = replace(orders, prices=orders.prices / shares, closes=orders.closes / shares)
    data = portal(of_shares.prices, of_shares.closes, orders.dates, orders.assets)
    listed = data.asset_finder.retrieve_all(range(len(orders.assets)))
    phase = orders.phase

    class AtPhase(SlippageModel):
        """All of an order at once; zipline's `NoSlippage` knows closes alone."""

        @staticmethod
        def process_order(data: Any, order: Any) -> tuple[float, int]:
            return data.current(order.asset, phase), order.amount

    def before_trading_start(context: Any, data: Any) -> None:
        t = int(orders.dates.searchsorted(context.get_datetime().tz_localize(None).normalize()))
        positions = context.portfolio.positions
        held = np.array([positions[asset].amount if asset in positions else 0.0 for asset in listed], dtype=float)
        # Not context.portfolio.portfolio_value: in daily bars it is already at the close of the session to come.
        for n, units in of_shares.trades(t, held, float(context.portfolio.cash)):
            context.blotter.order(listed[n], round(units), MarketOrder())

    return TradingAlgorithm(
        SimulationParameters(orders.dates[0], orders.dates[-1], data.trading_calendar, capital_base=cash),
        data_portal=data,
        before_trading_start=before_trading_start,
        blotter=SimulationBlotter(equity_slippage=AtPhase(), equity_commission=PerDollar(costs.proportional)),
        benchmark_returns=pd.Series(0.0, orders.dates),
    )


def _shares(account: Account, forced: float | None) -> Float64[np.ndarray, " N"]:
    """How many shares make a unit of each asset.

    Args:
        account: whose orders zipline is to fill.
        forced: of every asset.

    Raises:
        DataError: they make an order larger than zipline's largest.
    """
    N = len(account.assets)
    ordered = np.abs(np.diff(account.units, axis=0, prepend=0.0)).max(axis=0, initial=0.0)
    if forced is None:
        most = np.maximum(ordered, np.abs(account.units).max(axis=0, initial=0.0))
        return np.exp2(np.floor(np.log2(_CHOSEN / np.where(most == 0, _CHOSEN, most))))
    over = np.flatnonzero(ordered * forced > _MOST)
    if len(over):
        cells = [f"{account.assets[n]} ({ordered[n] * forced:.3g})" for n in over[:5]]
        raise DataError(
            f"orders of more than {_MOST:g} shares at shares_per_unit={forced:g}: {listing(cells, total=len(over))}. "
            "Leave shares_per_unit out, and it is chosen for each asset."
        )
    return np.full(N, float(forced))
