"""What a walk-forward run leaves behind."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import pandas as pd
from jaxtyping import Float64, Int64
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False)
class Track:
    """A portfolio's record, session by session, and its trades; returns in decimals.

    Attributes:
        dates: the `T` sessions.
        assets: the `N` names.
        net: returns after costs.
        weights: held over each session's return, after the trades at the close before it.
        turnover: sum |trade| before each session, two-way.
        costs: of trading before each session, in units of the equity.
        final: weights after the last session's drift.
        trade_dates: the `R` closes at which there was trading.
        trade_rows: the place among `dates` of the first session after each of them.
        trades: bought (positive) and sold, in units of the equity.
        decisions: which of the trades an allocator decided; the others sold what was delisted.
        excess: by the name of a constraint, by how much each rebalance's weights break it; see `violations`.
    """

    dates: pd.DatetimeIndex
    assets: tuple[str, ...]
    net: Float64[Tensor, " T"]
    weights: Float64[Tensor, "T N"]
    turnover: Float64[Tensor, " T"]
    costs: Float64[Tensor, " T"]
    final: Float64[Tensor, " N"]
    trade_dates: pd.DatetimeIndex
    trade_rows: Int64[Tensor, " R"]
    trades: Float64[Tensor, "R N"]
    decisions: tuple[bool, ...]
    excess: Mapping[str, Float64[Tensor, " R"]]

    @property
    def gross(self) -> Float64[Tensor, " T"]:
        """Returns with the session's costs of trading added back."""
        return self.net + self.costs

    @cached_property
    def wealth(self) -> Float64[Tensor, " T"]:
        """Value of 1 invested before the first session, net of costs."""
        return (1 + self.net).cumprod(0)

    def violations(self, tolerance: float = 1e-6) -> pd.DataFrame:
        """The rebalances that break a constraint: one row each, by how much each is broken.

        Args:
            tolerance: of rounding, in units of the equity.
        """
        frame = pd.DataFrame({name: each.cpu().numpy() for name, each in self.excess.items()}, index=self.trade_dates)
        return frame[(frame > tolerance).any(axis=1)]

    def to_frame(self) -> pd.DataFrame:
        """Net and gross return, costs, two-way turnover and wealth of each session."""
        columns = {name: getattr(self, name) for name in ("net", "gross", "costs", "turnover", "wealth")}
        return pd.DataFrame({name: column.cpu().numpy() for name, column in columns.items()}, index=self.dates)

    def weights_frame(self) -> pd.DataFrame:
        """Weights held over each session, a column for each asset."""
        return pd.DataFrame(self.weights.cpu().numpy(), self.dates, pd.Index(self.assets, name="asset"))

    def trades_frame(self, least: float = 1e-8) -> pd.DataFrame:
        """One row per trade: date of the close, asset, and what was bought (positive) or sold.

        Args:
            least: size of a trade that is listed, in units of the equity.
        """
        at, which = (self.trades.abs() > least).cpu().nonzero(as_tuple=True)
        size = self.trades.cpu()[at, which].numpy()
        names = pd.array([self.assets[i] for i in which.tolist()], dtype="str")
        return pd.DataFrame({"date": self.trade_dates[at.numpy()], "asset": names, "trade": size})

    def plot_weights(self, ax: "Axes", most: int = 8) -> None:
        """Weights over time; see `qtorch.backtest.plots.weights_chart`."""
        from qtorch.backtest.plots import weights_chart

        weights_chart(ax, self, most)

    def plot_drawdown(self, ax: "Axes") -> None:
        """Fall from the peak over time; see `qtorch.backtest.plots.drawdown_chart`."""
        from qtorch.backtest.plots import drawdown_chart

        drawdown_chart(ax, self)
