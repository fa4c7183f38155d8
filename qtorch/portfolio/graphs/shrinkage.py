"""Correlations shrunk towards a simple matrix, by as much as their errors warrant."""

import torch
from jaxtyping import Float
from torch import Tensor

from qtorch.distributions.checks import require
from qtorch.portfolio.graphs.correlations import Correlations
from qtorch.portfolio.graphs.semidefinite import positive_semidefinite

TARGETS = ("constant", "identity")


def shrunk(
    correlations: Correlations, target: str = "constant", intensity: float | Float[Tensor, " R"] | None = None
) -> Correlations:
    """Correlations `(1 - a) r_ij + a t_ij`, made positive semidefinite where they are not.

    The target t is the mean correlation of the date, or 0. Pairs with too few common observations get the target. The
    rest is pulled by `shrinkage_intensity` unless another intensity is given.

    Args:
        correlations: of R dates.
        target: ``"constant"`` or ``"identity"``.
        intensity: a in [0, 1], for all dates or for each; None estimates it.

    Raises:
        ValueError: the target is unknown, or an intensity is outside [0, 1].

    References:
        Ledoit and Wolf (2004), Honey, I shrunk the sample covariance matrix, Journal of Portfolio Management 30.
    """
    require(target in TARGETS, "target", target, f"one of {', '.join(TARGETS)} is needed")
    there = _pairs(correlations)
    mean = (
        _mean(correlations.values, there)
        if target == "constant"
        else torch.zeros_like(there[:, 0, 0], dtype=torch.float32)
    )
    a = shrinkage_intensity(correlations, target) if intensity is None else torch.as_tensor(intensity).to(mean)
    require(bool(((a >= 0) & (a <= 1)).all()), "intensity", a.tolist(), "numbers in [0, 1] are needed")
    a, towards = a.expand(len(mean))[:, None, None], mean[:, None, None]
    values = torch.where(there, (1 - a) * correlations.values + a * towards, towards)
    alive = torch.logical_and(correlations.mask[:, :, None], correlations.mask[:, None, :])
    values = torch.where(alive, values, torch.nan)
    values.diagonal(dim1=1, dim2=2).masked_fill_(correlations.mask, 1.0)
    return positive_semidefinite(correlations.with_values(values))


def shrinkage_intensity(correlations: Correlations, target: str = "constant") -> Float[Tensor, " R"]:
    """The share of the target that makes the expected squared error least, estimated.

    It is the sum over pairs of `Var r_ij - Cov(r_ij, t)` over that of `(r_ij - t)^2`, in [0, 1]. Ledoit and Wolf take
    the variances from the fourth moments of each pair; here they are those of elliptical returns,
    `s (1 - r_ij^2)^2 / (n_ij - 1)`, with s the date's `storms`, the mean of the same moments over all pairs, and n_ij
    the pair's own observations, which holds for incomplete data and exponential weights as well. The variance of the
    mean correlation, which is what `Cov` sums to, is taken at equal correlations:
    `2 s (1 - r)^2 (1 + (N - 1) r)^2 / (N (N - 1) n)`.

    Args:
        correlations: of R dates.
        target: ``"constant"`` or ``"identity"``.

    Returns:
        0 where a date has no pair.

    References:
        Ledoit and Wolf (2003), Improved estimation of the covariance matrix of stock returns, Journal of Empirical
        Finance 10, equation 10; Muirhead (1982), Aspects of Multivariate Statistical Theory, section 5.1.4, for
        the variances; Olkin and Siotani (1976), in Essays in Probability and Statistics, for that of the mean.
    """
    require(target in TARGETS, "target", target, f"one of {', '.join(TARGETS)} is needed")
    there = _pairs(correlations)
    r, counts = torch.where(there, correlations.values, 0.0), (correlations.counts - 1).clamp(min=1.0)
    variance = torch.where(there, (1 - r**2) ** 2 / counts, 0.0).sum((1, 2))
    towards = torch.zeros_like(variance)
    if target == "constant":
        towards = _mean(correlations.values, there)
        N, number = correlations.mask.sum(1), there.sum((1, 2)).clamp(min=1)
        inverse = torch.where(there, 1 / counts, 0.0).sum((1, 2)) / number
        variance = variance - 2 * ((1 - towards) * (1 + (N - 1) * towards)) ** 2 * inverse
    distance = torch.where(there, (r - towards[:, None, None]) ** 2, 0.0).sum((1, 2))
    share = (correlations.storms * variance).clamp(min=0.0) / distance.clamp(min=torch.finfo(distance.dtype).tiny)
    return torch.where(there.any(2).any(1), share.clamp(max=1.0), 0.0)


def _pairs(correlations: Correlations) -> Tensor:
    """Where two different assets have a correlation."""
    N = correlations.mask.shape[1]
    return torch.logical_and(
        correlations.values.isfinite(), ~torch.eye(N, dtype=torch.bool, device=correlations.mask.device)
    )


def _mean(values: Tensor, there: Tensor) -> Float[Tensor, " R"]:
    return torch.where(there, values, 0.0).sum((1, 2)) / there.sum((1, 2)).clamp(min=1)
