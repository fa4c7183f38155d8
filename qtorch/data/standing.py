"""How much history each asset has at a row of the panel, and for how long it has been silent."""

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from qtorch.data.panel import Panel
from qtorch.data.states import State

_ROWS = 256  # looked at at once


def standing(panel: Panel, rows: Int64[np.ndarray, " D"]) -> tuple[Int64[Tensor, "D N"], Int64[Tensor, "D N"]]:
    """Returns of each asset up to some rows, and the sessions of its exchange since its last price there."""
    device = panel.state.device
    wanted, place = np.unique(rows, return_inverse=True)
    first, stop = int(wanted[0]), int(wanted[-1]) + 1
    prices = torch.zeros(len(panel.assets), dtype=torch.int64, device=device)
    last = torch.full_like(prices, -1)  # row of the last price
    for t in range(0, first, _ROWS):  # of which the sums are enough
        there = panel.state[t : min(t + _ROWS, first)] == State.OBSERVED
        prices += there.sum(0)
        last = torch.where(there.any(0), t + len(there) - 1 - there.flip(0).to(torch.uint8).argmax(0), last)
    # Sessions of each exchange before each row: none of them after its last price has another.
    sessions = torch.cat([torch.zeros_like(panel.exchange_is_session[:1]), panel.exchange_is_session]).cumsum(0)
    exchange = torch.as_tensor(panel.exchange_index, device=device)
    counts, silences = [], []
    for t in range(first, stop, _ROWS):
        there = panel.state[t : min(t + _ROWS, stop)] == State.OBSERVED
        row = torch.arange(t, t + len(there), device=device)[:, None]
        count = prices + there.cumsum(0)
        latest = torch.maximum(last, torch.where(there, row, -1).cummax(0).values)
        here = torch.as_tensor(wanted[(wanted >= t) & (wanted < t + len(there))] - t, device=device)
        counts.append((count[here] - 1).clamp(min=0))
        silences.append(sessions[row[here] + 1, exchange] - sessions[latest[here] + 1, exchange])
        prices, last = count[-1], latest[-1]
    at = torch.as_tensor(place, device=device)
    return torch.cat(counts)[at], torch.cat(silences)[at]


def known_gone(panel: Panel) -> Bool[Tensor, "T N"]:
    """Where an asset is known to have been delisted; nowhere in a panel that was not told of delistings."""
    unlisted = panel.state == State.UNLISTED
    if panel.delisted is None:
        return torch.zeros_like(unlisted)
    return torch.logical_and(unlisted, panel.mask.cummax(0).values)
