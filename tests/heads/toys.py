"""Two clusters of assets that depend on each other but do not correlate, and how well heads learn it."""

import torch
from torch import Tensor, nn

from qtorch.distributions.cumulative import ndtr
from qtorch.heads import AttentionalCopulaHead
from qtorch.risk import fit_copula


def sizes(rows: int, N: int, common: float = 0.9) -> Tensor:
    """Standard normal scores `[rows, N]` of two clusters: one moves with a market, one with the size of its moves."""
    market = torch.randn(rows, 1)
    size = torch.special.ndtri((2 * ndtr(market.abs().double()) - 1).clamp(1e-12, 1 - 1e-12)).float()
    driver = torch.where(torch.arange(N) % 2 == 0, market, size)
    return common**0.5 * driver + (1 - common) ** 0.5 * torch.randn(rows, N)


def train(head: nn.Module, hidden: Tensor, scores: Tensor, steps: int) -> None:
    """Maximum likelihood on random rows, a law of all of which is the same."""
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    head.train()
    for _ in range(steps):
        x = scores[torch.randint(0, len(scores), (128,))]
        law = head(hidden.expand(128, *hidden.shape))
        found = law.log_prob_of_scores(x.double()) if isinstance(head, AttentionalCopulaHead) else law.log_prob(x)
        optimizer.zero_grad()
        (-found.mean()).backward()
        optimizer.step()
    head.eval()


@torch.no_grad()
def held_out(head: nn.Module, hidden: Tensor, fitting: Tensor, fresh: Tensor, factors: int) -> tuple[float, float]:
    """Mean log density of fresh rows beyond that of independent normals, of the head and of the best t copula."""
    law = head(hidden)
    if isinstance(head, AttentionalCopulaHead):
        gain = law.log_prob_of_scores(fresh.double()).mean()
    else:
        gain = (law.log_prob(fresh) - torch.distributions.Normal(0.0, 1.0).log_prob(fresh).sum(-1)).mean()
    copula = fit_copula(ndtr(fitting.double()), factors=factors)
    return gain.item(), copula.log_prob_of_scores(fresh.double()).mean().item()
