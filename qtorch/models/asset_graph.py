"""States of assets that know of each other: an encoder, and graph layers over correlations."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from qtorch.nn.graph import Graph, GraphTransformer

RELATIONS = 3  # features of an asset in each estimate: its volatility and correlations beside those of the others


class AssetGraph(nn.Module):
    """Maps the windows of all assets at a date, and how they move together, to a state for each.

    An encoder reads each asset's own sessions; layers of attention over a graph, whose scores are biased by the weights
    and kinds of edges, let it hear from others. Nothing depends on the assets' order or number.

    Args:
        encoder: a module `(inputs [B C F], mask [B C]) -> [B C D]` in asset layout with `out_features`, such as
            `Recurrent`.
        estimates: P estimates of volatilities and correlations.
        width: of a state.
        layers: of attention; 0 leaves assets alone.
        heads: they divide the width.
        kinds: of edges, where the graphs have kinds; 0 for none. Graphs have weights.

    Example:
        >>> from qtorch.models import Recurrent
        >>> net = AssetGraph(Recurrent(4, width=8), estimates=2, width=8, heads=2)
        >>> inputs, mask, universe = torch.randn(3, 5, 16, 4), torch.ones(3, 5, 16).bool(), torch.ones(3, 5).bool()
        >>> correlation, volatility = torch.eye(5).expand(3, 2, 5, 5), torch.full((3, 2, 5), 0.01)
        >>> graph = Graph.from_dense(torch.rand(3, 5, 5), universe)
        >>> net(inputs, mask, universe, correlation, volatility, graph).shape
        torch.Size([3, 5, 8])
    """

    def __init__(
        self,
        encoder: nn.Module,
        estimates: int = 3,
        width: int = 32,
        layers: int = 1,
        heads: int = 4,
        kinds: int = 0,
    ) -> None:
        super().__init__()
        self.encoder, self.estimates, self.width = encoder, estimates, width
        self.layers, self.heads, self.kinds = layers, heads, kinds
        features: int = encoder.out_features  # type: ignore[assignment]
        self.enter = nn.Linear(features + RELATIONS * estimates, width)
        self.mixers = nn.ModuleList(
            GraphTransformer(width, width, heads, weighted=True, kinds=kinds) for _ in range(layers)
        )
        self.steps = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers + 1))

    @property
    def out_features(self) -> int:
        """The width of a state."""
        return self.width

    def forward(
        self,
        inputs: Float[Tensor, "R N C F"],
        mask: Bool[Tensor, "R N C"],
        universe: Bool[Tensor, "R N"],
        correlation: Float[Tensor, "R P N N"],
        volatility: Float[Tensor, "R P N"],
        graph: Graph,
    ) -> Float[Tensor, "R N D"]:
        """States, 0 outside the universe, whose assets are not heard either."""
        R, N = universe.shape
        there = torch.logical_and(mask, universe.unsqueeze(-1))
        hidden = self.encoder(inputs.flatten(0, 1), there.flatten(0, 1))[:, -1].unflatten(0, (R, N))
        related = relations(universe, correlation, volatility)
        x = torch.cat((hidden, related), -1)
        x = nn.functional.gelu(self.enter(torch.where(universe.unsqueeze(-1), x, 0.0)))
        for mixer, step, norm in zip(self.mixers, self.steps, self.norms, strict=False):
            x = x + step(nn.functional.gelu(mixer(norm(x), graph)))
        return torch.where(universe.unsqueeze(-1), self.norms[-1](x), 0.0)


def relations(
    universe: Bool[Tensor, "R N"], correlation: Float[Tensor, "R P N N"], volatility: Float[Tensor, "R P N"]
) -> Float[Tensor, "R N P3"]:
    """Of each asset and estimate: log volatility and mean correlation beside the universe's means, and that mean."""
    among = universe.unsqueeze(1).to(volatility.dtype)  # [R 1 N]
    count = among.sum(-1, keepdim=True)
    log_volatility = torch.where(universe.unsqueeze(1), volatility, 1.0).log()
    level = (log_volatility * among).sum(-1, keepdim=True) / count.clamp(min=1)
    others = (correlation * among.unsqueeze(-2)).sum(-1) - among  # the diagonal is 1
    mean = others / (count - 1).clamp(min=1)
    overall = (mean * among).sum(-1, keepdim=True) / count.clamp(min=1)
    parts = torch.stack((log_volatility - level, mean - overall, overall.expand_as(mean)), -1)
    return torch.where(universe.unsqueeze(1).unsqueeze(-1), parts, 0.0).transpose(1, 2).flatten(2)
