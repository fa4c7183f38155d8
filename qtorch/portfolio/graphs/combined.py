"""Several graphs of the same assets as one, whose edges tell which they are of."""

from collections.abc import Sequence

import torch

from qtorch.errors import ArgumentError
from qtorch.nn.graph import Graph


def combined(*graphs: Graph, kinds: Sequence[int] | None = None) -> Graph:
    """One graph with the edges of all: kinds 0 on are the first graph's, the following ones the second's, and so on.

    Two assets may be joined by several edges. Edges without a weight weigh 1, if any graph has weights.

    Args:
        *graphs: of the same dates and assets.
        kinds: how many kinds each graph has; 1 each by default, which is for graphs without kinds. It is given and not
            counted, so that a kind means the same on all dates.

    Raises:
        ValueError: there is no graph, their masks differ, or a graph has more kinds than told.

    Example:
        >>> one = Graph.from_dense(torch.tensor([[[0.0, 0.5], [0.5, 0.0]]]), torch.ones(1, 2).bool())
        >>> combined(one, one).kinds.tolist()
        [[[0, 1], [0, 1]]]
    """
    if not graphs:
        raise ArgumentError("combined needs at least one graph.")
    counts = [1] * len(graphs) if kinds is None else list(kinds)
    if len(counts) != len(graphs):
        raise ArgumentError(f"kinds must tell of {len(graphs)} graphs how many kinds each has, not {counts}.")
    first, tables, weights = 0, [], []
    for g, (graph, count) in enumerate(zip(graphs, counts, strict=True)):
        if not torch.equal(graph.mask, graphs[0].mask):
            raise ArgumentError(
                f"graph {g} has another mask than graph 0; make all of the same dates, assets and mask."
            )
        own = torch.zeros_like(graph.neighbours) if graph.kinds is None else graph.kinds
        if int(own.max()) >= count:
            raise ArgumentError(f"graph {g} has an edge of kind {int(own.max())}, but {count} kinds were told of it.")
        tables.append(own + first)
        weights.append(graph.present.float() if graph.weights is None else graph.weights)
        first += count
    weighted = any(graph.weights is not None for graph in graphs)
    return Graph(
        torch.cat([graph.neighbours for graph in graphs], 2),
        torch.cat([graph.present for graph in graphs], 2),
        graphs[0].mask,
        torch.cat(weights, 2) if weighted else None,
        torch.cat(tables, 2),
    )
