"""The conformal quantile of scores: weighted, pooled over groups, with the mass of the score to come."""

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor


def conformal_quantile(
    scores: Float64[Tensor, "W *series"],
    probability: float | Float64[Tensor, "#*series"],
    weights: Float64[Tensor, " W"] | None = None,
    mask: Bool[Tensor, "W *series"] | None = None,
) -> Float64[Tensor, "*series"]:
    """The least score q at which the weight at or below q reaches a share of all weights, one more score's included.

        q = inf {q: sum_i w_i 1{s_i <= q} >= (1 - p) (1 + sum_i w_i)},

    the next score having weight 1. With n equal weights of 1 it is the ceil((1 - p)(n + 1))-th smallest score.

    Guarantee: if the n scores and the next are exchangeable and the weights all 1, the next exceeds q with probability
    at most p, and if scores have no ties at least p - 1 / (n + 1). With other weights, fixed before the scores are
    seen, at most p plus sum_i w_i d_i / (1 + sum w), d_i the total variation distance that exchanging the i-th score
    with the next makes to the law of all of them (Barber et al. 2023, theorem 2). The probability is over the scores
    too: nothing is said given those at hand, or given the market.

    Args:
        scores: past ones, NaN where none.
        probability: p, of each series or of all.
        weights: in [0, 1], of each row; 1 by default.
        mask: which count, all by default.

    Returns:
        Infinite where p (1 + sum w) < 1: too few scores for so small a p.

    References:
        Vovk, Gammerman and Shafer (2005), Algorithmic learning in a random world; Romano, Patterson and Candes (2019),
        Conformalized quantile regression, NeurIPS, theorem 1; Barber, Candes, Ramdas and Tibshirani (2023), Conformal
        prediction beyond exchangeability, Annals of Statistics 51, section 3.
    """
    there = scores.isfinite() if mask is None else scores.isfinite() & mask
    row = recency(len(scores), None, scores) if weights is None else weights
    w = torch.where(there, row.reshape(-1, *[1] * (scores.ndim - 1)), 0.0)
    ordered, order = torch.where(there, scores, torch.inf).sort(0)
    reached = w.gather(0, order).cumsum(0)
    # Rounding of (1 - p)(1 + sum w) must not ask for a score more than the formula does.
    needed = (1 - probability) * (1 + w.sum(0)) * (1 - 1e-12)
    rank = (reached < needed).sum(0)
    q = ordered.gather(0, rank.clamp(max=len(scores) - 1).unsqueeze(0)).squeeze(0)
    return torch.where(rank < len(scores), q, torch.inf)


def pooled(scores: Float64[Tensor, "W *series N"], members: Int64[Tensor, " M"]) -> Float64[Tensor, "WM *series"]:
    """The scores of some assets as rows of one series, the rows of each asset together."""
    part = scores[..., members].movedim(-1, 0)
    return part.reshape(-1, *scores.shape[1:-1])


def members(groups: Int64[Tensor, " N"]) -> list[Int64[Tensor, " M"]]:
    """The assets of each group; one labelled -1 is a group of its own."""
    alone = [torch.tensor([n]) for n in (groups == -1).nonzero()[:, 0].tolist()]
    return alone + [(groups == label).nonzero()[:, 0].cpu() for label in groups.unique().tolist() if label != -1]


def recency(count: int, half_life: float | None, like: Tensor) -> Float64[Tensor, " W"]:
    """Weights 2^(-age / half-life), the last row's 1; all 1 without a half-life."""
    age = torch.arange(count - 1, -1, -1, dtype=torch.float64, device=like.device)
    return torch.ones_like(age) if half_life is None else 0.5 ** (age / half_life)
