"""A covariance for portfolios, which a graph network makes out of several estimates."""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qtorch.models.asset_graph import AssetGraph
from qtorch.models.market_state import MarketState

FLOOR = 1e-3  # of an asset's variance that is its own, whatever the estimates say


class GraphCovariance(nn.Module):
    r"""Maps the state of a market to a covariance, to be learned by what portfolios made of it earn.

    $\Sigma = D\,[(1 - s - g)\,\sum_p a_p C_p + s\,\bar\rho + g\,U U^T]\,D$ off the diagonal, and $D^2$ on it. So
    correlations are a mixture of estimates with weights a, shrunk by s to their mean $\bar\rho$ and by g to factors
    whose loadings u (at most of length 1) come from the assets' states; volatilities D are a geometric mean of
    estimates, each moved by what its state says. At first it is the mixture with equal weights, shrunk by a quarter,
    and learning moves it away from there. Where pairwise estimates make it indefinite, the diagonal is raised.

    Args:
        states: makes the assets' states.
        factors: k of the learned correlations.
        reach: most by which a state may move the log of a volatility.

    References:
        Ledoit and Wolf (2004), Honey, I shrunk the sample covariance matrix, Journal of Portfolio Management 30, for
        the shrinkage to the mean correlation.
    """

    names: ClassVar[tuple[str, ...]] = ("correlation", "volatility")

    def __init__(self, states: AssetGraph, factors: int = 4, reach: float = 0.5) -> None:
        super().__init__()
        self.states, self.factors, self.reach = states, factors, reach
        P = states.estimates
        self.of_correlations, self.of_volatilities = nn.Parameter(torch.zeros(P)), nn.Parameter(torch.zeros(P))
        self.shares = nn.Parameter(torch.tensor([0.0, -1.0, -3.0]))  # of estimates, mean and factors, as logits
        self.loadings = nn.Linear(states.out_features, factors)
        self.move = nn.Linear(states.out_features, 1)
        nn.init.zeros_(self.move.weight)
        nn.init.zeros_(self.move.bias)

    def forward(self, market: MarketState) -> Float[Tensor, "R N N"]:
        """Covariances of session returns but for a factor; positive definite; the identity outside the universe."""
        return self.views(*self.parts(market))

    def parts(self, market: MarketState) -> tuple[Float[Tensor, "R N N"], Float[Tensor, "R N"]]:
        """Correlations, which need not be definite yet, and volatilities but for a factor: what can be exported."""
        universe, states = market.universe, self.states(market)
        both = torch.logical_and(universe.unsqueeze(-1), universe.unsqueeze(-2))
        own = torch.eye(universe.shape[-1], dtype=torch.bool, device=universe.device)
        others = torch.logical_and(both, ~own)
        C = (market.correlation * torch.softmax(self.of_correlations, 0)[:, None, None]).sum(1)
        C = torch.where(others, C, 0.0)
        mean = C.sum((-2, -1), keepdim=True) / others.sum((-2, -1), keepdim=True).clamp(min=1)
        u = self.loadings(states)
        u = u * torch.rsqrt(1 + u.square().sum(-1, keepdim=True))
        of_estimates, of_mean, of_factors = torch.softmax(self.shares, 0)
        C = of_estimates * C + of_mean * mean + of_factors * (u @ u.mT)
        C = torch.where(own, 1.0, torch.where(others, C, 0.0))
        log_volatility = (market.volatility.log() * torch.softmax(self.of_volatilities, 0)[:, None]).sum(1)
        log_volatility = log_volatility + self.reach * torch.tanh(self.move(states).squeeze(-1))
        level = (log_volatility * universe).sum(-1, keepdim=True) / universe.sum(-1, keepdim=True).clamp(min=1)
        return C, torch.where(universe, torch.exp(log_volatility - level), 1.0)

    @staticmethod
    def views(correlation: Float[Tensor, "R N N"], volatility: Float[Tensor, "R N"]) -> Float[Tensor, "R N N"]:
        """The covariances of `forward`, of its `parts`."""
        return definite(correlation) * volatility.unsqueeze(-1) * volatility.unsqueeze(-2)


def definite(C: Float[Tensor, "R N N"]) -> Float[Tensor, "R N N"]:
    """Adds to the diagonal what the smallest eigenvalue lacks of the floor, and makes it 1 again."""
    smallest = torch.linalg.eigvalsh(C.detach().double())[:, :1, None].to(C.dtype)
    lacks = (FLOOR - smallest).clamp(min=0)
    own = torch.eye(C.shape[-1], dtype=C.dtype, device=C.device)
    return (C + lacks * own) / (1 + lacks)
