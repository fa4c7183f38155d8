"""Relational graph convolution."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qtorch.distributions.transforms.bijection import promoted
from qtorch.errors import ArgumentError
from qtorch.nn.graph.aggregate import DENSE_SUM, aggregate, is_dense, living, shares
from qtorch.nn.graph.graph import Graph


class RelationalGCN(nn.Module):
    """Relational graph convolution: the sum over kinds r of W_r times the mean over neighbours of the kind.

    To it come W_0 times the node's own features and a bias. With bases the matrices of kinds are mixtures
    W_r = sum_b c_rb V_b. Weights are not looked at.

    Args:
        in_features: F.
        out_features: D.
        kinds: how many there are.
        bases: of the matrices; None for a matrix of its own for each kind.
        dense: as of `GCN`; a matrix for each basis.

    Raises:
        ValueError: there are no kinds or no bases; when called, the graph has no kinds.

    References:
        Schlichtkrull et al. (2018), Modeling relational data with graph convolutional networks, ESWC, equations 2, 3.
    """

    def __init__(
        self, in_features: int, out_features: int, kinds: int, bases: int | None = None, dense: bool | None = None
    ) -> None:
        super().__init__()
        for name, value in (("kinds", kinds), ("bases", bases)):
            if value is not None and value < 1:
                raise ArgumentError(f"{name} must be at least 1, not {value}.")
        self.in_features, self.out_features = in_features, out_features
        self.kinds, self.bases, self.dense = kinds, bases, dense
        self.matrices = nn.Parameter(torch.empty(kinds if bases is None else bases, in_features, out_features))
        nn.init.xavier_uniform_(self.matrices)
        self.mixture = None if bases is None else nn.Parameter(torch.empty(kinds, bases))
        if self.mixture is not None:
            nn.init.xavier_uniform_(self.mixture)
        self.own = nn.Linear(in_features, out_features)

    def forward(self, x: Float[Tensor, "B N F"], graph: Graph) -> Float[Tensor, "B N D"]:
        """The features of each node after it heard from its neighbours; 0 where dead."""
        x = living(x, graph.mask)
        bases = self.matrices.transpose(0, 1).flatten(1)
        values = promoted(x @ bases).unflatten(-1, (-1, self.out_features))
        weights = graph.keep(
            f"shares_{self.kinds}_{values.dtype}",
            lambda: shares(one_hot(graph, self.kinds, values.dtype)).flatten(0, 1).permute(2, 0, 1).contiguous(),
        )
        if self.mixture is not None:
            with torch.autocast(x.device.type, enabled=False):
                weights = (self.mixture.T @ weights.flatten(1)).view(-1, *weights.shape[1:])
        sums = aggregate(values, weights, graph, is_dense(graph, DENSE_SUM, self.dense)).sum(2)
        return living(sums + promoted(self.own(x)), graph.mask)


def one_hot(graph: Graph, kinds: int, dtype: torch.dtype) -> Float[Tensor, "B N K kinds"]:
    """1 at the kind of each edge, 0 where there is no edge.

    Raises:
        ValueError: the graph has no kinds.
        IndexError: it has a kind that is not below the number of kinds.
    """
    if graph.kinds is None:
        raise ArgumentError("the layer needs the kinds of edges: give the graph kinds.")
    eye = torch.eye(kinds, dtype=dtype, device=graph.kinds.device)
    return torch.where(graph.present[..., None], nn.functional.embedding(graph.kinds, eye), 0.0)
