"""Layers over graphs of assets, batched over dates; nodes that are masked neither send nor receive."""

from qtorch.nn.graph.conversions import from_networkx, from_pyg, to_networkx, to_pyg
from qtorch.nn.graph.gatv2 import GATv2
from qtorch.nn.graph.gcn import GCN
from qtorch.nn.graph.graph import Graph
from qtorch.nn.graph.relational import RelationalGCN
from qtorch.nn.graph.sage import GraphSAGE
from qtorch.nn.graph.transformer import GraphTransformer
from qtorch.nn.graph.tree import Tree
from qtorch.nn.graph.tree_lstm import TreeLSTM, TreeStates

__all__ = [
    "GCN",
    "GATv2",
    "Graph",
    "GraphSAGE",
    "GraphTransformer",
    "RelationalGCN",
    "Tree",
    "TreeLSTM",
    "TreeStates",
    "from_networkx",
    "from_pyg",
    "to_networkx",
    "to_pyg",
]
