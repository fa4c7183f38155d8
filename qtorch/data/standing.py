"""How much history each asset has at a row of the panel, and for how long it has been silent."""

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from qtorch.data.panel import Panel
from qtorch.data.states import State

_ROWS = 256  # looked at at once


def standing(panel: Panel, rows: Int64[np.ndarray, " D"]) -> tuple[Int64[Tensor, "D N"], Int64[Tensor, "D N"]]:
    """Returns of each asset up to some rows, and the sessions of its exchange since its last price there.

    One pass over the panel up to the last of the rows.
    """
    device, N = panel.state.device, len(panel.assets)
    wanted, place = np.unique(rows, return_inverse=True)
    prices = torch.zeros(N, dtype=torch.int64, device=device)
    sessions, last = prices.clone(), prices.clone()
    counts, silences = [], []
    for t in range(0, int(wanted[-1]) + 1, _ROWS):
        block = slice(t, min(t + _ROWS, int(wanted[-1]) + 1))
        there = panel.state[block] == State.OBSERVED
        session = panel.exchange_is_session[block][:, list(panel.exchange_index)]
        count = prices + there.cumsum(0)
        so_far = sessions + (session | there).cumsum(0)
        latest = torch.maximum(last, torch.where(there, so_far, 0).cummax(0).values)
        here = torch.as_tensor(wanted[(wanted >= t) & (wanted < block.stop)] - t, device=device)
        counts.append((count[here] - 1).clamp(min=0))
        silences.append(so_far[here] - latest[here])
        prices, sessions, last = count[-1], so_far[-1], latest[-1]
    at = torch.as_tensor(place, device=device)
    return torch.cat(counts)[at], torch.cat(silences)[at]


def known_gone(panel: Panel) -> Bool[Tensor, "T N"]:
    """Where an asset is known to have been delisted; nowhere in a panel that was not told of delistings."""
    unlisted = panel.state == State.UNLISTED
    if panel.delisted is None:
        return torch.zeros_like(unlisted)
    return torch.logical_and(unlisted, panel.mask.cummax(0).values)
