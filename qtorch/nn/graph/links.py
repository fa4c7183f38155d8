"""The edges of a table of neighbours as flat rows, in the order of targets and in that of sources."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor


class Links(NamedTuple):
    """Where messages come from and where they go, over the `R = B N` rows of a batch.

    Row r has K places for edges, r K to r K + K - 1. A place without an edge points to its own row, so that whatever is
    read there is finite, and what it carries must weigh 0.

    Attributes:
        source: `[R K]`, the row from which each edge comes.
        order: `[R K]`, the edges in the order of their sources; None in an export, which has no backward pass.
        starts: `[R]`, where in `order` the edges of each source begin; None likewise.
        nodes: N.
    """

    source: Int[Tensor, " RK"]
    order: Int[Tensor, " RK"] | None
    starts: Int[Tensor, " R"] | None
    nodes: int


def link(neighbours: Int[Tensor, "B N K"], present: Bool[Tensor, "B N K"]) -> Links:
    """The links of a table of neighbours."""
    B, N = neighbours.shape[:2]
    rows = torch.arange(B * N, device=neighbours.device)
    first = torch.arange(B, device=neighbours.device).mul(N)[:, None, None]
    source = torch.where(present, neighbours + first, rows.view(B, N, 1)).view(-1)
    if torch.compiler.is_exporting():
        return Links(source, None, None, N)
    ordered, order = torch.sort(source, stable=True)
    return Links(source, order, torch.searchsorted(ordered, rows), N)
