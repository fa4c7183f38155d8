"""The colours of the pictures, and what all axes have in common."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, GRID = "#1d2733", "#d9dfe6"
BANDS = ("#dbe7f3", "#b5cfe8", "#7fabd6")
LINE, DOT, AMBER, RED = "#2b6cb0", "#3c4a5a", "#e08a00", "#c81e3a"
ZONES = ("#7cc5b0", "#f2b632", "#c81e3a")  # told apart without green, or without red, by lightness too


def tidy(ax: "Axes") -> None:
    """Light horizontal grid lines and no frame."""
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.spines["bottom"].set_color(GRID)
    ax.grid(axis="y", color=GRID, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.tick_params(length=0, pad=5, colors=INK)


def date_axis(ax: "Axes") -> None:
    """Few ticks with short dates."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=3, maxticks=9)
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def legend_above(ax: "Axes", columns: int = 3, title: str | None = None) -> None:
    """A legend above the axes, where it covers no data, and above that a title.

    Args:
        ax: axes with labelled artists.
        columns: of the legend.
        title: of the picture.
    """
    style = {"frameon": False, "borderaxespad": 0.0, "handlelength": 1.4, "columnspacing": 1.4, "labelcolor": INK}
    legend = ax.legend(
        loc="lower left", bbox_to_anchor=(0.0, 1.02), ncols=columns, title=title, alignment="left", **style
    )
    legend.get_title().set(color=INK, fontweight="bold")
