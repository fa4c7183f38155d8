"""What is known of a market where weights are decided, as networks are fed it."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from qtorch.nn.graph import Graph, Tree


@dataclass(frozen=True, eq=False)
class MarketState:
    """What is known at R rows of a panel, nothing of which depends on a later row.

    Attributes:
        inputs: features of the last C own sessions of each asset, 0 where masked.
        mask: which of these positions hold a session.
        universe: the assets that weights may be given to.
        correlation: of session returns, P estimates; 0 where unknown, 1 on the diagonal.
        volatility: standard deviation of a session's return, P estimates; 1 outside the universe.
        graph: who hears from whom, within the universe.
        tree: the dendrogram of each row's universe, where a network needs one.

    Example:
        >>> universe = torch.ones(3, 5).bool()
        >>> market = MarketState(torch.randn(3, 5, 16, 4), torch.ones(3, 5, 16).bool(), universe,
        ...                      torch.eye(5).expand(3, 2, 5, 5), torch.full((3, 2, 5), 0.01),
        ...                      Graph.from_dense(torch.rand(3, 5, 5), universe))
        >>> len(market), len(market[:2])
        (3, 2)
    """

    inputs: Float[Tensor, "R N C F"]
    mask: Bool[Tensor, "R N C"]
    universe: Bool[Tensor, "R N"]
    correlation: Float[Tensor, "R P N N"]
    volatility: Float[Tensor, "R P N"]
    graph: Graph
    tree: Tree | None = None

    def __getitem__(self, at: Int64[Tensor, " Q"] | slice) -> "MarketState":
        """That of some of the rows."""
        return MarketState(
            self.inputs[at],
            self.mask[at],
            self.universe[at],
            self.correlation[at],
            self.volatility[at],
            self.graph[at],
            None if self.tree is None else self.tree[at],
        )

    def __len__(self) -> int:
        """The number of rows R."""
        return len(self.universe)

    def to(self, device: torch.device | str) -> "MarketState":
        """The same on a device."""
        return MarketState(
            self.inputs.to(device),
            self.mask.to(device),
            self.universe.to(device),
            self.correlation.to(device),
            self.volatility.to(device),
            self.graph.to(device),
            None if self.tree is None else self.tree.to(device),
        )
