"""Graphs to and from PyTorch Geometric and NetworkX, which are imported only here."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from qtorch.errors import ArgumentError
from qtorch.nn.graph.graph import Graph

if TYPE_CHECKING:
    import networkx


def to_pyg(graph: Graph, x: Float[Tensor, "B N F"] | None = None) -> Any:
    """A `torch_geometric.data.Batch`, a `Data` for each date with all N nodes, dead ones too, which have no edges.

    Weights are its `edge_weight`, kinds its `edge_type`, the mask its `node_mask`.

    Args:
        graph: of a batch of dates.
        x: the nodes' features.
    """
    from torch_geometric.data import Batch, Data

    B, N = graph.mask.shape
    edges, weights, kinds = graph.to_edges()
    counts = torch.bincount(edges[1] // N, minlength=B).tolist()
    items = []
    for b, (own, weight, kind) in enumerate(
        zip(edges.split(counts, 1), _split(weights, counts), _split(kinds, counts), strict=True)
    ):
        parts = {"x": None if x is None else x[b], "edge_weight": weight, "edge_type": kind}
        given = {name: part for name, part in parts.items() if part is not None}
        items.append(Data(edge_index=own - b * N, node_mask=graph.mask[b], num_nodes=N, **given))
    return Batch.from_data_list(items)


def from_pyg(data: Any) -> tuple[Graph, Float[Tensor, "B N F"] | None]:
    """The graph, and the features if there are any, of a `torch_geometric.data.Batch` or `Data`.

    Graphs of fewer nodes than the largest get dead ones at the end, with features of 0. Weights are `edge_weight` or,
    without it, an `edge_attr` of one column; kinds are `edge_type`, the mask is `node_mask`.
    """
    edges, device = data.edge_index, data.edge_index.device
    batch = data.batch if getattr(data, "batch", None) is not None else edges.new_zeros(data.num_nodes)
    counts = torch.bincount(batch)
    B, N = len(counts), int(counts.max())
    place = (
        torch.arange(len(batch), device=device)
        + (torch.arange(B, device=device) * N - counts.cumsum(0) + counts)[batch]
    )
    weights = getattr(data, "edge_weight", None)
    attributes = getattr(data, "edge_attr", None)
    if weights is None and attributes is not None and attributes[:1].numel() <= 1:
        weights = attributes.reshape(-1)
    alive = getattr(data, "node_mask", None)
    mask = torch.zeros(B * N, dtype=torch.bool, device=device)
    mask[place] = torch.ones_like(batch, dtype=torch.bool) if alive is None else alive
    x = None
    if getattr(data, "x", None) is not None:
        x = data.x.new_zeros(B * N, data.x.shape[1]).index_copy(0, place, data.x).view(B, N, -1)
    return Graph.from_edges(place[edges], mask.view(B, N), weights, getattr(data, "edge_type", None)), x


def to_networkx(graph: Graph, names: Sequence[str] | None = None) -> "list[networkx.MultiDiGraph]":
    """A graph of NetworkX for each date, of the living nodes, with `weight` and `kind` of edges.

    Args:
        graph: of a batch of dates.
        names: of the nodes, such as assets; their numbers otherwise.
    """
    import networkx

    B, N = graph.mask.shape
    labels = range(N) if names is None else names
    edges, weights, kinds = graph.to_edges()
    made = [networkx.MultiDiGraph() for _ in range(B)]
    for b, one in enumerate(made):
        one.add_nodes_from(labels[n] for n in graph.mask[b].nonzero().flatten().tolist())
    columns = {"weight": weights, "kind": kinds}
    told = {key: values.tolist() for key, values in columns.items() if values is not None}
    for e, (source, target) in enumerate(edges.T.tolist()):
        made[source // N].add_edge(labels[source % N], labels[target % N], **{k: told[k][e] for k in told})
    return made


def from_networkx(graphs: "Sequence[networkx.Graph]", names: Sequence[Any]) -> Graph:
    """The graph of one of NetworkX for each date; an undirected edge goes both ways.

    Args:
        graphs: with `weight` and `kind` of all edges or of none.
        names: of the nodes, in order; a node that a date's graph lacks is dead there.

    Raises:
        ValueError: a graph has a node that is not among the names, or some edges lack what others have.
    """
    place, N = {name: n for n, name in enumerate(names)}, len(names)
    mask = torch.zeros(len(graphs), N, dtype=torch.bool)
    edges: list[tuple[int, int]] = []
    facts: list[dict[str, Any]] = []
    for b, one in enumerate(graphs):
        if unknown := [node for node in one if node not in place]:
            raise ArgumentError(f"graph {b} has the node {unknown[0]!r}, which is not among the names.")
        mask[b, [place[node] for node in one]] = True
        for source, target, known in one.edges(data=True):
            ends = b * N + place[source], b * N + place[target]
            both = [ends] if one.is_directed() or source == target else [ends, ends[::-1]]
            edges += both
            facts += [known] * len(both)
    index = torch.tensor(edges, dtype=torch.int64).view(-1, 2).T
    return Graph.from_edges(index, mask, _column(facts, "weight", torch.float32), _column(facts, "kind", torch.int64))


def _split(values: Tensor | None, counts: list[int]) -> Sequence[Tensor | None]:
    return [None] * len(counts) if values is None else values.split(counts)


def _column(facts: list[dict[str, Any]], key: str, dtype: torch.dtype) -> Tensor | None:
    have = sum(key in known for known in facts)
    if not have:
        return None
    if have < len(facts):
        raise ArgumentError(f"{have} of {len(facts)} edges have a {key!r}; give it to all or none.")
    return torch.tensor([known[key] for known in facts], dtype=dtype)
