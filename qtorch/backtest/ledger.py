"""Plain accounting of orders: units, cash, costs and interest, in money."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float64

from qtorch.backtest.account import Account
from qtorch.backtest.orders import Orders
from qtorch.data import DataError
from qtorch.distributions.checks import require
from qtorch.portfolio import Costs


@dataclass(frozen=True)
class Ledger:
    """How an account trades: what it begins with and pays.

    A target w becomes w E / p units: of the equity E at the fill and the price p there, or, with sizing ``"known"``, of
    the last close's. Units are held until the next order, so that weights drift; they need not sum to 1, and may be
    negative. Costs are proportional to the traded value and paid from cash, at once. From each close to the next, what
    of the equity is not in positions, E - sum |position|, earns the rate of cash, and what is missing pays that of
    financing.

    Attributes:
        costs: rates; square-root impact is not possible here.
        cash: equity before the first date.

    Raises:
        ValueError: costs with impact, or cash that is not above 0.

    Example:
        >>> import pandas as pd
        >>> from qtorch.backtest import Signals
        >>> from qtorch.data import Panel, load_sample
        >>> panel = Panel.from_frame(load_sample().query("asset in ['AAPL', 'KO'] and date > '2020'"))
        >>> half = pd.DataFrame(0.5, panel.dates[::21], panel.assets)
        >>> signals = Signals.from_panel(panel, half, fill="next_close")
        >>> account = Ledger(Costs(proportional=0.001)).run(signals.orders(panel))
        >>> account
        Account(754 dates 2020-01-02..2022-12-28, 2 assets; equity 1 to 1.53861, costs 0.00268, 36 dates with orders)
        >>> account.trades_frame()[["asset", "units", "cost"]].head(2).round(4)
          asset   units    cost
        0  AAPL  0.0069  0.0005
        1    KO  0.0102  0.0005
    """

    costs: Costs = Costs()
    cash: float = 1.0

    def __post_init__(self) -> None:
        """Checks the settings."""
        require(not self.costs.impact, "costs.impact", self.costs.impact, "only proportional and financing costs here")
        require(self.cash > 0, "cash", self.cash, "give the equity to begin with, above 0")

    def run(self, orders: Orders) -> Account:
        """Fills the orders.

        Raises:
            DataError: the equity is lost; the message names the date.
        """
        T, N = orders.targets.shape
        events = np.flatnonzero([(~np.isnan(row)).any() for row in orders.targets])
        equity, cash, interest, spent, turnover = (np.zeros(T) for _ in range(5))
        units = np.zeros((len(events), N))
        held, money = np.zeros(N), self.cash
        first = int(events[0]) if len(events) else T
        money = self._hold(orders, slice(0, first), held, money, equity, cash, interest)
        for k, (t, stop) in enumerate(pairwise([*events.tolist(), T])):
            phase_row = t - 1 if orders.phase == "open" else t
            mark = _valued(orders.closes[phase_row]) if phase_row >= 0 else np.zeros(N)
            price = orders.prices[t]
            if orders.phase == "open":
                mark = np.where(np.isnan(price), mark, price)
            worth = money + float(mark @ held)
            if not worth > 0:
                raise _lost(orders, t, worth)
            n = np.flatnonzero(~np.isnan(orders.targets[t]))
            wanted = self._units(orders, t, n, worth, equity)
            trade = wanted - held[n]
            value = float(np.abs(trade) @ price[n])
            spent[t], turnover[t] = self.costs.proportional * value, value / worth
            money -= float(trade @ price[n]) + spent[t]
            held = held.copy()
            held[n] = wanted
            units[k] = held
            money = self._hold(orders, slice(t, stop), held, money, equity, cash, interest)
        return Account(
            orders, self.cash, equity, cash, spent, interest, turnover, events, units, self.costs.proportional
        )

    def _units(
        self, orders: Orders, t: int, n: np.ndarray, worth: float, equity: np.ndarray
    ) -> Float64[np.ndarray, " n"]:
        """What the targets are in units."""
        target = orders.targets[t, n]
        if orders.sizing == "fill":
            return target * worth / orders.prices[t, n]
        if not t:  # nothing but closing orders, of nothing
            return np.zeros(len(n))
        return np.divide(target * equity[t - 1], orders.closes[t - 1, n], out=np.zeros(len(n)), where=target != 0)

    def _hold(
        self,
        orders: Orders,
        rows: slice,
        held: np.ndarray,
        money: float,
        equity: np.ndarray,
        cash: np.ndarray,
        interest: np.ndarray,
    ) -> float:
        """Values units that stay at the closes of rows, and gives the cash at the start of the row after them."""
        closes = _valued(orders.closes[rows])
        net, short = (closes @ np.stack([held, np.minimum(held, 0.0)], axis=1)).T
        for t, value, below in zip(range(rows.start, rows.stop), net.tolist(), short.tolist(), strict=True):
            cash[t], equity[t] = money, money + value
            if not equity[t] > 0:
                raise _lost(orders, t, equity[t])
            spare = money + 2 * below  # equity less the size of all positions
            earned = spare * (self.costs.cash if spare > 0 else self.costs.financing)
            if t + 1 < len(interest):
                interest[t + 1] = earned
            money += earned
        return money


def _valued(closes: np.ndarray) -> np.ndarray:
    """Closes that can be multiplied: nothing is held of what has none yet."""
    return np.where(np.isnan(closes), 0.0, closes)


def _lost(orders: Orders, t: int, equity: float) -> DataError:
    return DataError(
        f"{orders.dates[t]:%Y-%m-%d}: the equity is {equity:g}, all is lost. Lower the leverage, or check the prices "
        "of that date."
    )
