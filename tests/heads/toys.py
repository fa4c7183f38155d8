"""Two clusters of assets whose dependence is no copula of factors, and how well heads learn it."""

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import LowRankMultivariateNormal, Normal

from qtorch.distributions import take
from qtorch.distributions.cumulative import ndtr
from qtorch.heads import AttentionalCopulaHead, CouplingFlowHead
from qtorch.risk import fit_copula

one_horizon = partial(CouplingFlowHead, horizons=(1,))


def law_of(head: nn.Module, hidden: Tensor, mask: Tensor | None = None) -> Any:
    """A head's law over its one horizon, batch shape `[*batch]`."""
    law = head(hidden, mask)
    return take(law, (..., 0)) if isinstance(head, CouplingFlowHead) else law


def sizes(rows: int, N: int, common: float = 0.9) -> Tensor:
    """Standard normal scores `[rows, N]` of two clusters: one moves with a market, one with the size of its moves."""
    market = torch.randn(rows, 1)
    size = torch.special.ndtri((2 * ndtr(market.abs().double()) - 1).clamp(1e-12, 1 - 1e-12)).float()
    driver = torch.where(torch.arange(N) % 2 == 0, market, size)
    return common**0.5 * driver + (1 - common) ** 0.5 * torch.randn(rows, N)


def regimes(rows: int, N: int, common: float = 0.8) -> Tensor:
    """Standard normal scores `[rows, N]`: all correlate by `common`, but on half the days clusters by minus that."""
    sides = _sides(N, torch.where(torch.rand(rows, 1) < 0.5, 1.0, -1.0))
    return common**0.5 * sides * torch.randn(rows, 1) + (1 - common) ** 0.5 * torch.randn(rows, N)


def regimes_log_ratio(scores: Tensor, common: float = 0.8) -> Tensor:
    """The true log density of `regimes` beyond that of independent normals, `[rows]`."""
    N, found = scores.shape[-1], []
    for other in (1.0, -1.0):
        loadings = common**0.5 * _sides(N, torch.tensor(other)).unsqueeze(-1)
        found.append(LowRankMultivariateNormal(torch.zeros(N), loadings, torch.full((N,), 1 - common)).log_prob(scores))
    return torch.logsumexp(torch.stack(found), 0) - math.log(2) - Normal(0.0, 1.0).log_prob(scores).sum(-1)


def _sides(N: int, other: Tensor) -> Tensor:
    return torch.where(torch.arange(N) % 2 == 0, 1.0, other)


def train(head: nn.Module, hidden: Tensor, scores: Tensor, steps: int) -> None:
    """Maximum likelihood on random rows, a law of all of which is the same; the rate rises first and then falls."""
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, steps)
    head.train()
    for _ in range(steps):
        x = scores[torch.randint(0, len(scores), (128,))]
        law = law_of(head, hidden.expand(128, *hidden.shape))
        found = law.log_prob_of_scores(x.double()) if isinstance(head, AttentionalCopulaHead) else law.log_prob(x)
        optimizer.zero_grad()
        (-found.mean()).backward()
        optimizer.step()
        schedule.step()
    head.eval()


@torch.no_grad()
def held_out(head: nn.Module, hidden: Tensor, fitting: Tensor, fresh: Tensor, factors: int) -> tuple[float, float]:
    """Mean log density of fresh rows beyond that of independent normals, of the head and of the best t copula."""
    law = law_of(head, hidden)
    if isinstance(head, AttentionalCopulaHead):
        gain = law.log_prob_of_scores(fresh.double()).mean()
    else:
        gain = (law.log_prob(fresh) - Normal(0.0, 1.0).log_prob(fresh).sum(-1)).mean()
    copula = fit_copula(ndtr(fitting.double()), factors=factors)
    return gain.item(), copula.log_prob_of_scores(fresh.double()).mean().item()
