"""What an account went through, date by date, in money."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int

from qtorch.backtest.orders import Orders
from qtorch.data.errors import counted, span


@dataclass(frozen=True, eq=False)
class Account:
    """An account's record on the `T` dates of its orders; money is in the account's currency.

    Attributes:
        orders: that were filled.
        initial: equity before the first date.
        equity: at each date's close, after its trades and their costs.
        cash: the part of it that is not in positions; negative where it is borrowed.
        costs: of each date's trades.
        financing: interest since the date before, earned (positive) or paid.
        turnover: traded value of each date in units of the equity before it, two-way.
        trade_rows: the `E` rows on which there are orders.
        units: held after the trades of each of them.
        proportional: the rate of the costs.
    """

    orders: Orders
    initial: float
    equity: Float64[np.ndarray, " T"]
    cash: Float64[np.ndarray, " T"]
    costs: Float64[np.ndarray, " T"]
    financing: Float64[np.ndarray, " T"]
    turnover: Float64[np.ndarray, " T"]
    trade_rows: Int[np.ndarray, " E"]
    units: Float64[np.ndarray, "E N"]
    proportional: float

    @property
    def dates(self) -> pd.DatetimeIndex:
        """The `T` dates."""
        return self.orders.dates

    @property
    def assets(self) -> tuple[str, ...]:
        """The `N` names."""
        return self.orders.assets

    @property
    def returns(self) -> Float64[np.ndarray, " T"]:
        """From close to close, net of costs and financing, in decimals."""
        return self.equity / np.concatenate([[self.initial], self.equity[:-1]]) - 1

    @property
    def weights(self) -> Float64[np.ndarray, "T N"]:
        """Of each position at each date's close, after its trades, in units of the equity then."""
        last = self.trade_rows.searchsorted(np.arange(len(self.equity)), side="right")
        held = np.concatenate([np.zeros((1, len(self.assets))), self.units])[last]
        return np.where(held == 0, 0.0, held * self.orders.closes) / self.equity[:, None]

    def to_frame(self) -> pd.DataFrame:
        """Equity, return, cash, costs, financing and turnover of each date."""
        names = ("equity", "returns", "cash", "costs", "financing", "turnover")
        return pd.DataFrame({name: getattr(self, name) for name in names}, index=self.dates)

    def weights_frame(self) -> pd.DataFrame:
        """Weights at each date's close, a column for each asset."""
        return pd.DataFrame(self.weights, self.dates, pd.Index(self.assets, name="asset"))

    def units_frame(self) -> pd.DataFrame:
        """Units after each date with orders, a column for each asset."""
        return pd.DataFrame(self.units, self.dates[self.trade_rows], pd.Index(self.assets, name="asset"))

    def trades_frame(self) -> pd.DataFrame:
        """One row per trade: date, asset, units bought (positive) or sold, price, cost."""
        traded = np.diff(self.units, axis=0, prepend=0.0)
        at, n = np.nonzero(traded)
        row, units = self.trade_rows[at], traded[at, n]
        price = self.orders.prices[row, n]
        return pd.DataFrame(
            {
                "date": self.dates[row],
                "asset": pd.array(self.assets, dtype="str").take(n),
                "units": units,
                "price": price,
                "cost": self.proportional * np.abs(units) * price,
            }
        )

    def __repr__(self) -> str:
        return (
            f"Account({counted(len(self.dates), 'date')} {span(self.dates)}, {counted(len(self.assets), 'asset')}; "
            f"equity {self.initial:g} to {self.equity[-1]:.6g}, costs {self.costs.sum():.3g}, "
            f"{counted(len(self.trade_rows), 'date')} with orders)"
        )

    def _repr_html_(self) -> str:
        from qtorch.backtest.cards import account_card

        return account_card(self)
