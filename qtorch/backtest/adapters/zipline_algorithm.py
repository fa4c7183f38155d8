"""Orders as an algorithm of zipline's. Needs zipline-reloaded: ``pip install 'qtorch-finance[zipline]'``."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from qtorch.backtest.adapters.checks import checked
from qtorch.backtest.adapters.valuation import sizing_values
from qtorch.backtest.orders import Orders
from qtorch.distributions.checks import require
from qtorch.portfolio import Costs

if TYPE_CHECKING:
    from zipline.algorithm import TradingAlgorithm


def to_zipline(
    orders: Orders, costs: Costs | None = None, *, cash: float = 1e6, shares_per_unit: float = 1.0
) -> "TradingAlgorithm":
    """An algorithm that trades orders on bars of their own prices; the `portfolio_value` of its run is the equity.

    The market is in memory: one session on each of the orders' dates, so that several exchanges trade in one account,
    and none of zipline's own costs. Orders are placed before a session and fill at its open or close.

    zipline trades whole shares. Of units, it rounds each position to one, and the equity differs from the ledger's by
    what half a unit of each asset moves; with ``shares_per_unit=1e4`` each of its shares is a part of a unit, at a
    ten-thousandth of the price.

    Args:
        orders: of signals.
        costs: proportional ones; none by default.
        cash: equity before the first date.
        shares_per_unit: zipline's shares that make one unit of an asset.

    Raises:
        ImportError: zipline is not installed.
        ValueError: costs other than proportional ones, or shares_per_unit that is not above 0.
        DataError: dates that are no session labels; a position is taken before an asset's first close; or the equity is
            lost.

    Example:
        >>> performance = to_zipline(signals.orders(panel), Costs(proportional=0.001)).run()  # doctest: +SKIP
        >>> performance["portfolio_value"]  # doctest: +SKIP
    """
    costs = costs or Costs()
    checked(orders, costs, cash)
    require(shares_per_unit > 0, "shares_per_unit", shares_per_unit, "give a number above 0, such as 1e4")
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
    data = portal(orders.prices / shares_per_unit, orders.closes / shares_per_unit, orders.dates, orders.assets)
    listed = data.asset_finder.retrieve_all(range(len(orders.assets)))
    sizes, phase = sizing_values(orders) / shares_per_unit, orders.phase

    class AtPhase(SlippageModel):
        """All of an order at once; zipline's `NoSlippage` knows closes alone."""

        @staticmethod
        def process_order(data: Any, order: Any) -> tuple[float, int]:
            return data.current(order.asset, phase), order.amount

    def before_trading_start(context: Any, data: Any) -> None:
        t = orders.dates.get_loc(context.get_datetime().tz_localize(None).normalize())
        positions = context.portfolio.positions
        held = np.array([positions[asset].amount if asset in positions else 0 for asset in listed])
        # Not context.portfolio.portfolio_value: in daily bars it is already at the close of the session to come.
        equity = context.portfolio.cash + held @ np.nan_to_num(sizes[t])
        targets = orders.targets[t]
        wanted = np.rint(np.where(targets == 0, 0.0, targets * equity / sizes[t]))
        for n in np.flatnonzero(~np.isnan(targets)):
            context.blotter.order(listed[n], int(wanted[n]) - int(held[n]), MarketOrder())

    return TradingAlgorithm(
        SimulationParameters(orders.dates[0], orders.dates[-1], data.trading_calendar, capital_base=cash),
        data_portal=data,
        before_trading_start=before_trading_start,
        blotter=SimulationBlotter(equity_slippage=AtPhase(), equity_commission=PerDollar(costs.proportional)),
        benchmark_returns=pd.Series(0.0, orders.dates),
    )
