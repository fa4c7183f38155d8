"""Scores for portfolios, which a graph network makes: tilts of a simple portfolio."""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qtorch.distributions.checks import require
from qtorch.models.asset_graph import AssetGraph
from qtorch.models.market_state import MarketState

PRIORS = ("equal", "inverse_volatility")


class GraphScores(nn.Module):
    r"""Maps the state of a market to ideal weights $y_i = p_i\,(1 + r \tanh s_i)$, for a layer such as `Projected`.

    The portfolio p is one that needs no learning, and s a learned score of each asset's state, 0 at first: so training
    starts at p, and no asset is ever tilted by more than the reach r. What a few decades of returns can teach about
    means is little, and p is hard to beat by more than chance.

    Args:
        states: makes the assets' states.
        reach: r in [0, 1].
        prior: p: ``"equal"`` or ``"inverse_volatility"``, by the slowest estimate.

    Raises:
        ValueError: a setting is out of bounds.

    References:
        DeMiguel, Garlappi and Uppal (2009), Optimal versus naive diversification, Review of Financial Studies 22.
    """

    names: ClassVar[tuple[str, ...]] = ("scores",)

    def __init__(self, states: AssetGraph, reach: float = 0.5, prior: str = "equal") -> None:
        super().__init__()
        require(0 <= reach <= 1, "reach", reach, "give a share in [0, 1], such as 0.5")
        require(prior in PRIORS, "prior", prior, f"give one of {', '.join(PRIORS)}")
        self.states, self.reach, self.prior = states, reach, prior
        self.score = nn.Linear(states.out_features, 1)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)

    def forward(self, market: MarketState) -> Float[Tensor, "R N"]:
        """Ideal weights, which add up to 1 before the tilts; 0 outside the universe."""
        universe, states = market.universe, self.states(market)
        size = torch.ones_like(states[..., 0]) if self.prior == "equal" else market.volatility[:, -1].reciprocal()
        size = torch.where(universe, size, 0.0)
        prior = size / size.sum(-1, keepdim=True).clamp(min=torch.finfo(size.dtype).tiny)
        return prior * (1 + self.reach * torch.tanh(self.score(states).squeeze(-1)))
