"""Dot-product attention over the edges of a graph."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qtorch.distributions.transforms.bijection import promoted
from qtorch.errors import ArgumentError
from qtorch.nn.graph.aggregate import aggregate, is_dense, living
from qtorch.nn.graph.graph import Graph
from qtorch.nn.graph.messages import edge_products
from qtorch.nn.graph.relational import one_hot

DENSE_ATTENTION = 10.0  # masked attention over all pairs is the faster from about N / 10 neighbours on


class GraphTransformer(nn.Module):
    """Attention of nodes to their neighbours, with a bias of edges, and a linear map of a node's own features.

    The score of head h is q_i . k_j / sqrt(width) + u_h w_ij + b_h,kind(ij), the last two only if they are to count.
    Without them it is the convolution of Shi et al. Several edges between two nodes count each for itself.

    Args:
        in_features: F.
        out_features: D, that of all heads together.
        heads: they divide D.
        weighted: whether weights of edges count.
        kinds: of edges; 0 for none.
        self_loops: whether each node attends to itself too.
        dense: True for attention over all pairs under a mask, False for the table of neighbours, None for whichever was
            measured to be faster: all pairs from `N / 10` neighbours on.

    Raises:
        ValueError: the heads do not divide D; when called, the graph lacks weights or kinds that are to count.

    References:
        Shi et al. (2021), Masked label prediction, IJCAI, equations 3 and 4; Ying et al. (2021), Do transformers really
        perform badly for graph representation?, NeurIPS, for the bias.

    Example:
        >>> graph = Graph.from_dense(torch.rand(2, 5, 5), mask=torch.ones(2, 5).bool())
        >>> GraphTransformer(3, 8, heads=2, weighted=True)(torch.randn(2, 5, 3), graph).shape
        torch.Size([2, 5, 8])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        heads: int = 4,
        weighted: bool = False,
        kinds: int = 0,
        self_loops: bool = False,
        dense: bool | None = None,
    ) -> None:
        super().__init__()
        if out_features % heads:
            raise ArgumentError(f"out_features, {out_features}, must be a multiple of the heads, {heads}.")
        self.in_features, self.out_features, self.heads = in_features, out_features, heads
        self.weighted, self.kinds, self.self_loops, self.dense = weighted, kinds, self_loops, dense
        self.query = nn.Linear(in_features, out_features)
        self.key = nn.Linear(in_features, out_features)
        self.value = nn.Linear(in_features, out_features)
        self.own = nn.Linear(in_features, out_features)
        self.weight_bias = nn.Parameter(torch.zeros(heads)) if weighted else None
        self.kind_bias = nn.Parameter(torch.zeros(heads, kinds)) if kinds else None

    def forward(self, x: Float[Tensor, "B N F"], graph: Graph) -> Float[Tensor, "B N D"]:
        """The features of each node after it heard from its neighbours; 0 where dead."""
        heard, x = graph.looped if self.self_loops else graph, living(x, graph.mask)
        q, k, v = (promoted(layer(x)).unflatten(-1, (self.heads, -1)) for layer in (self.query, self.key, self.value))
        bias = self._bias(heard, q.dtype)
        if is_dense(heard, DENSE_ATTENTION, self.dense):
            out = self._over_pairs(q, k, v, bias, heard)
        else:
            q = q / math.sqrt(q.shape[-1])
            scores = edge_products(q.flatten(0, 1), k.flatten(0, 1), heard.links) + heard.barrier
            weights = torch.softmax(scores if bias is None else scores + bias.flatten(1, 2), -1)
            out = aggregate(v, weights, heard, dense=False)
        out = torch.where(heard.hearing, out.flatten(2), 0.0) + promoted(self.own(x))
        return living(out, graph.mask)

    def _bias(self, graph: Graph, dtype: torch.dtype) -> Float[Tensor, "heads B N K"] | None:
        """What scores get added for the edges' weights and kinds."""
        bias = None
        if self.weight_bias is not None:
            if graph.weights is None:
                raise ArgumentError("the layer is weighted: give the graph weights.")
            bias = self.weight_bias[:, None, None, None] * graph.weights.to(dtype)
        if self.kind_bias is not None:
            kind = (one_hot(graph, self.kinds, dtype).unsqueeze(0) * self.kind_bias[:, None, None, None]).sum(-1)
            bias = kind if bias is None else bias + kind
        return bias

    def _over_pairs(
        self,
        q: Float[Tensor, "B N heads width"],
        k: Float[Tensor, "B N heads width"],
        v: Float[Tensor, "B N heads width"],
        bias: Float[Tensor, "heads B N K"] | None,
        graph: Graph,
    ) -> Float[Tensor, "B N heads width"]:
        if bias is None:
            allowed = graph.keep("allowed", lambda: _wall(graph, q.new_zeros(1, *graph.present.shape)))
        else:
            allowed = _wall(graph, bias)
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=allowed.to(q.dtype))
        return promoted(mixed).transpose(1, 2)


def _wall(graph: Graph, bias: Float[Tensor, "heads B N K"]) -> Float[Tensor, "B heads N N"]:
    """The biases of edges as matrices, for several edges the log of their sum of exponentials; else a number far below.

    Rows without an edge are of no account, and 0.
    """
    top = torch.where(graph.present, bias, -torch.inf).amax(-1, keepdim=True).detach()
    top = torch.where(graph.hearing, top, 0.0)
    total = graph.dense(torch.where(graph.present, (bias - top).exp(), 0.0))
    there = graph.keep("there", lambda: graph.dense(graph.present.float()) > 0)
    least = torch.finfo(total.dtype).tiny
    wall = torch.where(there, torch.where(there, total, 1.0).clamp(min=least).log() + top, -1e30)
    return torch.where(graph.hearing, wall, 0.0).transpose(0, 1)
