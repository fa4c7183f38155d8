"""A graph of pairs of assets that hear from each other."""

from collections.abc import Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from qtorch.nn.graph import Graph
from qtorch.portfolio.graphs.correlations import Correlations


def undirected(pairs: Sequence[Int64[Tensor, "2 _"]], correlations: Correlations) -> Graph:
    """The graph of some pairs of each date, both ways, weighing their correlations; pairs without one are left out.

    Args:
        pairs: for each date, of assets.
        correlations: of the dates.
    """
    N, device = correlations.mask.shape[1], correlations.mask.device
    date = torch.arange(len(pairs)).repeat_interleave(torch.tensor([each.shape[1] for each in pairs])).to(device)
    one, other = torch.cat(list(pairs), 1).to(device)
    weights = correlations.values[date, one, other]
    there = weights.isfinite().nonzero().squeeze(1)
    date, one, other, weights = date[there], one[there], other[there], weights[there]
    ends = torch.stack([torch.cat([one, other]), torch.cat([other, one])]) + N * torch.cat([date, date])
    return Graph.from_edges(ends, correlations.mask, torch.cat([weights, weights]))
