"""Graphs of assets from a panel, of what is known at each date."""

from qtorch.portfolio.graphs.builder import GraphBuilder
from qtorch.portfolio.graphs.combined import combined
from qtorch.portfolio.graphs.correlations import Correlations, ewma_correlation, rolling_correlation
from qtorch.portfolio.graphs.dendrogram import dendrogram
from qtorch.portfolio.graphs.filtered import tmfg
from qtorch.portfolio.graphs.learned import LearnedGraph
from qtorch.portfolio.graphs.neighbours import k_nearest, threshold
from qtorch.portfolio.graphs.relations import Relation, related, same_label
from qtorch.portfolio.graphs.semidefinite import positive_semidefinite
from qtorch.portfolio.graphs.shrinkage import shrinkage_intensity, shrunk
from qtorch.portfolio.graphs.spanning_tree import minimum_spanning_tree

__all__ = [
    "Correlations",
    "GraphBuilder",
    "LearnedGraph",
    "Relation",
    "combined",
    "dendrogram",
    "ewma_correlation",
    "k_nearest",
    "minimum_spanning_tree",
    "positive_semidefinite",
    "related",
    "rolling_correlation",
    "same_label",
    "shrinkage_intensity",
    "shrunk",
    "threshold",
    "tmfg",
]
