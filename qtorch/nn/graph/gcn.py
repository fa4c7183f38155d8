"""Graph convolution."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qtorch.distributions.transforms.bijection import promoted
from qtorch.nn.graph.aggregate import DENSE_SUM, aggregate, is_dense, living, matrix_sum
from qtorch.nn.graph.graph import Graph


class GCN(nn.Module):
    """Graph convolution: the sum over neighbours j of w_ij / sqrt(d_i d_j) W x_j, and a bias.

    d_i is the sum of the weights of i's edges; without a positive one, as correlations may give, the edges of i weigh
    0. Weights are 1 where the graph has none.

    Args:
        in_features: F.
        out_features: D.
        self_loops: gives each node an edge to itself of weight 1, unless it has one.
        dense: True for products with dense matrices, False for sums over the table of neighbours, None for whichever
            was measured to be faster: matrices from `N / 6` neighbours on.

    References:
        Kipf and Welling (2017), Semi-supervised classification with graph convolutional networks, ICLR, equation 2.

    Example:
        >>> graph = Graph.from_dense(torch.rand(2, 5, 5), mask=torch.ones(2, 5).bool())
        >>> GCN(3, 8)(torch.randn(2, 5, 3), graph).shape
        torch.Size([2, 5, 8])
    """

    def __init__(self, in_features: int, out_features: int, self_loops: bool = True, dense: bool | None = None) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.self_loops, self.dense = self_loops, dense
        self.linear = nn.Linear(in_features, out_features, bias=False)
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x: Float[Tensor, "B N F"], graph: Graph) -> Float[Tensor, "B N D"]:
        """The features of each node after it heard from its neighbours; 0 where dead."""
        looped = graph.looped if self.self_loops else graph
        values = promoted(self.linear(living(x, graph.mask))).unsqueeze(2)
        if is_dense(looped, DENSE_SUM, self.dense):
            matrices = looped.keep(f"gcn_dense_{values.dtype}", lambda: looped.dense(_weights(looped, values.dtype)))
            sums = matrix_sum(values, matrices.unsqueeze(0))
        else:
            weights = looped.keep(f"gcn_{values.dtype}", lambda: _weights(looped, values.dtype))
            sums = aggregate(values, weights.flatten(0, 1).unsqueeze(0), looped, dense=False)
        return living(sums.squeeze(2) + self.bias, graph.mask)


def _weights(graph: Graph, dtype: torch.dtype) -> Float[Tensor, "B N K"]:
    """The normalised weights w_ij / sqrt(d_i d_j) of a graph's edges."""
    weights = (graph.present if graph.weights is None else graph.weights).to(dtype)
    degrees = weights.sum(-1)
    positive = degrees > 0
    scale = torch.where(positive, torch.where(positive, degrees, 1.0).rsqrt(), 0.0)
    return weights * scale[..., None] * scale.view(-1)[graph.links.source].view(weights.shape)
