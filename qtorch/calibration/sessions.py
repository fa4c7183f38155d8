"""Which rows are of the same session of an asset, and on which row the outcome of a forecast is known."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor

from qtorch.data.states import State


def known_at(state: UInt8[Tensor, "D N"], horizons: Sequence[int]) -> Int64[Tensor, "D H N"]:
    """The position among the rows of each asset's h-th later session, the number of rows where there is none."""
    sessions = (state == State.OBSERVED).cumsum(0).T.contiguous()  # [N, D]
    wanted = torch.stack([sessions + h for h in horizons])  # [H, N, D]
    edges = sessions.expand(wanted.shape).contiguous()
    return torch.searchsorted(edges, wanted.contiguous()).permute(2, 0, 1)


def first_of_session(state: UInt8[Tensor, "D N"], there: Bool[Tensor, "D *H N"]) -> Bool[Tensor, "D *H N"]:
    """Of the rows that are of one session of an asset, the first that is there, and no other.

    A row on which an asset is not observed is of the session of its last close, so that forecasts which are made on it
    have the outcome of those made at that close.

    Args:
        state: of the rows, which follow each other in the panel.
        there: which rows have something that may count.
    """
    rows = torch.arange(len(state), device=state.device)[:, None]
    start = torch.where(state == State.OBSERVED, rows, 0).cummax(0).values
    start = start.reshape(len(state), *[1] * (there.ndim - 2), -1).expand(there.shape)
    before = there.cumsum(0) - there.long()
    return there & (before == before.gather(0, start))
