"""Pictures of two forecasts' losses."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from qtorch.risk.backtests.series import automatic_lags, bartlett
from qtorch.risk.plots.style import BANDS, INK, LINE, date_axis, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def loss_difference(
    ax: "Axes",
    dates: pd.DatetimeIndex,
    difference: np.ndarray,
    window: int | None = None,
    confidence: float = 0.95,
    lags: int | None = None,
    names: tuple[str, str] = ("first", "second"),
) -> None:
    """Mean difference of two forecasts' losses up to each day, or over a window, with its confidence band.

    The band is what a test on that day would have given: normal, with the long-run variance of Newey and West of the
    days that the mean is over. It holds for each day by itself. Where it is clear of zero one forecast was the better.

    Args:
        ax: axes to draw on.
        dates: of the losses, `[T]`.
        difference: loss of the first forecast minus that of the second, `[T]`, NaN where none.
        window: days of a rolling mean; all days so far by default.
        confidence: of the band.
        lags: of the long-run variance; floor(4 (n / 100)^(2/9)) by default.
        names: of the two forecasts.

    References:
        Newey and West (1987), A simple, positive semi-definite, heteroskedasticity and autocorrelation consistent
        covariance matrix, Econometrica 55; (1994) for the lags.
    """
    from scipy.stats import norm

    there = np.isfinite(difference)
    mean, error = running_mean(difference[there], window, lags)
    half = norm.ppf((1 + confidence) / 2) * error
    x = dates.to_numpy()[there][int(there.sum()) - len(mean) :]
    what = "mean so far" if window is None else f"mean of {window} days"
    ax.fill_between(x, mean - half, mean + half, color=BANDS[0], linewidth=0, label=f"{confidence:.0%} band")
    ax.plot(x, mean, color=LINE, linewidth=1.5, label=what)
    ax.axhline(0, color=INK, linewidth=0.8)
    if len(mean):
        # The first days' means say little and would set the scale.
        late = slice(len(mean) // 10, None)
        low, high = min(0.0, (mean - half)[late].min()), max(0.0, (mean + half)[late].max())
        ax.set_ylim(low - 0.06 * (high - low), high + 0.06 * (high - low))
    for y, better, side in ((0.97, names[1], "top"), (0.03, names[0], "bottom")):
        ax.text(0.995, y, f"{better} better", transform=ax.transAxes, ha="right", va=side, color=INK, alpha=0.7)
    ax.set_ylabel("loss difference", color=INK)
    tidy(ax)
    date_axis(ax)


def running_mean(d: np.ndarray, window: int | None = None, lags: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Means of all days so far, or of each `window` days, and their standard errors by Newey and West.

    Running sums of products give every day's autocovariances at once, in time proportional to the days.
    """
    x = torch.as_tensor(d, dtype=torch.float64)
    end = torch.arange(1, len(x) + 1)[0 if window is None else window - 1 :]
    start = torch.zeros_like(end) if window is None else end - window
    n = (end - start).double()
    total = _running_sum(x, 1)
    mean = (total[end] - total[start]) / n
    used = automatic_lags(n) if lags is None else torch.full_like(n, lags)
    variance = torch.zeros_like(n)
    for k in range(min(int(used.max()) if len(n) else 0, len(x) - 1) + 1):
        product = _running_sum(x[k:] * x[: len(x) - k], k + 1)
        first = torch.minimum(start + k, end)  # the later of a pair runs from here to the end
        ends = total[end] - total[first] + total[end - (first - start)] - total[start]
        pairs = n - (first - start)
        covariance = (product[end] - product[first] - mean * ends + pairs * mean**2) / n
        variance += (1.0 if k == 0 else 2.0) * bartlett(k, used) * covariance
    return mean.numpy(), (variance.clamp(min=0) / n).sqrt().numpy()


def _running_sum(x: torch.Tensor, zeros: int) -> torch.Tensor:
    return torch.cat([x.new_zeros(zeros), x.cumsum(0)])
