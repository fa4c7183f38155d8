"""Allocators without an optimiser: equal weights, and weights by the inverse of volatility."""

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from qtorch.backtest.universe import around_closed, listed_assets
from qtorch.data import DataError, Panel
from qtorch.data.errors import listing
from qtorch.distributions.checks import require


@dataclass(frozen=True)
class EqualWeight:
    """The same weight for each asset of the universe.

    Attributes:
        history: rows since the first price before an asset is held.
    """

    history: int = 0

    def __call__(self, panel: Panel, row: int, holdings: Float64[Tensor, " N"]) -> Float64[Tensor, " N"]:
        """Weights on the panel's last row; those of closed assets are their holdings, see `around_closed`."""
        universe = listed_assets(panel, self.history)
        return around_closed(universe.double() / universe.sum(), universe, panel, holdings)


@dataclass(frozen=True)
class InverseVolatility:
    """Weights proportional to one over the standard deviation of past returns.

    Attributes:
        lookback: rows of returns; an asset is held from as many after its first price.
    """

    lookback: int = 756

    def __post_init__(self) -> None:
        """Checks the settings."""
        require(self.lookback >= 2, "lookback", self.lookback, "give a number of rows of at least 2")

    def __call__(self, panel: Panel, row: int, holdings: Float64[Tensor, " N"]) -> Float64[Tensor, " N"]:
        """Weights on the panel's last row; those of closed assets are their holdings, see `around_closed`.

        An asset whose price has not moved over the lookback has no volatility to speak of, and is given none.

        Raises:
            DataError: no asset's returns vary, or none is listed.
        """
        universe = listed_assets(panel, self.lookback)
        returns = panel.returns()[-self.lookback :]
        there = returns.isfinite()
        count = there.sum(0)
        centred = torch.where(there, returns - returns.nanmean(0), 0.0)
        variance = (centred**2).sum(0) / (count - 1).clamp(min=1)
        inverse = torch.where(universe & (variance > 0), variance.rsqrt(), 0.0)
        if not inverse.any():
            raise DataError(
                f"{panel.dates[-1]:%Y-%m-%d}: the returns of no asset vary over the last {self.lookback} rows: "
                f"{listing(asset for asset, there in zip(panel.assets, universe.tolist(), strict=True) if there)}. "
                "Look at their prices, or begin later."
            )
        return around_closed(inverse / inverse.sum(), universe, panel, holdings)
