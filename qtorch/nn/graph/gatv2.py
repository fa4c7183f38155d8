"""Graph attention with additive scores."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qtorch.distributions.transforms.bijection import promoted
from qtorch.errors import ArgumentError
from qtorch.nn.graph.additive import additive_scores
from qtorch.nn.graph.aggregate import aggregate, living
from qtorch.nn.graph.graph import Graph
from qtorch.nn.graph.relational import one_hot


class GATv2(nn.Module):
    """Graph attention: means of neighbours, weighted by a softmax of a_h . leaky_relu(W_s x_j + W_t x_i + W_e e_ij).

    With kinds it is a relational graph attention: e_ij is the weight of the edge, if it is to count, and 1 at its kind.
    An edge from a node to itself has the mean of the e of the others. It always works on the table of neighbours,
    which dense graphs make as wide as there are nodes.

    Args:
        in_features: F.
        out_features: D, that of all heads together.
        heads: they divide D.
        weighted: whether weights of edges count.
        kinds: of edges; 0 for none.
        slope: of the leaky ReLU below 0; positive.
        self_loops: whether each node listens to itself; edges to itself that a node has are replaced.

    Raises:
        ValueError: the heads do not divide D, or the slope is not positive; when called, the graph lacks weights or
            kinds that are to count.

    References:
        Brody, Alon and Yahav (2022), How attentive are graph attention networks?, ICLR, equation 7.

    Example:
        >>> graph = Graph.from_dense(torch.rand(2, 5, 5), mask=torch.ones(2, 5).bool())
        >>> GATv2(3, 8, heads=2, weighted=True)(torch.randn(2, 5, 3), graph).shape
        torch.Size([2, 5, 8])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        heads: int = 4,
        weighted: bool = False,
        kinds: int = 0,
        slope: float = 0.2,
        self_loops: bool = True,
    ) -> None:
        super().__init__()
        if out_features % heads:
            raise ArgumentError(f"out_features, {out_features}, must be a multiple of the heads, {heads}.")
        if slope <= 0:
            raise ArgumentError(f"slope must be positive, not {slope}.")
        self.in_features, self.out_features, self.heads = in_features, out_features, heads
        self.weighted, self.kinds, self.slope, self.self_loops = weighted, kinds, slope, self_loops
        self.source = nn.Linear(in_features, out_features)
        self.target = nn.Linear(in_features, out_features)
        self.attention = nn.Parameter(torch.empty(heads, out_features // heads))
        nn.init.xavier_uniform_(self.attention)
        described = int(weighted) + kinds
        self.edge = nn.Linear(described, out_features, bias=False) if described else None
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x: Float[Tensor, "B N F"], graph: Graph) -> Float[Tensor, "B N D"]:
        """The features of each node after it heard from its neighbours; 0 where dead."""
        heard, x = graph.looped if self.self_loops else graph, living(x, graph.mask)
        source, target = promoted(self.source(x)), promoted(self.target(x))
        edge = None if self.edge is None else self._described(heard, source.dtype)
        scores = additive_scores(
            target.flatten(0, 1),
            source.flatten(0, 1),
            self.attention,
            heard.links,
            self.slope,
            edge,
            None if self.edge is None else self.edge.weight,
        )
        weights = torch.softmax(scores + heard.barrier, -1)
        out = aggregate(source.unflatten(-1, (self.heads, -1)), weights, heard, dense=False).flatten(2)
        return living(torch.where(heard.hearing, out, 0.0) + self.bias, graph.mask)

    def _described(self, graph: Graph, dtype: torch.dtype) -> Float[Tensor, "RK E"]:
        """What is known of each edge."""
        parts = []
        if self.weighted:
            if graph.weights is None:
                raise ArgumentError("the layer is weighted: give the graph weights.")
            parts.append(graph.weights[..., None].to(dtype))
        if self.kinds:
            parts.append(one_hot(graph, self.kinds, dtype))
        edge = torch.cat(parts, -1)
        if self.self_loops:
            others = graph.present[..., 1:].sum(-1).clamp(min=1)[..., None]
            edge = torch.cat([(edge[:, :, 1:].sum(2) / others).unsqueeze(2), edge[:, :, 1:]], 2)
        return edge.flatten(0, 2)
