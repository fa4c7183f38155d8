"""Pictures of a panel; each function draws on the matplotlib axes that it is given."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from qtorch.data.panel import Panel
from qtorch.data.states import State

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, GRID, FADED = "#1d2733", "#d9dfe6", "#9aa5b1"
OBSERVED, CLOSED, UNLISTED = "#7fabd6", "#cfe0f0", "#f1f2f4"
MISSING, ALL_MISSING, STRAY = "#e23b57", "#8f0d24", "#e08a00"
DOT = 3.0  # pixels: a dot of one pixel would vanish when the picture is made smaller
ROOM = 11.0  # points of height that a name needs


def state_map(ax: "Axes", panel: Panel) -> None:
    """The state of every asset over time: blue where observed, pale where closed, red where missing.

    A dot stands for several days, and for several assets where there are more of them than dots. It is red if a
    single one of its cells is missing, the deeper the more are; amber if one holds a price on a closed day; otherwise
    its shade of blue tells the share of sessions. The horizontal coordinate is the panel's row, so that a row can be
    marked with ``ax.axvline(panel.row(date))``. Assets stand in the panel's order, exchange by exchange; they are
    named where there is room, with how many sessions each is missing.

    Args:
        ax: axes to draw on, at their final size: the dots are made to fit.
        panel: the market.
    """
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Patch

    order = np.argsort(pd.factorize(np.array(panel.exchanges))[0], kind="stable")
    state = panel.state.cpu().numpy()[:, order]
    stray = (state == State.OBSERVED) & ~panel.is_session.cpu().numpy()[:, order]
    T, N = state.shape
    ax.set(xlim=(-0.5, T - 0.5), ylim=(N - 0.5, -0.5))
    patches = [
        Patch(facecolor=OBSERVED, label="observed"),
        Patch(facecolor=CLOSED, label="closed"),
        Patch(facecolor=UNLISTED, label="not listed"),
        Patch(facecolor=MISSING, label=f"missing: {(state == State.MISSING).sum():,}"),
        Patch(facecolor=STRAY, label=f"price on a closed day: {stray.sum():,}"),
    ]
    handles = patches if stray.any() else patches[:-1]
    ax.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=5, frameon=False, labelcolor=INK,
              fontsize=9, borderaxespad=0.2, handlelength=1.2, handleheight=0.9, columnspacing=1.6)  # fmt: skip
    width, height = _points(ax)
    _dates(ax, panel.dates, width)
    _names(ax, panel, order, height / N)

    pixels = np.array(_points(ax)) * ax.figure.dpi / 72  # smaller than before, by what the labels take
    dots = [min(n, max(int(size / DOT), 1)) for n, size in zip((T, N), pixels, strict=True)]
    edges = [np.arange(m) * n // m for n, m in zip((T, N), dots, strict=True)]
    cells = np.outer(*(np.diff(edge, append=n) for edge, n in zip(edges, (T, N), strict=True)))
    missing = (_pool(state == State.MISSING, edges) / cells)[..., None]
    colours = {State.OBSERVED: OBSERVED, State.CLOSED: CLOSED, State.UNLISTED: UNLISTED}
    calm = sum(np.multiply.outer(_pool(state == each, edges) / cells, to_rgb(c)) for each, c in colours.items())
    image = calm / np.maximum(1 - missing, 1e-9)
    image = np.where((_pool(stray, edges) > 0)[..., None], to_rgb(STRAY), image)
    lost = (1 - missing) * np.array(to_rgb(MISSING)) + missing * np.array(to_rgb(ALL_MISSING))
    image = np.where(missing > 0, lost, image).swapaxes(0, 1)
    ax.imshow(image, aspect="auto", interpolation="nearest", extent=(-0.5, T - 0.5, N - 0.5, -0.5))


def _points(ax: "Axes") -> tuple[float, float]:
    """Width and height of the axes in the figure, laid out, in points."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    box = ax.get_window_extent()
    return float(box.width) * 72 / figure.dpi, float(box.height) * 72 / figure.dpi


def _pool(mask: np.ndarray, edges: list[np.ndarray]) -> np.ndarray:
    """How many cells hold in each dot, given the first row and column of each."""
    days = np.add.reduceat(mask, edges[0], axis=0, dtype=np.int32)
    return np.add.reduceat(days, edges[1], axis=1)


def _dates(ax: "Axes", dates: pd.DatetimeIndex, width: float) -> None:
    """Dates on an axis whose coordinate is the row."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num, num2date

    locator = AutoDateLocator(minticks=2, maxticks=max(int(width / 45), 2))
    first, last = dates[0].to_pydatetime(), dates[-1].to_pydatetime()
    values = [x for x in locator.tick_values(first, last) if x >= date2num(first) - 7]  # New Year has no session
    formatter = ConciseDateFormatter(locator)
    days = pd.DatetimeIndex([num2date(x).replace(tzinfo=None) for x in values])
    ticks = pd.Series(formatter.format_ticks(values), index=dates.searchsorted(days))
    ticks = ticks[(ticks.index < len(dates)) & ~ticks.index.duplicated(keep="last")]
    ax.set_xticks(ticks.index, ticks.to_list())
    ax.set_xlabel(formatter.get_offset(), loc="right", color=INK, fontsize=9)
    ax.tick_params(length=0, colors=INK, labelsize=8)
    ax.tick_params(axis="x", length=3, color=GRID)


def _names(ax: "Axes", panel: Panel, order: np.ndarray, points: float) -> None:
    """Assets or, where their points of height are too few, exchanges; what each is missing; and lines between them."""
    codes = np.array(panel.exchanges)[order]
    starts = np.flatnonzero(np.r_[True, codes[1:] != codes[:-1]])
    ends = np.append(starts[1:], len(codes))
    missing = (panel.state == State.MISSING).sum(0).cpu().numpy()[order]
    beside: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    beside |= {"va": "center", "fontsize": 8}
    named = points >= ROOM
    if named:
        at, labels, counts = np.arange(len(order)), [panel.assets[i] for i in order], missing
        for line in np.arange(1, len(order)):
            ax.axhline(line - 0.5, color="white", linewidth=0.8)
    else:
        at, counts = (starts + ends - 1) / 2, np.add.reduceat(missing, starts)
        labels = [f"{code} · {size:,}" for code, size in zip(codes[starts], ends - starts, strict=True)]
        roomy = _apart(at, ends - starts, ROOM / points)
        at, counts, labels = at[roomy], counts[roomy], [label for label, r in zip(labels, roomy, strict=True) if r]
    ax.set_yticks(at, labels, parse_math=False)  # an asset may be called $A$
    for y, count in zip(at, counts, strict=True):
        text, colour = (f"{count:,}", MISSING) if count else ("0", FADED)
        ax.annotate(text, (1, y), (34, 0), ha="right", color=colour, **beside)
    for start, end in zip(starts, ends, strict=True):
        if start:
            ax.axhline(start - 0.5, color="white" if named else INK, linewidth=2.4 if named else 0.8)
        if named:
            ax.annotate(codes[start], (1, (start + end - 1) / 2), (44, 0), color=INK, **beside)
    ax.annotate("missing", (1, 1), (34, 4), ha="right", xycoords="axes fraction", textcoords="offset points",
                fontsize=8, color=MISSING)  # fmt: skip
    for side in ax.spines.values():
        side.set_visible(False)


def _apart(at: np.ndarray, size: np.ndarray, room: float) -> np.ndarray:
    """Which labels to show, so that none overlaps another: the largest groups first."""
    shown = np.zeros(len(at), dtype=bool)
    for i in np.argsort(-size, kind="stable"):
        shown[i] = not shown.any() or np.abs(at[shown] - at[i]).min() >= room
    return shown
