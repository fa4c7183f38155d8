"""How assets hear from each other inside a network: layers over what is known of the market."""

from jaxtyping import Float
from torch import Tensor, nn

from qtorch.errors import ArgumentError
from qtorch.models.market_state import MarketState
from qtorch.nn.graph import TreeLSTM


class OverGraph(nn.Module):
    """A layer over the market's graph.

    Args:
        layer: `(x [R N F], graph) -> [R N D]` with `in_features` and `out_features`, such as `GraphTransformer`,
            `GATv2`, `GCN`, `GraphSAGE` or `RelationalGCN` of `qtorch.nn.graph`.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.in_features, self.out_features = layer.in_features, layer.out_features

    def forward(self, x: Float[Tensor, "R N F"], market: MarketState) -> Float[Tensor, "R N D"]:
        """The states after the assets heard from their neighbours; 0 outside the universe."""
        heard: Tensor = self.layer(x, market.graph)
        return heard


class OverTree(nn.Module):
    """A Tree-LSTM over the dendrogram of each row: up to the market and down to the asset.

    Trees differ from row to row, so that compiled code is compiled anew for those of other shapes.

    Args:
        layer: the Tree-LSTM.
    """

    needs_tree = True  # for `DecisionSource`

    def __init__(self, layer: TreeLSTM) -> None:
        super().__init__()
        self.layer = layer
        self.in_features, self.out_features = layer.in_features, layer.width

    def forward(self, x: Float[Tensor, "R N F"], market: MarketState) -> Float[Tensor, "R N D"]:
        """The states after the way down; 0 outside the universe.

        Raises:
            ValueError: the market has no tree.
        """
        if market.tree is None:
            raise ArgumentError("OverTree needs market.tree: give one, as DecisionSource(..., trees=True) does.")
        leaves: Tensor = self.layer(x, market.tree).leaves
        return leaves


class OverLearnedGraph(nn.Module):
    """A layer over a graph that is learned with the model, out of the assets' states.

    The gradient reaches the graph through the weights of its edges: take a layer that looks at them, such as
    ``GATv2(..., weighted=True)``.

    Args:
        learned: makes the graph, such as `qtorch.portfolio.graphs.LearnedGraph`: `(states, universe) -> graph`, with
            `in_features`.
        layer: as of `OverGraph`.

    Raises:
        ValueError: graph and layer take states of different widths.
    """

    def __init__(self, learned: nn.Module, layer: nn.Module) -> None:
        super().__init__()
        if learned.in_features != layer.in_features:
            raise ArgumentError(
                f"the learned graph takes states of width {learned.in_features}, but its layer takes "
                f"{layer.in_features}: give both the same in_features."
            )
        self.learned, self.layer = learned, layer
        self.in_features, self.out_features = layer.in_features, layer.out_features

    def forward(self, x: Float[Tensor, "R N F"], market: MarketState) -> Float[Tensor, "R N D"]:
        """The states after the assets heard from their neighbours; 0 outside the universe."""
        heard: Tensor = self.layer(x, self.learned(x, market.universe))
        return heard
