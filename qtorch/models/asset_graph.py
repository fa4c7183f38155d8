"""States of assets that know of each other: an encoder, and layers by which they hear of each other."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from qtorch.distributions.checks import require
from qtorch.distributions.transforms.bijection import promoted
from qtorch.models.market_state import MarketState
from qtorch.models.mixers import OverGraph
from qtorch.nn.graph import GraphTransformer

RELATIONS = 3  # features of an asset in each estimate: its volatility and correlations beside those of the others


class AssetGraph(nn.Module):
    """Maps the windows of all assets at a date, and how they move together, to a state for each.

    An encoder reads each asset's own sessions; then mixers let it hear from others, one after the other, each with a
    norm before it and a residual around it. Nothing depends on the assets' order or number.

    Args:
        encoder: a module `(inputs [B C F], mask [B C]) -> [B C D]` in asset layout with `out_features`, such as
            `Recurrent`.
        estimates: P estimates of volatilities and correlations, as many as the half-lives of an `Allocator`.
        width: of a state.
        mixers: modules `(x [R N D], market) -> [R N E]` with `in_features`, which is the width, and `out_features`,
            such as `OverGraph`, `OverTree` and `OverLearnedGraph`; by default attention over the market's graph by its
            edges' weights. Without any, ``()``, assets are left alone.

    Raises:
        ValueError: a mixer takes another width.

    Example:
        >>> from qtorch.models import OverGraph, Recurrent
        >>> from qtorch.nn.graph import GATv2, Graph
        >>> mixers = [OverGraph(GATv2(8, 8, weighted=True))]
        >>> net = AssetGraph(Recurrent(4, width=8), estimates=2, width=8, mixers=mixers)
        >>> universe = torch.ones(3, 5).bool()
        >>> market = MarketState(torch.randn(3, 5, 16, 4), torch.ones(3, 5, 16).bool(), universe,
        ...                      torch.eye(5).expand(3, 2, 5, 5), torch.full((3, 2, 5), 0.01),
        ...                      Graph.from_dense(torch.rand(3, 5, 5), universe))
        >>> net(market).shape
        torch.Size([3, 5, 8])
    """

    def __init__(
        self,
        encoder: nn.Module,
        estimates: int = 2,
        width: int = 32,
        mixers: Sequence[nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.estimates, self.width = encoder, estimates, width
        features: int = encoder.out_features  # type: ignore[assignment]
        self.enter = nn.Linear(features + RELATIONS * estimates, width)
        chosen = [OverGraph(GraphTransformer(width, width, weighted=True))] if mixers is None else list(mixers)
        for n, mixer in enumerate(chosen):
            heard = mixer.in_features
            require(bool(heard == width), f"mixers[{n}].in_features", heard, f"give the width of states, {width}")
        self.mixers = nn.ModuleList(chosen)
        self.steps = nn.ModuleList(nn.Linear(mixer.out_features, width) for mixer in chosen)  # type: ignore[arg-type]
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(len(chosen) + 1))

    @property
    def out_features(self) -> int:
        """The width of a state."""
        return self.width

    def forward(self, market: MarketState) -> Float[Tensor, "R N D"]:
        """States, 0 outside the universe, whose assets are not heard either."""
        universe = market.universe
        R, N = universe.shape
        there = torch.logical_and(market.mask, universe.unsqueeze(-1))
        hidden = self.encoder(market.inputs.flatten(0, 1), there.flatten(0, 1))[:, -1].unflatten(0, (R, N))
        related = relations(universe, market.correlation, market.volatility)
        x = torch.cat((hidden, related), -1)
        x = promoted(nn.functional.gelu(self.enter(torch.where(universe.unsqueeze(-1), x, 0.0))))
        for mixer, step, norm in zip(self.mixers, self.steps, self.norms, strict=False):
            x = x + promoted(step(nn.functional.gelu(mixer(norm(x), market))))
        return torch.where(universe.unsqueeze(-1), promoted(self.norms[-1](x)), 0.0)


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
