"""What came of forecasts, from closing prices alone."""

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from qtorch.data import Panel


def realised(
    panel: Panel, rows: Int64[np.ndarray, " D"], horizons: tuple[int, ...], there: Bool[Tensor, "D N"]
) -> tuple[Float32[Tensor, "D H N"], Int64[Tensor, "D H N"]]:
    """What came of forecasts made at some rows of the panel, as of `qtorch.data.windows.outcomes`.

    A forecast at a row on which an asset is not observed repeats that of its last session; its outcome is left out, so
    that each session counts once.

    Args:
        panel: the market.
        rows: rows of the panel, in a row.
        horizons: in the asset's own sessions.
        there: where there is a forecast.

    Returns:
        Returns over the horizons, NaN where not known or left out, and the rows of the panel at which they are known,
        `T` there.
    """
    first, T = int(rows[0]), len(panel.dates)
    observed = panel.mask[first:]
    position = observed.cumsum(0) - 1  # of each own session among the asset's since the first row
    place = torch.where(observed, position, len(observed))
    close = torch.full((len(observed) + 1, observed.shape[1]), torch.nan, dtype=torch.float64, device=observed.device)
    close.scatter_(0, place, panel.close[first:])
    row = torch.full(close.shape, T, device=observed.device)
    row.scatter_(0, place, torch.arange(first, T, device=observed.device).unsqueeze(1).expand(observed.shape))
    close[-1], row[-1] = torch.nan, T  # whatever was not observed was put there
    own = position[: len(rows)].clamp(min=0)
    counted = there & observed[: len(rows)]
    returns, known = [], []
    for horizon in horizons:
        end = (own + horizon).clamp(max=len(observed))
        ratio = (close.gather(0, end) / close.gather(0, own) - 1).float()
        done = counted & ratio.isfinite()
        returns.append(torch.where(done, ratio, torch.nan))
        known.append(torch.where(done, row.gather(0, end), T))
    return torch.stack(returns, dim=1), torch.stack(known, dim=1)
