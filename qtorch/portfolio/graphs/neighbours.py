"""Graphs of the most correlated: the k nearest of each asset, or all above a threshold."""

import torch
from jaxtyping import Float
from torch import Tensor

from qtorch.distributions.checks import require
from qtorch.nn.graph import Graph
from qtorch.portfolio.graphs.correlations import Correlations


def k_nearest(correlations: Correlations, k: int, absolute: bool = False, mutual: bool = False) -> Graph:
    """Each asset hears from the k others with which it correlates most; edges weigh the correlation.

    Args:
        correlations: of R dates.
        k: neighbours; fewer where there are not as many.
        absolute: the most by absolute value.
        mutual: keep an edge only if each is among the other's k.

    Raises:
        ValueError: k is below 1.

    Example:
        >>> from qtorch.data import Panel, load_sample
        >>> from qtorch.portfolio.graphs import rolling_correlation
        >>> panel = Panel.from_frame(load_sample().query("date >= '2021-01-01' and exchange == 'XNYS'"))
        >>> graph = k_nearest(rolling_correlation(panel, [panel.row("2022-06-30")]), k=2)
        >>> [panel.assets[n] for n in graph.neighbours[0, panel.assets.index("CVX")]]
        ['XOM', 'RRC']
    """
    require(k >= 1, "k", k, "give 1 neighbour or more")
    score = _scores(correlations, absolute)
    best, neighbours = score.topk(min(k, score.shape[2]), dim=2)
    present = best > -torch.inf
    if mutual:
        chosen = torch.zeros_like(score, dtype=torch.bool).scatter(2, neighbours, present)
        present = torch.logical_and(present, chosen.mT.gather(2, neighbours))
    return Graph(neighbours, present, correlations.mask, correlations.values.gather(2, neighbours))


def threshold(correlations: Correlations, at: float, absolute: bool = False) -> Graph:
    """Assets that correlate by `at` or more hear from each other; edges weigh the correlation.

    Args:
        correlations: of R dates.
        at: the least correlation.
        absolute: the least absolute value.

    Raises:
        ValueError: `at` is not in [-1, 1], or not above 0 for absolute values.
    """
    low = 0.0 if absolute else -1.0
    require(low <= at <= 1, "at", at, f"give a correlation in [{low:g}, 1]")
    there = _scores(correlations, absolute) >= at
    most = max(int(there.sum(2).max()), 1)
    best, neighbours = torch.where(there, correlations.values, -torch.inf).topk(most, dim=2)
    return Graph(neighbours, best > -torch.inf, correlations.mask, best)


def _scores(correlations: Correlations, absolute: bool) -> Float[Tensor, "R N N"]:
    """The correlations with others, minus infinity where there is none."""
    values = correlations.values.abs() if absolute else correlations.values
    own = torch.eye(values.shape[1], dtype=torch.bool, device=values.device)
    return torch.where(torch.logical_or(values.isnan(), own), -torch.inf, values)
