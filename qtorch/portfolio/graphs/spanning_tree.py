"""Minimum spanning trees of assets."""

import numpy as np
import torch
from scipy.sparse.csgraph import minimum_spanning_tree as spanning_tree

from qtorch.nn.graph import Graph
from qtorch.portfolio.graphs.correlations import Correlations
from qtorch.portfolio.graphs.undirected import undirected


def minimum_spanning_tree(correlations: Correlations) -> Graph:
    """For each date the tree over its assets whose distances `sqrt(2 (1 - r))` sum to the least.

    Edges go both ways and weigh the correlation. Pairs without a correlation are no edges, so that the tree may fall
    into several.

    Args:
        correlations: of R dates.

    References:
        Mantegna (1999), Hierarchical structure in financial markets, European Physical Journal B 11.
    """
    pairs = []
    for values in correlations.values.cpu().double().numpy():
        # The tree depends on the order of distances alone; 0 would be no edge.
        distance = np.where(np.isnan(values), 0.0, 2.0 - values)
        tree = spanning_tree(np.triu(distance, 1)).tocoo()
        pairs.append(np.stack([tree.row, tree.col]).astype(np.int64))
    return undirected([torch.from_numpy(each) for each in pairs], correlations)
