"""Pictures of calibration: whether probabilities that were forecast are the frequencies that came."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from qtorch.risk.plots.forecasts import hits, rolling_count
from qtorch.risk.plots.style import BANDS, INK, LINE, RED, date_axis, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def pit_histogram(ax: "Axes", transforms: np.ndarray, bins: int = 20, confidence: float = 0.95) -> None:
    """Histogram of probability integral transforms with the band that uniform ones stay in.

    The band is the binomial's for each bar by itself, and takes the transforms for independent; those of one day are
    not, so that real forecasts leave it somewhat more often.

    Args:
        ax: axes to draw on.
        transforms: any shape, NaN where none.
        bins: how many bars.
        confidence: of the band.
    """
    from scipy.stats import binom

    u = transforms[np.isfinite(transforms)]
    count, edges = np.histogram(u, bins=bins, range=(0, 1))
    low, high = binom.interval(confidence, max(len(u), 1), 1 / bins)
    scale = bins / max(len(u), 1)
    ax.axhspan(low * scale, high * scale, color=BANDS[0], zorder=0, label=f"{confidence:.0%} band if uniform")
    ax.bar(edges[:-1], count * scale, width=1 / bins, align="edge", color=BANDS[2], edgecolor="white", linewidth=0.6)
    ax.axhline(1, color=INK, linewidth=0.8)
    ax.set_xlim(0, 1)
    ax.set_ylim(bottom=0)
    ax.set_xlabel("probability forecast for at most the outcome", color=INK)
    ax.set_ylabel("frequency, 1 if right", color=INK)
    tidy(ax)


def reliability_curve(ax: "Axes", transforms: np.ndarray, confidence: float = 0.95) -> None:
    """Share of outcomes below their quantile against the quantile's probability: the diagonal if the forecast is right.

    The inner band is the binomial's for each probability by itself, the outer Kolmogorov's, which uniform transforms
    leave nowhere with the given confidence. Both take the transforms for independent; those of one day are not.

    Args:
        ax: axes to draw on.
        transforms: probability integral transforms, any shape, NaN where none.
        confidence: of the bands.
    """
    from matplotlib.ticker import PercentFormatter
    from scipy.stats import binom, kstwo

    u = np.sort(transforms[np.isfinite(transforms)])
    n = max(len(u), 1)
    p = np.linspace(0, 1, 201)
    reach = kstwo.ppf(confidence, n)
    low, high = binom.interval(confidence, n, p[1:-1])
    simultaneous, single = f"{confidence:.0%} band, whole curve", f"{confidence:.0%} band, each point"
    ax.fill_between(p, np.clip(p - reach, 0, 1), np.clip(p + reach, 0, 1), color=BANDS[0], lw=0, label=simultaneous)
    ax.fill_between(p[1:-1], low / n, high / n, color=BANDS[1], linewidth=0, label=single)
    ax.plot([0, 1], [0, 1], color=INK, linewidth=0.8)
    at, share = np.concatenate([[0], u, [1]]), np.concatenate([[0], np.arange(1, len(u) + 1) / n, [1]])
    if len(u):
        ax.plot(at, share, color=LINE, linewidth=1.6, drawstyle="steps-post", label=f"observed, n = {len(u):,}")
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
    ax.set_aspect("equal")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    ax.set_xlabel("probability of the quantile", color=INK)
    ax.set_ylabel("outcomes below it", color=INK)
    tidy(ax)


def rolling_coverage(
    ax: "Axes",
    dates: pd.DatetimeIndex,
    returns: np.ndarray,
    value_at_risk: np.ndarray,
    level: float = 0.99,
    window: int = 250,
    confidence: float = 0.95,
) -> None:
    """Share of exceedances among the last `window` days, in red where it leaves the binomial's band.

    The band holds for each day by itself; a right forecast is outside it at times.

    Args:
        ax: axes to draw on.
        dates: of the returns, `[T]`.
        returns: in decimals, `[T]`, NaN where none.
        value_at_risk: positive losses forecast for those returns, `[T]`, NaN where none.
        level: confidence of the value at risk.
        window: days that count; nothing is drawn before there are as many.
        confidence: of the band.
    """
    from matplotlib.ticker import PercentFormatter
    from scipy.stats import binom

    there, exceeded = hits(returns, value_at_risk)
    x = dates.to_numpy()[there][window - 1 :]
    rate = rolling_count(exceeded, window)[window - 1 :] / window
    low, high = np.array(binom.interval(confidence, window, 1 - level)) / window
    ax.axhspan(low, high, color=BANDS[0], zorder=0, label=f"{confidence:.0%} band if right")
    ax.axhline(1 - level, color=INK, linewidth=0.8, label=f"expected, {100 * (1 - level):.3g} %")
    ax.plot(x, rate, color=LINE, linewidth=1.4, drawstyle="steps-post", label=f"exceedances, last {window} days")
    outside = np.where((rate < low) | (rate > high), rate, np.nan)
    if np.isfinite(outside).any():
        ax.plot(x, outside, color=RED, linewidth=1.8, drawstyle="steps-post", label="outside the band")
    ax.set_ylim(bottom=0, top=1.15 * max(high, rate.max(initial=0.0)))
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
    ax.set_ylabel("share of days", color=INK)
    tidy(ax)
    date_axis(ax)
