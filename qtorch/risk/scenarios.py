"""Joint scenarios of a cross-section from past probability integral transforms."""

import torch
from jaxtyping import Float64, Int64
from torch import Tensor
from torch.distributions import Distribution

_EDGE = 1e-9  # transforms are kept this far inside (0, 1), where quantiles are finite


def complete(
    pit: Float64[Tensor, "S N"],
    generator: torch.Generator,
    fit: Float64[Tensor, "R N"] | None = None,
    factors: int = 10,
) -> Float64[Tensor, "S N"]:
    """Fills the holes of past transform vectors (closed markets, young assets) by draws given what was observed.

    A Gaussian copula with `factors` factors is fitted to the pairwise complete normal scores; on each date the missing
    scores are drawn from its law given the observed ones. Observed transforms stay as they are.

    Args:
        pit: transforms, NaN where an asset has none.
        generator: of the draws.
        fit: the rows that the copula is fitted on; all by default. A causal backtest passes those before it.
        factors: at most this many.

    Returns:
        Transforms inside (0, 1) without holes.
    """
    z = torch.special.ndtri(pit.clamp(_EDGE, 1 - _EDGE))
    loadings, noise = _factor_model(z if fit is None else torch.special.ndtri(fit.clamp(_EDGE, 1 - _EDGE)), factors)
    there = z.isfinite()
    observed = there.double()
    # The factors' law given a date's observed scores: precision I + L' P L over the observed, P the noise precision.
    weighted = loadings / noise[:, None]
    precision = torch.einsum("nk,sn,nl->skl", loadings, observed, weighted)
    precision = precision + torch.eye(loadings.shape[1], dtype=z.dtype)
    root = torch.linalg.cholesky(precision)
    mean = torch.cholesky_solve((z.nan_to_num() @ weighted).unsqueeze(-1), root)
    shock = torch.randn(mean.shape, generator=generator, dtype=z.dtype)
    factor = (mean + torch.linalg.solve_triangular(root.mT, shock, upper=True)).squeeze(-1)
    own = torch.randn(z.shape, generator=generator, dtype=z.dtype) * noise.sqrt()
    return torch.special.ndtr(torch.where(there, z, factor @ loadings.T + own)).clamp(_EDGE, 1 - _EDGE)


def joint_scenarios(distribution: Distribution, pit: Float64[Tensor, "S N"]) -> Float64[Tensor, "S N"]:
    """Past transform vectors mapped through tonight's marginals: each row is one scenario of all returns.

    Filtered historical simulation with a model's own marginals: dependence, that of the tails included, is history's.

    Args:
        distribution: tonight's marginals, batch shape `[N]`.
        pit: past transform vectors without holes.

    References:
        Barone-Adesi, Giannopoulos and Vosper (1999), VaR without correlations for portfolios of derivative securities,
        Journal of Futures Markets 19.
    """
    return distribution.icdf(pit).double()


def _factor_model(z: Float64[Tensor, "S N"], factors: int) -> tuple[Float64[Tensor, "N K"], Float64[Tensor, " N"]]:
    """Loadings and noise variances of a factor model with unit variances, from pairwise complete observations."""
    there = z.isfinite().double()
    x = z.nan_to_num()
    count = there.T @ there
    product = x.T @ x
    size = torch.sqrt((x**2).T @ there * (there.T @ x**2)).clamp(min=1e-12)
    # 20 pairs' worth of shrinkage to the mean correlation: assets that have hardly met are taken for average.
    seen = count > 20
    off = ~torch.eye(len(count), dtype=torch.bool)
    correlation = product / size
    both = seen & off
    average = correlation[both].mean() if both.any() else torch.zeros((), dtype=z.dtype)
    correlation = (count * correlation + 20 * average) / (count + 20)
    correlation.fill_diagonal_(1.0)
    values, vectors = torch.linalg.eigh(correlation)
    K = min(factors, len(values))
    loadings = vectors[:, -K:] * values[-K:].clamp(min=0).sqrt()
    # Where the factors explain more than 95 % of an asset, its loadings shrink, so that the noise stays positive.
    explained = (loadings**2).sum(1, keepdim=True)
    loadings = loadings * torch.sqrt(0.95 / explained.clamp(min=0.95))
    return loadings, 1 - (loadings**2).sum(1)


def rolling_scenarios(
    distribution: Distribution,
    pit: Float64[Tensor, "R N"],
    first: Int64[Tensor, " D"],
    window: int,
    exposures: Float64[Tensor, "D N"],
) -> Float64[Tensor, "D S"]:
    """A portfolio's scenarios at many past dates, each from the transforms before it.

    Quantiles are tabulated at 257 normal scores per date and asset and interpolated linearly between them, because a
    history needs hundreds of times the quantiles of one night; the error is below 1e-3 of the quantile.

    Args:
        distribution: the marginals of each date, batch shape `[D, N]`.
        pit: transform vectors in the order of time, without holes.
        first: for each date the first of the `window` rows of `pit` that it uses.
        window: how many rows of `pit` a date uses, `S`.
        exposures: of each date; 0 leaves an asset out.

    Returns:
        Profits (losses negative) in the unit of the exposures.
    """
    score = torch.linspace(-6, 6, 257, dtype=torch.float64)
    table = distribution.icdf(torch.special.ndtr(score).reshape(-1, *[1] * len(distribution.batch_shape)))
    table = table.double().movedim(0, -1)  # [D, N, 257]
    place = (torch.special.ndtri(pit).clamp(-5.999, 5.999) + 6) / 12 * 256
    low = place.floor().long()
    part = place - low
    profit = torch.empty(len(first), window, dtype=torch.float64)
    for d, start in enumerate(first.tolist()):
        rows = slice(start, start + window)
        index, weight = low[rows].T, part[rows].T  # [N, S]
        below, above = table[d].gather(1, index), table[d].gather(1, index + 1)
        profit[d] = exposures[d] @ (below + weight * (above - below))
    return profit
