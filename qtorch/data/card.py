"""A panel and a window as a notebook shows them."""

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int64

from qtorch.data.errors import counted, listing
from qtorch.data.panel import Panel
from qtorch.data.states import State
from qtorch.data.window import Window
from qtorch.html import card, svg, text

_BINS = 60  # of the strip, in time
_STRIPS = 6  # exchanges that have one
_BLUE, _RED = "#4a90d9", "#e0405a"  # seen on white and on black
_BLOCK = 255  # rows whose count a byte holds


def panel_card(panel: Panel) -> str:
    """A panel's facts, and a strip of its exchanges' states over time; its cells are counted, none is written."""
    counts = state_counts(panel)
    total = counts.sum((0, 2))
    shares = ", ".join(
        f"{total[state] / max(total.sum(), 1):.2%} {state.name.lower()}" for state in sorted(State, reverse=True)
    )
    size = pd.Series(panel.exchanges).value_counts()
    codes = [*size.index[:_STRIPS]]
    facts = {
        "dates": f"{counted(len(panel.dates), 'row')}, {panel.dates[0]:%Y-%m-%d} to {panel.dates[-1]:%Y-%m-%d}",
        "known at": f"{panel.as_of[-1]:%Y-%m-%d %H:%M} UTC, at the last row",
        "assets": f"{len(panel.assets):,}: {listing(panel.assets)}",
        "exchanges": listing([f"{code} ({number:,})" for code, number in size.items()], most=_STRIPS),
        "fields": listing(panel.fields, most=10),
        "cells": shares,
        "findings": f"{len(panel.findings):,}, in .findings" if len(panel.findings) else "none",
        "device": panel.state.device,
    }
    at = [panel.exchange_codes.index(code) for code in codes]
    return card("Panel", facts, _strips(codes, counts[:, :, at]), _legend())


def state_counts(panel: Panel) -> Int64[np.ndarray, "bins S X"]:
    """How many cells of each state there are in equal stretches of time, by exchange, as of `exchange_codes`."""
    state = panel.state.cpu().numpy()
    T = len(state)
    edges = np.linspace(0, T, min(T, _BINS) + 1).astype(int)
    exchange = np.array(panel.exchange_index)
    X = len(panel.exchange_codes)
    counts = np.zeros((len(edges) - 1, len(State), X), dtype=np.int64)
    for b, (first, end) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        for start in range(first, end, _BLOCK):
            block = state[start : min(start + _BLOCK, end)]
            for s in map(int, State):  # of an IntEnum numpy would make eight bytes a cell
                of_assets = np.add.reduce((block == s).view(np.uint8), axis=0, dtype=np.uint8)
                counts[b, s] += np.bincount(exchange, of_assets, minlength=X).astype(np.int64)
    return counts


def window_card(window: Window) -> str:
    """A window's shapes, and how much of it is masked."""
    return card("Window", window_facts(window))


def window_facts(window: Window) -> dict[str, object]:
    """What a window is, in names and values."""
    shares = {}
    for name, mask in (("inputs", window.mask), ("target", window.target_mask)):
        usable = float(mask.double().mean()) if mask.numel() else 0.0
        shares[name] = f"{_shape(getattr(window, name))}, {usable:.1%} usable"
    return {
        "layout": "panel" if window.inputs.ndim == 4 else "asset",
        **shares,
        "scale": _shape(window.scale),
        "device": window.inputs.device,
    }


def _shape(tensor: torch.Tensor) -> str:
    return " x ".join(f"{size:,}" for size in tensor.shape)


def _strips(codes: list[str], counts: Int64[np.ndarray, "bins S X"]) -> str:
    """A row an exchange: its observed cells as a filled area, those on closed days paler above, missing ones in red."""
    step, height, left = 6, 14, 60
    drawn = []
    for x, code in enumerate(codes):
        base = (x + 1) * (height + 4)
        own = counts[:, :, x] / np.maximum(counts[:, :, x].sum(1, keepdims=True), 1)
        observed, closed, missing = (own[:, s] for s in (State.OBSERVED, State.CLOSED, State.MISSING))
        drawn.append(f'<text x="0" y="{base - 3}" fill="currentColor" font-size="10">{text(code, 9)}</text>')
        for top, look in (
            (observed + closed + missing, 'fill="currentColor" fill-opacity=".25"'),
            (observed, f'fill="{_BLUE}"'),
        ):
            steps = "".join(f"V{base - height * share:.1f}h{step}" for share in top)
            drawn.append(f'<path d="M{left} {base}{steps}V{base}z" {look}/>')
        # a share of a thousandth would be thinner than a pixel
        lost = "".join(
            f"M{left + step * b} {base - height}h{step}v{max(height * missing[b], 2):.1f}h-{step}z"
            for b in np.flatnonzero(missing)
        )
        if lost:
            drawn.append(f'<path d="{lost}" fill="{_RED}"/>')
    return svg(left + step * len(counts), len(codes) * (height + 4) + 2, "".join(drawn))


def _legend() -> str:
    keys = ((_BLUE, 1, "observed"), ("currentColor", 0.25, "closed"), (_RED, 1, "missing (2 pixels at least)"))
    shapes = []
    for i, (colour, opacity, name) in enumerate(keys):
        shapes.append(f'<rect x="{60 + 90 * i}" y="1" width="9" height="9" fill="{colour}" fill-opacity="{opacity}"/>')
        shapes.append(f'<text x="{73 + 90 * i}" y="10" fill="currentColor" font-size="10">{name}</text>')
    return svg(430, 14, "".join(shapes))
