"""Small self-contained pieces of HTML for notebooks, in the page's own colours; every text is escaped and bounded."""

import html
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

_TABLE = "border-collapse:collapse;border:0;background:none;color:inherit;font-size:inherit;margin:.3em 0"
_CELL = "border:0;background:none;padding:.05em 1.2em .05em 0;text-align:{};vertical-align:top;white-space:nowrap"
_POINTS = 120  # of a line


def text(value: object, most: int = 80) -> str:
    """A text, escaped and cut to a length."""
    whole = str(value)
    return html.escape(whole if len(whole) <= most else whole[: most - 1] + "…")


def card(title: str, facts: Mapping[str, object], *parts: str) -> str:
    """A title, what it is in names and values, and further parts that are HTML already."""
    rows = "".join(
        f'<tr style="background:none"><td style="{_CELL.format("left")};opacity:.65">{text(name)}</td>'
        f'<td style="{_CELL.format("left")}">{text(value, 160)}</td></tr>'
        for name, value in facts.items()
    )
    return f'<div><b>{text(title)}</b><table style="{_TABLE}">{rows}</table>{"".join(parts)}</div>'


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], caption: str) -> str:
    """A table of few rows: the first column to the left, numbers to the right."""
    sides = ["left", *["right"] * (len(columns) - 1)]

    def line(cells: Sequence[object], more: str = "") -> str:
        inner = "".join(
            f'<td style="{_CELL.format(side)}{more}">{text(cell)}</td>' for side, cell in zip(sides, cells, strict=True)
        )
        return f'<tr style="background:none">{inner}</tr>'

    body = line(columns, ";opacity:.65") + "".join(line(row) for row in rows)
    return f'<div style="opacity:.65">{text(caption)}</div><table style="{_TABLE}">{body}</table>'


def sparkline(values: Float[np.ndarray, " T"], caption: str) -> str:
    """A line of values in time, thinned to a hundred; a gap where they are not finite."""
    at = np.unique(np.linspace(0, len(values) - 1, min(len(values), _POINTS)).round().astype(int))
    kept = values[at]
    there = np.isfinite(kept)
    if not there.any():
        return ""
    low, high = float(kept[there].min()), float(kept[there].max())
    x = 300 * at / max(len(values) - 1, 1)
    y = 38 - 36 * (kept - low) / (high - low) if high > low else np.full(len(at), 20.0)
    steps = []
    for i in np.flatnonzero(there):
        steps.append(f"{'L' if i and there[i - 1] else 'M'}{x[i]:.0f} {y[i]:.1f}")
    drawn = f'<path d="{"".join(steps)}" fill="none" stroke="currentColor" stroke-width="1.2"/>'
    return f'<div style="opacity:.65">{text(caption)}</div>{svg(300, 40, drawn)}'


def svg(width: int, height: int, drawn: str) -> str:
    """A picture inside the text, of shapes that are SVG already."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" style="display:block;margin:.2em 0">{drawn}</svg>'
    )
