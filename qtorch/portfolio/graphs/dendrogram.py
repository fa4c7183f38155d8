"""Trees of clusters of assets."""

from typing import Literal, get_args

import numpy as np
import torch
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform

from qtorch.distributions.checks import require
from qtorch.nn.graph import Tree
from qtorch.portfolio.graphs.correlations import Correlations

Linkage = Literal["average", "complete", "single", "ward"]


def dendrogram(correlations: Correlations, method: Linkage = "average") -> Tree:
    """For each date the tree of its assets by hierarchical clustering of the distances `sqrt((1 - r) / 2)`.

    Dead assets are merged last, one by one, where they change nothing. Pairs without a correlation are at the distance
    of uncorrelated ones.

    Args:
        correlations: of R dates.
        method: of linkage: ``"average"``, ``"complete"``, ``"single"`` or ``"ward"``.

    Raises:
        ValueError: the method is unknown.

    References:
        Lopez de Prado (2016), Building diversified portfolios that outperform out of sample, Journal of Portfolio
        Management 42, for the distance.

    Example:
        >>> from qtorch.data import Panel, load_sample
        >>> from qtorch.portfolio.graphs import rolling_correlation
        >>> panel = Panel.from_frame(load_sample().query("date >= '2021-01-01' and exchange == 'XNYS'"))
        >>> tree = dendrogram(rolling_correlation(panel, [panel.row("2022-06-30")]))
        >>> tree.merges.shape
        torch.Size([1, 19, 2])
    """
    require(method in get_args(Linkage), "method", method, f"one of {', '.join(get_args(Linkage))} is needed")
    merges = []
    for values, mask in zip(correlations.values.cpu().double().numpy(), correlations.mask.cpu().numpy(), strict=True):
        alive, dead = np.flatnonzero(mask), np.flatnonzero(~mask)
        r = np.nan_to_num(values[np.ix_(alive, alive)], nan=0.0)
        distance = np.sqrt((1 - r) / 2)
        np.fill_diagonal(distance, 0.0)
        joined = linkage(squareform(distance, checks=False), method)[:, :2] if len(alive) > 1 else np.empty((0, 2))
        merges.append(_numbered(joined.astype(np.int64), alive, dead))
    return Tree(torch.from_numpy(np.stack(merges)).to(correlations.mask.device), correlations.mask)


def _numbered(joined: np.ndarray, alive: np.ndarray, dead: np.ndarray) -> np.ndarray:
    """The merges of the living in the numbers of all leaves, and then those of the dead."""
    A, N = len(alive), len(alive) + len(dead)
    numbers = np.concatenate([alive, N + np.arange(N)])
    rest = np.concatenate([alive if A == 1 else [], dead]).astype(np.int64)
    if A > 1:
        rest = np.concatenate([[N + A - 2], dead])
    made = N + max(A - 1, 0) + np.arange(max(len(rest) - 1, 0))
    first = np.concatenate([rest[:1], made[:-1]])[: len(made)]
    return np.concatenate([numbers[joined].reshape(-1, 2), np.stack([first, rest[1:]], 1)]).astype(np.int64)
