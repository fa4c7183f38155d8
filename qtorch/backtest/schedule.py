"""On which rows of a panel a portfolio is rebalanced, or a model fit again."""

from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Int64

from qtorch.distributions.checks import require

Rebalance = Literal["year", "quarter", "month", "week"] | int

_PERIODS = {"year": "Y", "quarter": "Q", "month": "M", "week": "W-SUN"}


def rebalance_rows(dates: pd.DatetimeIndex, rebalance: Rebalance, first: int, last: int) -> Int64[np.ndarray, " R"]:
    """Rows at whose close there is trading, so that the sessions after `first` up to `last` are covered.

    Args:
        dates: of the panel.
        rebalance: ``"year"``, ``"quarter"``, ``"month"`` or ``"week"``, at the last row of each (a week ends on
            Sunday); or every so many rows.
        first: the row of the first trades, whatever the schedule.
        last: the last row of the test, on which nothing is traded, since nothing is earned after it.

    Raises:
        ValueError: another schedule.

    Example:
        >>> dates = pd.bdate_range("2024-01-29", "2024-02-09")
        >>> rebalance_rows(dates, "month", 0, 9), rebalance_rows(dates, "week", 0, 9), rebalance_rows(dates, 4, 0, 9)
        (array([0, 2]), array([0, 4]), array([0, 4, 8]))
    """
    words = ", ".join(map(repr, _PERIODS))
    require(not isinstance(rebalance, bool), "rebalance", rebalance, f"give {words} or a number of rows")
    if isinstance(rebalance, int):
        require(rebalance >= 1, "rebalance", rebalance, "give a number of rows of at least 1")
        return np.arange(first, last, rebalance)
    require(rebalance in _PERIODS, "rebalance", rebalance, f"give {words} or a number of rows")
    period = np.asarray(dates.to_period(_PERIODS[rebalance]).asi8)
    rows = np.arange(first, last)
    return rows[(rows == first) | (period[rows] != period[rows + 1])]
