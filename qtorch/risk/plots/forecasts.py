"""Pictures of forecasts beside what came."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from qtorch.risk.backtests import basel
from qtorch.risk.plots.style import AMBER, BANDS, DOT, GRID, INK, RED, ZONES, date_axis, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def fan_chart(
    ax: "Axes",
    dates: pd.DatetimeIndex,
    quantiles: np.ndarray,
    outcomes: np.ndarray,
    probabilities: Sequence[float] = (0.01, 0.05, 0.25, 0.75, 0.95, 0.99),
) -> None:
    """Outcomes over the bands that were forecast for them, those below the lowest band in red, the next in amber.

    The number beyond the inner value at risk counts those beyond the outer too.

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
    outer, inner = (f"{1 - p:.0%}" for p in probabilities[:2])
    label = f"beyond {inner} VaR: {int(bad.sum() + worst.sum())}"
    ax.plot(x[bad], outcomes[bad], "o", color=AMBER, markersize=5, zorder=4, label=label)
    label = f"of these beyond {outer}: {int(worst.sum())}"
    ax.plot(x[worst], outcomes[worst], "o", color=RED, markersize=5, zorder=4, label=label)
    ax.axhline(0, color=INK, linewidth=0.6, alpha=0.5)
    tidy(ax)
    date_axis(ax)


def exceedance_chart(
    ax: "Axes",
    dates: pd.DatetimeIndex,
    returns: np.ndarray,
    value_at_risk: np.ndarray,
    level: float = 0.99,
    window: int = 250,
) -> None:
    """Returns over the value at risk that was forecast for them, exceedances in red, and Basel's zone below.

    The strip at the bottom is the zone of the number of exceedances among the last `window` days that count: yellow
    from the number that has a binomial probability of 95 % not to be surpassed, red from that of 99.99 %; grey while
    there are fewer days.

    Args:
        ax: axes to draw on.
        dates: of the returns, `[T]`.
        returns: in decimals, `[T]`, NaN where none.
        value_at_risk: positive losses forecast for those returns, `[T]`, NaN where none.
        level: confidence of the value at risk.
        window: days that the zone counts.

    References:
        Basel Committee on Banking Supervision (2019), MAR99.12 to MAR99.19.
    """
    from matplotlib.ticker import PercentFormatter

    there, exceeded = hits(returns, value_at_risk)
    x, y, var = dates.to_numpy()[there], returns[there], value_at_risk[there]
    quiet = ~exceeded
    share = f"{exceeded.sum()} exceedances, {(1 - level) * len(y):.1f} expected"
    ax.vlines(x[quiet], 0, y[quiet], color=BANDS[2], linewidth=0.7, zorder=2)
    ax.vlines(x[exceeded], 0, y[exceeded], color=RED, linewidth=0.7, zorder=3)
    ax.plot(x, -var, color=INK, linewidth=1.1, drawstyle="steps-mid", zorder=4, label=f"VaR at {100 * level:.4g} %")
    ax.plot(x[exceeded], y[exceeded], "o", color=RED, markersize=4.5, zorder=5, label=share)
    ax.axhline(0, color=INK, linewidth=0.6, alpha=0.5)
    _zone_strip(ax, x, exceeded, 1 - level, window)
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.set_ylabel("return", color=INK)
    tidy(ax)
    date_axis(ax)


def hits(returns: np.ndarray, value_at_risk: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which days count, `[T]`, and whether each of those was an exceedance."""
    there = np.isfinite(returns) & np.isfinite(value_at_risk)
    return there, returns[there] <= -value_at_risk[there]


def rolling_count(exceeded: np.ndarray, window: int) -> np.ndarray:
    """Exceedances among the last `window` days; of all days so far while there are fewer."""
    total = np.cumsum(exceeded)
    before = np.concatenate([np.zeros(min(window, len(total)), dtype=total.dtype), total[:-window]])
    return total - before


def _zone_strip(ax: "Axes", x: np.ndarray, exceeded: np.ndarray, probability: float, window: int) -> None:
    """Coloured runs of days in one zone, in a strip that the data is kept above."""
    from matplotlib.dates import date2num
    from scipy.stats import binom

    if not len(x):
        return
    yellow, red = (float(binom.ppf(p, window, probability)) for p in (basel.YELLOW, basel.RED))
    count = rolling_count(exceeded, window)
    zone = (count >= yellow).astype(int) + (count >= red)
    zone[: window - 1] = -1
    change = np.flatnonzero(np.diff(zone)) + 1
    first, last = np.concatenate([[0], change]), np.concatenate([change, [len(x)]])
    day = date2num(x)
    edge = np.concatenate([day, [day[-1] + 1]])
    names = [*(f"{name} zone" for name in basel.ZONES), f"fewer than {window} days"]
    for z in (0, 1, 2, -1):
        runs = [(edge[a], edge[b] - edge[a]) for a, b in zip(first, last, strict=True) if zone[a] == z]
        if runs:
            color = ZONES[z] if z >= 0 else GRID
            strip = ax.broken_barh(runs, (0.0, 0.035), transform=ax.get_xaxis_transform(), color=color, zorder=6)
            strip.set_label(names[z])
    low, high = ax.get_ylim()
    ax.set_ylim(low - 0.06 * (high - low), high)
