"""Copulas of past probability integral transforms, by maximum likelihood."""

import math
from typing import Literal, overload

import torch
from jaxtyping import Float64
from torch import Tensor

from qtorch.distributions.checks import require
from qtorch.distributions.copulas import GaussianCopula, StudentTCopula, normal_scores
from qtorch.risk.scenarios import factor_model

_LEAST, _MOST = 2.0, 200.0  # degrees of freedom


@overload
def fit_copula(
    pit: Float64[Tensor, "T N"],
    factors: int = ...,
    weights: Float64[Tensor, " T"] | None = ...,
    *,
    gaussian: Literal[False] = ...,
    start: GaussianCopula | StudentTCopula | None = ...,
    iterations: int = ...,
) -> StudentTCopula: ...


@overload
def fit_copula(
    pit: Float64[Tensor, "T N"],
    factors: int = ...,
    weights: Float64[Tensor, " T"] | None = ...,
    *,
    gaussian: Literal[True],
    start: GaussianCopula | StudentTCopula | None = ...,
    iterations: int = ...,
) -> GaussianCopula: ...


def fit_copula(
    pit: Float64[Tensor, "T N"],
    factors: int = 3,
    weights: Float64[Tensor, " T"] | None = None,
    *,
    gaussian: bool = False,
    start: GaussianCopula | StudentTCopula | None = None,
    iterations: int = 40,
) -> GaussianCopula | StudentTCopula:
    """The second of two steps, marginals from any forecast being the first: dependence from their transforms.

    Maximises the likelihood of what was observed on each date, others left out exactly, over loadings L = A / sqrt(1 +
    |A|^2) and one df between 2 and 200, by L-BFGS in float64 from the leading factors of the pairwise complete
    correlations. A prior worth one date holds A near that start, where assets that have hardly met are taken for
    average. It sees the rows that it is given: a causal backtest gives those before it.

    Args:
        pit: transforms by date, such as of `qtorch.forecast.Forecast.pit`; NaN where an asset has none.
        factors: R, at most the number of assets.
        weights: of the dates, not negative, in any scale, such as halving every year; equal by default.
        gaussian: fit a Gaussian copula instead.
        start: a copula of as many assets and factors to start from, such as last month's.
        iterations: of L-BFGS, at most.

    Raises:
        ValueError: no date has two assets, a weight is negative or not finite, or the numbers of factors are not right.

    References:
        Genest, Ghoudi and Rivest (1995), A semiparametric estimation procedure of dependence parameters in multivariate
        families of distributions, Biometrika 82; Oh and Patton (2017), Modeling dependence in high dimensions with
        factor copulas, Journal of Business and Economic Statistics 35.
    """
    T, N = pit.shape
    require(1 <= factors <= N, "factors", factors, f"give 1 to {N}, the number of assets")
    w = torch.ones(T, dtype=torch.float64, device=pit.device) if weights is None else weights.double()
    good = w.shape == (T,) and bool((w.isfinite() & (w >= 0)).all())
    require(good, "weights", weights, f"give {T} numbers, none negative")
    there = pit.isfinite()
    used = (there.sum(1) > 1) & (w > 0)
    require(bool(used.any()), "pit", f"[{T}, {N}]", "give dates of positive weight with transforms of two assets")
    pit, there, w = pit[used], there[used], w[used]
    scores = normal_scores(torch.where(there, pit, 0.5))
    if start is None:
        loadings, _ = factor_model(torch.where(there, scores, torch.nan), factors)
        df = 8.0
    else:
        loadings, df = start.loadings.double(), float(getattr(start, "df", 8.0))
        require(loadings.shape == (N, factors), "start", tuple(loadings.shape), f"give loadings [{N}, {factors}]")
    first = loadings / torch.sqrt((1 - (loadings**2).sum(1, keepdim=True)).clamp(min=1e-6))
    A = first.clone(memory_format=torch.contiguous_format).requires_grad_()
    share = min(max((df - _LEAST) / (_MOST - _LEAST), 1e-3), 1 - 1e-3)
    theta = torch.tensor(math.log(share / (1 - share)), dtype=torch.float64, device=pit.device, requires_grad=True)
    total = w.sum() / w.max()  # effective dates, of which the prior is one

    def copula() -> GaussianCopula | StudentTCopula:
        L = A / torch.sqrt(1 + (A**2).sum(1, keepdim=True))
        if gaussian:
            return GaussianCopula(L, validate_args=False)
        return StudentTCopula(_LEAST + (_MOST - _LEAST) * torch.sigmoid(theta), L, validate_args=False)

    optimizer = torch.optim.LBFGS(
        [A] if gaussian else [A, theta], max_iter=iterations, tolerance_change=1e-7, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        likelihood = w @ copula().log_prob_of_scores(scores, there) / w.sum()
        value = 0.5 * ((A - first) ** 2).sum() / total - likelihood
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    with torch.no_grad():
        return copula()
