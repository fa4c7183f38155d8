"""Calendar, prices and orders in qlib's classes, which find them in memory and not in a store."""

from typing import Any

import numpy as np
import pandas as pd
from qlib.backtest.decision import Order, TradeDecisionWO
from qlib.backtest.exchange import Exchange
from qlib.backtest.executor import SimulatorExecutor
from qlib.backtest.utils import TradeCalendarManager
from qlib.strategy.base import BaseStrategy

from qtorch.backtest.orders import Orders


class Quotes(Exchange):
    """Prices of orders as an exchange of qlib's: fills in `$fill`, values in `$close`.

    Args:
        orders: with the prices.
        rate: proportional costs.
    """

    def __init__(self, orders: Orders, rate: float) -> None:
        self.orders = orders
        super().__init__(
            start_time=orders.dates[0],
            end_time=orders.dates[-1],
            codes=list(orders.assets),
            deal_price="$fill",
            open_cost=rate,
            close_cost=rate,
            min_cost=0.0,
            trade_unit=None,
        )

    def get_quote_from_qlib(self) -> None:
        """Sets the frame of quotes; an asset without a close yet is one that qlib does not trade."""
        index = pd.MultiIndex.from_product([self.orders.assets, self.orders.dates], names=["instrument", "datetime"])
        columns = {"$fill": self.orders.prices.T.ravel(), "$close": self.orders.closes.T.ravel()}
        self.quote_df = pd.DataFrame(columns | {"$volume": np.nan, "$factor": np.nan}, index)
        self.trade_w_adj_price = True  # no whole units
        self._update_limit(None)  # else the region's limits of a day's move

    def _get_buy_amount_by_cash_limit(self, trade_price: float, cash: float, cost_ratio: float) -> float:
        """qlib's, without a least cost, which it divides by the rate, though that is 0."""
        return cash / (1 + cost_ratio) / trade_price


class Executor(SimulatorExecutor):
    """qlib's daily simulation on given dates.

    Args:
        dates: of the orders.
    """

    def __init__(self, dates: pd.DatetimeIndex) -> None:
        self.dates = dates
        super().__init__(time_per_step="day", generate_portfolio_metrics=True)

    def reset(self, common_infra: Any = None, **kwargs: Any) -> None:
        """Puts the calendar in place before qlib makes one of its store."""
        if not self.level_infra.has("trade_calendar"):
            self.level_infra.reset_infra(trade_calendar=_Dates(self.dates, self.level_infra))
        super().reset(common_infra, **kwargs)


class _Dates(TradeCalendarManager):
    """The dates of the orders, and one more that ends the last."""

    def __init__(self, dates: pd.DatetimeIndex, level_infra: Any) -> None:
        self.dates = dates
        super().__init__("day", dates[0], dates[-1], level_infra)

    def reset(self, freq: str, start_time: Any = None, end_time: Any = None) -> None:
        """Goes back to the first date; always over all of them."""
        self.freq, self.start_time, self.end_time = freq, self.dates[0], self.dates[-1]
        self._calendar = [*self.dates, self.dates[-1] + pd.Timedelta(days=1)]
        self.start_index, self.end_index, self.trade_len, self.trade_step = 0, len(self.dates) - 1, len(self.dates), 0


class Targets(BaseStrategy):
    """Trades to the weights of orders, where there are any; a position without one is left alone.

    Args:
        orders: with the weights.
    """

    def __init__(self, orders: Orders) -> None:
        super().__init__()
        self.orders = orders

    def generate_trade_decision(self, execute_result: Any = None) -> TradeDecisionWO:
        """The step's trades in units."""
        assets, position = self.orders.assets, self.trade_position
        held = np.array([position.get_stock_amount(asset) for asset in assets], dtype=float)
        trades = self.orders.trades(self.trade_calendar.get_trade_step(), held, float(position.get_cash()))
        start, end = self.trade_calendar.get_step_time()
        return TradeDecisionWO(
            [Order(assets[n], abs(units), Order.SELL if units < 0 else Order.BUY, start, end) for n, units in trades],
            self,
        )
