"""What forecasts are sorted by: regimes of volatility and lengths of history, as they were known at the time."""

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from qtorch.distributions.checks import require


def volatility_regimes(
    volatility: Float[Tensor, "T *series"], groups: int = 3, minimum: int = 60
) -> Int64[Tensor, "T *series"]:
    """Where each forecast volatility stands among the series' own up to that date: 0 the calmest group, -1 where none.

    Nothing later is used, so that a date's group is known at its as-of date: the groups of a series whose volatility
    rises are not of the same size.

    Args:
        volatility: forecast at each as-of date, NaN where none.
        groups: how many, 3 for terciles.
        minimum: volatilities that a series needs before it is sorted.

    Raises:
        ValueError: there are fewer than two groups, or the minimum is below their number.

    Example:
        >>> volatility_regimes(torch.tensor([1.0, 2.0, 3.0, torch.nan, 0.5, 1.5]), minimum=3).tolist()
        [-1, -1, 2, -1, 0, 1]
    """
    require(groups >= 2, "groups", groups, "give at least two")
    require(minimum >= groups, "minimum", minimum, f"give at least {groups}, one for each group")
    columns = volatility.detach().double().cpu().reshape(len(volatility), -1).numpy()
    share = pd.DataFrame(columns).expanding(min_periods=minimum).rank(pct=True).to_numpy()
    there = np.isfinite(share) & np.isfinite(columns)
    # Rounded, because 2 / 3 of a rank times 3 may come out above 2.
    place = np.where(there, np.ceil(np.round(groups * np.where(there, share, 1.0), 9)) - 1, -1).astype(np.int64)
    return torch.from_numpy(place).reshape(volatility.shape).to(volatility.device)


def history_length(observed: Bool[Tensor, "T *series"]) -> Int64[Tensor, "T *series"]:
    """Sessions of a series up to and with each date, from its first.

    Args:
        observed: where the series has a price, such as `Panel.mask`.
    """
    return observed.long().cumsum(0)
