"""Pictures of a track."""

from typing import TYPE_CHECKING

import numpy as np

from qtorch.risk.plots.style import GRID, LINE, date_axis, legend_above, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from qtorch.backtest.track import Track


def weights_chart(ax: "Axes", track: "Track", most: int = 8) -> None:
    """Stacked long weights over time: the largest on average by name, then all others.

    Args:
        ax: axes to draw on.
        track: of a run. Short weights are left out.
        most: assets that are named.
    """
    frame = track.weights_frame().clip(lower=0.0)
    order = frame.mean().sort_values(ascending=False).index
    named = frame[order[:most]]
    layers, labels = [named[name].to_numpy() for name in named], [str(name) for name in named]
    if len(order) > most:
        layers.append(frame[order[most:]].sum(axis=1).to_numpy())
        labels.append(f"{len(order) - most} others")
    colours = [*("#2b6cb0", "#e08a00", "#7cc5b0", "#c81e3a", "#7fabd6", "#8a6bb0", "#f2b632", "#3c4a5a")] * 4
    colours = [*colours[: len(named.columns)], GRID]
    ax.stackplot(frame.index.to_numpy(), np.stack(layers), labels=labels, colors=colours, linewidth=0)
    ax.set_ylim(0.0, max(1.0, float(frame.sum(axis=1).max())))
    tidy(ax)
    date_axis(ax)
    legend_above(ax, columns=min(len(labels), 5), title="weights")


def drawdown_chart(ax: "Axes", track: "Track") -> None:
    """How far wealth is below its peak, the start included.

    Args:
        ax: axes to draw on.
        track: of a run.
    """
    wealth = track.wealth.cpu().numpy()
    fall = wealth / np.maximum(np.maximum.accumulate(wealth), 1.0) - 1
    ax.fill_between(track.dates.to_numpy(), fall, 0.0, color=LINE, alpha=0.3, linewidth=0)
    ax.plot(track.dates.to_numpy(), fall, color=LINE, linewidth=0.8)
    tidy(ax)
    date_axis(ax)
