"""Backtests of value at risk over a whole panel at once, with masks for missing days."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LikelihoodRatio:
    """A likelihood-ratio test of every series of a panel.

    Attributes:
        statistic: 0 where the sample cannot differ from the hypothesis.
        p_value: of the chi-squared law; NaN where there is no observation.
    """

    statistic: Float64[Tensor, "*series"]
    p_value: Float64[Tensor, "*series"]


def kupiec(exceeded: Bool[Tensor, "T *series"], mask: Bool[Tensor, "T *series"], probability: float) -> LikelihoodRatio:
    """Proportion-of-failures test: are there as many exceedances as the level promises?

    Args:
        exceeded: whether the loss was beyond the value at risk.
        mask: which days count.
        probability: of an exceedance, 1 - level.

    References:
        Kupiec (1995), Techniques for verifying the accuracy of risk measurement models, Journal of Derivatives 3.
    """
    n = mask.sum(0).double()
    x = (exceeded & mask).sum(0).double()
    p = torch.tensor(probability, dtype=torch.float64, device=n.device)
    statistic = 2 * (_log_likelihood(x, n, x / n.clamp(min=1)) - _log_likelihood(x, n, p)).clamp(min=0)
    return LikelihoodRatio(statistic, torch.where(n > 0, torch.erfc(torch.sqrt(statistic / 2)), torch.nan))


def christoffersen(
    exceeded: Bool[Tensor, "T *series"], mask: Bool[Tensor, "T *series"], probability: float
) -> tuple[LikelihoodRatio, LikelihoodRatio]:
    """Tests of independence against a Markov chain, and of conditional coverage (independence and coverage jointly).

    Days that do not count are skipped: a series' consecutive observations are neighbours.

    Args:
        exceeded: whether the loss was beyond the value at risk.
        mask: which days count.
        probability: of an exceedance, 1 - level.

    Returns:
        Independence (one degree of freedom) and conditional coverage (two).

    References:
        Christoffersen (1998), Evaluating interval forecasts, International Economic Review 39, equations 7 to 12.
    """
    order = torch.argsort((~mask).to(torch.uint8), dim=0, stable=True)
    hit = torch.gather(exceeded & mask, 0, order)
    there = torch.gather(mask, 0, order)
    pair = there[:-1] & there[1:]
    before, now = hit[:-1], hit[1:]
    n0, n1 = (~before & pair).sum(0).double(), (before & pair).sum(0).double()
    n01, n11 = (~before & now & pair).sum(0).double(), (before & now & pair).sum(0).double()
    share = (n01 + n11) / (n0 + n1).clamp(min=1)
    chain = _log_likelihood(n01, n0, n01 / n0.clamp(min=1)) + _log_likelihood(n11, n1, n11 / n1.clamp(min=1))
    statistic = 2 * (chain - _log_likelihood(n01 + n11, n0 + n1, share)).clamp(min=0)
    some = n0 + n1 > 0
    independence = LikelihoodRatio(statistic, torch.where(some, torch.erfc(torch.sqrt(statistic / 2)), torch.nan))
    joint = statistic + kupiec(exceeded, mask, probability).statistic
    return independence, LikelihoodRatio(joint, torch.where(some, torch.exp(-joint / 2), torch.nan))


def traffic_light(
    exceedances: Int64[Tensor, "*series"], observations: Int64[Tensor, "*series"], probability: float = 0.01
) -> Int64[Tensor, "*series"]:
    """Basel's zones: 0 green, 1 yellow, 2 red; -1 where there is no observation.

    Yellow begins where the binomial probability of at most that many exceedances reaches 95 %, red where it reaches
    99.99 %: at 5 and 10 exceedances of 250 at the 99 % level.

    Args:
        exceedances: how many.
        observations: of how many days.
        probability: of an exceedance, 1 - level.

    References:
        Basel Committee on Banking Supervision (2019), MAR32.9 and MAR99.12 to MAR99.19.
    """
    n = observations.double().unsqueeze(-1)
    k = torch.arange(int(observations.max()) + 1 if observations.numel() else 1, device=n.device).double()
    log_mass = (
        torch.lgamma(n + 1)
        - torch.lgamma(k + 1)
        - torch.lgamma((n - k).clamp(min=0) + 1)
        + k * torch.log(torch.tensor(probability, dtype=torch.float64))
        + (n - k) * torch.log1p(torch.tensor(-probability, dtype=torch.float64))
    )
    mass = torch.where(k <= n, torch.exp(log_mass), 0.0)
    at_most = mass.cumsum(-1).gather(-1, exceedances.unsqueeze(-1)).squeeze(-1)
    zone = (at_most >= 0.95).long() + (at_most >= 0.9999).long()
    return torch.where(observations > 0, zone, -1)


def _log_likelihood(successes: Tensor, trials: Tensor, probability: Tensor) -> Float64[Tensor, "*series"]:
    """Bernoulli log-likelihood with 0 log 0 = 0."""
    return torch.xlogy(successes, probability) + torch.xlogy(trials - successes, 1 - probability)
