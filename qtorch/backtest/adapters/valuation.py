"""Prices by which a harness values positions and sizes orders."""

import numpy as np
from jaxtyping import Float64

from qtorch.backtest.orders import Orders


def fill_values(orders: Orders) -> Float64[np.ndarray, "T N"]:
    """What a unit is worth as a date's orders fill: its price then, or the last close; NaN before an asset's first."""
    last = orders.closes if orders.phase == "close" else _before(orders)
    return np.where(np.isnan(orders.prices), last, orders.prices)


def sizing_values(orders: Orders) -> Float64[np.ndarray, "T N"]:
    """What a unit counts for in turning weights into units: of the fill, or with sizing ``"known"`` the last close.

    An asset without one can't be held or ordered by it, and counts for its value at the fill.
    """
    if orders.sizing == "fill":
        return fill_values(orders)
    before = _before(orders)
    return np.where(np.isnan(before), fill_values(orders), before)


def _before(orders: Orders) -> Float64[np.ndarray, "T N"]:
    return np.vstack([np.full((1, len(orders.assets)), np.nan), orders.closes[:-1]])
