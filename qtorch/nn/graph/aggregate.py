"""Sums over neighbours, by the table of neighbours or by a dense matrix, and where nodes are dead."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qtorch.nn.graph.graph import Graph
from qtorch.nn.graph.messages import weighted_sum

DENSE_SUM = 6.0  # a matrix product is the faster sum from about N / 6 neighbours on; see benchmarks/results/graph.md


def living(x: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"]) -> Float[Tensor, "B N D"]:
    """The features of living nodes, and exactly 0 at others, whatever they are; gradients too."""
    return torch.where(mask[..., None], x, 0.0)


def is_dense(graph: Graph, factor: float, dense: bool | None) -> bool:
    """Whether to work with matrices: as told, or when a factor times the neighbours are as many as the nodes.

    A compiled or exported graph is for any number of either, and has the table of neighbours unless told otherwise.
    """
    if dense is not None or torch.compiler.is_compiling():
        return bool(dense)
    _, N, K = graph.neighbours.shape
    return factor * K >= N


def shares(there: Float[Tensor, "B N K *kinds"]) -> Float[Tensor, "B N K *kinds"]:
    """1 over the number of a node's edges, at each of them, of what is 1 where there is an edge and 0 elsewhere."""
    return there / there.sum(2, keepdim=True).clamp(min=1)


def aggregate(
    values: Float[Tensor, "B N heads width"], weights: Float[Tensor, "heads R K"], graph: Graph, dense: bool
) -> Float[Tensor, "B N heads width"]:
    """The sums over each node's edges of the weight times the source's values, head by head."""
    B, N = values.shape[:2]
    if not dense:
        return weighted_sum(values.flatten(0, 1), weights, graph.links).unflatten(0, (B, N))
    return matrix_sum(values, graph.dense(weights.unflatten(1, (B, N))))


def matrix_sum(
    values: Float[Tensor, "B N heads width"], matrices: Float[Tensor, "heads B N N"]
) -> Float[Tensor, "B N heads width"]:
    """As `aggregate`, with matrices of weights."""
    with torch.autocast(values.device.type, enabled=False):
        return (matrices @ values.permute(2, 0, 1, 3)).permute(1, 2, 0, 3)
