"""GraphSAGE."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qtorch.distributions.transforms.bijection import promoted
from qtorch.errors import ArgumentError
from qtorch.nn.graph.aggregate import DENSE_SUM, aggregate, is_dense, living, shares
from qtorch.nn.graph.graph import Graph

KINDS = ("mean", "max")


class GraphSAGE(nn.Module):
    """GraphSAGE: W_1 times the mean, or the largest, of the neighbours' features, W_2 times a node's own, and a bias.

    Weights are not looked at. Of a node without neighbours only its own features count.

    Args:
        in_features: F.
        out_features: D.
        pool: ``"mean"`` or ``"max"``, each feature's largest value.
        self_loops: counts each node among its own neighbours.
        dense: of means, as of `GCN`.

    Raises:
        ValueError: the pool is not known.

    References:
        Hamilton, Ying and Leskovec (2017), Inductive representation learning on large graphs, NeurIPS, algorithm 1.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        pool: str = "mean",
        self_loops: bool = False,
        dense: bool | None = None,
    ) -> None:
        super().__init__()
        if pool not in KINDS:
            raise ArgumentError(f"pool must be one of {', '.join(KINDS)}, not {pool!r}.")
        self.in_features, self.out_features, self.pool = in_features, out_features, pool
        self.self_loops, self.dense = self_loops, dense
        self.neighbours = nn.Linear(in_features, out_features)
        self.own = nn.Linear(in_features, out_features, bias=False)

    def forward(self, x: Float[Tensor, "B N F"], graph: Graph) -> Float[Tensor, "B N D"]:
        """The features of each node after it heard from its neighbours; 0 where dead."""
        heard, x = graph.looped if self.self_loops else graph, promoted(living(x, graph.mask))
        if self.pool == "mean":
            weights = heard.keep(f"shares_{x.dtype}", lambda: shares(heard.present.to(x.dtype)))
            dense = is_dense(heard, DENSE_SUM, self.dense)
            pooled = aggregate(x.unsqueeze(2), weights.flatten(0, 1).unsqueeze(0), heard, dense).squeeze(2)
        else:
            pooled = _largest(x, heard)
        return living(promoted(self.neighbours(pooled) + self.own(x)), graph.mask)


def _largest(x: Float[Tensor, "B N F"], graph: Graph) -> Float[Tensor, "B N F"]:
    """Each feature's largest value among neighbours, 0 without any; the gradient goes to one that has it."""
    rows = x.flatten(0, 1)
    source = graph.links.source.view(len(rows), -1)
    with torch.no_grad():
        heard = rows[source].masked_fill_(~graph.present.flatten(0, 1)[..., None], -torch.inf)
        winner = source.gather(1, heard.argmax(1))
    return torch.where(graph.hearing, rows.gather(0, winner).view(x.shape), 0.0)
