"""Pictures of risk forecasts; each function draws on the matplotlib axes that it is given."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, GRID = "#1d2733", "#d9dfe6"
BANDS = ("#dbe7f3", "#b5cfe8", "#7fabd6")
DOT, AMBER, RED = "#3c4a5a", "#e08a00", "#c81e3a"


def fan_chart(
    ax: "Axes",
    dates: pd.DatetimeIndex,
    quantiles: np.ndarray,
    outcomes: np.ndarray,
    probabilities: Sequence[float] = (0.01, 0.05, 0.25, 0.75, 0.95, 0.99),
) -> None:
    """Outcomes over the bands that were forecast for them, those below the lowest band in red, the next in amber.

    Args:
        ax: axes to draw on.
        dates: of the outcomes, `[T]`.
        quantiles: of the forecasts at `probabilities`, `[T, Q]`; Q even, the pairs from outside in.
        outcomes: returns or profits, `[T]`, NaN where none.
        probabilities: left-tail masses of the quantiles, ascending.
    """
    x = dates.to_numpy()
    pairs = len(probabilities) // 2
    for i, color in zip(range(pairs), BANDS, strict=False):
        label = f"{probabilities[-1 - i] - probabilities[i]:.0%} band"
        ax.fill_between(x, quantiles[:, i], quantiles[:, -1 - i], color=color, linewidth=0, label=label)
    with np.errstate(invalid="ignore"):
        worst = outcomes < quantiles[:, 0]
        bad = (outcomes < quantiles[:, 1]) & ~worst
    there = ~np.isnan(outcomes)
    ax.plot(x[there & ~bad & ~worst], outcomes[there & ~bad & ~worst], ".", color=DOT, markersize=3.5, zorder=3)
    for chosen, color, level in ((bad, AMBER, 1 - probabilities[1]), (worst, RED, 1 - probabilities[0])):
        label = f"beyond {level:.0%} VaR: {int(chosen.sum())}"
        ax.plot(x[chosen], outcomes[chosen], "o", color=color, markersize=5, zorder=4, label=label)
    ax.axhline(0, color=INK, linewidth=0.6, alpha=0.5)
    _tidy(ax)


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
    _tidy(ax)


def _tidy(ax: "Axes") -> None:
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.spines["bottom"].set_color(GRID)
    ax.grid(axis="y", color=GRID, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.tick_params(length=0, colors=INK)
