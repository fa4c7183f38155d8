"""Triangulated maximally filtered graphs."""

import numpy as np
import torch

from qtorch.nn.graph import Graph
from qtorch.portfolio.graphs.correlations import Correlations
from qtorch.portfolio.graphs.undirected import undirected


def tmfg(correlations: Correlations, absolute: bool = False) -> Graph:
    """For each date a planar graph of triangles that keeps the strong correlations: 3 (N - 2) edges of N (N - 1) / 2.

    It begins with four assets that correlate much with all, and takes in, one by one, the asset and the triangle with
    the largest sum of the three correlations between them. Edges go both ways and weigh the correlation. Pairs without
    a correlation count as 0 on the way and are then left out. Fewer than four assets are joined completely.

    Args:
        correlations: of R dates.
        absolute: take correlations by absolute value for the choice.

    References:
        Massara, Di Matteo and Aste (2016), Network filtering for big data: triangulated maximally filtered graph,
        Journal of Complex Networks 5, section 3.
    """
    pairs = []
    for values, mask in zip(correlations.values.cpu().double().numpy(), correlations.mask.cpu().numpy(), strict=True):
        alive = np.flatnonzero(mask)
        strength = np.nan_to_num(values[np.ix_(alive, alive)], nan=0.0)
        edges = _triangulate(np.abs(strength) if absolute else strength)
        pairs.append(torch.from_numpy(alive[edges].reshape(-1, 2).T))
    return undirected(pairs, correlations)


def _triangulate(strength: np.ndarray) -> np.ndarray:
    """The edges `[E, 2]` of a graph over the nodes of a matrix of strengths.

    Each triangle keeps the best node that is left for it. A step looks anew only at the three triangles that a node
    makes and at those that wanted it too, so that the whole takes of the order of N^2.
    """
    N = len(strength)
    if N <= 4:
        return np.stack(np.triu_indices(N, 1), 1)
    strength = strength.copy()
    np.fill_diagonal(strength, 0.0)
    above = np.where(strength > strength[~np.eye(N, dtype=bool)].mean(), strength, 0.0)
    start = np.argsort(-above.sum(1), kind="stable")[:4]
    edges = [(start[a], start[b]) for a in range(4) for b in range(a)]
    left = np.ones(N, dtype=bool)
    left[start] = False
    triangles = np.zeros((2 * N, 3), dtype=np.int64)
    best, gain = np.zeros(2 * N, dtype=np.int64), np.full(2 * N, -np.inf)

    def look(at: np.ndarray) -> None:
        gains = np.where(left, strength[triangles[at]].sum(1), -np.inf)
        best[at] = gains.argmax(1)
        gain[at] = gains[np.arange(len(at)), best[at]]

    triangles[:4] = [start[[a for a in range(4) if a != out]] for out in range(4)]
    look(np.arange(4))
    for count in range(4, 2 * N - 4, 2):
        chosen = int(gain[:count].argmax())
        node, (a, b, c) = best[chosen], triangles[chosen].copy()
        left[node] = False
        edges += [(node, a), (node, b), (node, c)]
        triangles[[chosen, count, count + 1]] = [[node, a, b], [node, b, c], [node, a, c]]
        if left.any():
            wanted = np.flatnonzero(best[:count] == node)
            look(np.union1d(wanted, [chosen, count, count + 1]))
    return np.array(edges, dtype=np.int64)
