"""Engle and Manganelli's regression of exceedances on what was known before."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qtorch.distributions.checks import require
from qtorch.risk.backtests.coverage import exceedances
from qtorch.risk.backtests.laws import chi2_sf
from qtorch.risk.backtests.monte_carlo import simulated_p_values
from qtorch.risk.backtests.result import BacktestResult
from qtorch.risk.backtests.series import Pair, check_level, check_overlap, compress, on_subsamples, usable


def dynamic_quantile(
    returns: Float[Tensor, "T *series"],
    value_at_risk: Float[Tensor, "T *series"],
    level: float,
    mask: Bool[Tensor, "T *series"] | None = None,
    lags: int = 4,
    overlap: int = 1,
    draws: int | None = None,
    generator: torch.Generator | None = None,
) -> BacktestResult:
    """Out-of-sample dynamic quantile test: neither past exceedances nor the VaR itself foretell the next.

    Hit_t = 1{y_t <= -VaR_t} - p is projected on X_t = (1, Hit_{t-1}, ..., Hit_{t-lags}, VaR_t);
    DQ = Hit' X (X'X)^+ X' Hit / (p (1 - p)) is chi-squared with the rank of X degrees of freedom, lags + 2 unless there
    is no exceedance or the VaR is constant. The unit does not matter. NaN without lags + 3 observations.

    Size at 5 %, 4 lags, with 250, 500 and 1,500 sessions: 10 %, 17 % and 8 % for the 99 % VaR, 9 %, 7 % and 6.5 % for
    97.5 %, 6.5 %, 5.5 % and 5 % for 95 %; simulated p-values (`draws`) hold 5 %. Ten-day windows every session: 1 to
    6 %, once 9.5 % (95 %, 250 sessions); taken as independent 59 to 100 %.

    Args:
        returns: in decimals.
        value_at_risk: positive losses at `level`.
        level: confidence, such as 0.99.
        mask: which days count, all by default; NaN never do.
        lags: of the exceedances.
        overlap: sessions that each observation spans, where there is one every session; above 1 the interleaved
            subsamples are tested (Bonferroni).
        draws: samples of independent exceedances, for each number of observations, that p-values are simulated by, with
            a VaR of independent normals, on whose path the law hardly depends; 0 for the chi-squared law. By default 0,
            and 1,000 where windows overlap, whose subsamples are short.
        generator: of the draws.

    Raises:
        ValueError: shapes differ, the level, the lags, the draws or the overlap are out of range, or most VaR are
            negative.

    References:
        Engle and Manganelli (2004), CAViaR, Journal of Business and Economic Statistics 22, theorem 5.
    """
    p = check_level(level)
    check_overlap(overlap)
    require(lags >= 0, "lags", lags, "give the number of past exceedances, 0 or more")

    samples = (0 if overlap == 1 else 1000) if draws is None else draws
    require(samples >= 0, "draws", draws, "simulate some samples, or 0 for the chi-squared law")

    def statistics(there: Tensor, hit: Tensor, var: Tensor) -> Pair:
        length, rank, rows = _projection(there, torch.where(there, hit - p, 0.0), var, lags)
        return torch.where(rows > lags + 2, length / (p * (1 - p)), torch.nan), rank

    def under_normal_var(there: Tensor, hit: Tensor) -> Tensor:
        source = hit.device if generator is None else generator.device
        var = torch.randn(hit.shape, generator=generator, device=source, dtype=torch.float64).to(hit.device)
        return statistics(there, hit, var)[0]

    def test(there: Tensor, hit: Tensor, var: Tensor) -> tuple[Pair]:
        statistic, rank = statistics(there, hit, var)
        if samples == 0:
            return ((statistic, chi2_sf(statistic, rank.clamp(min=1))),)
        law = (lambda u: (u < p).double(), statistic, there.sum(0), samples, generator)
        return ((statistic, simulated_p_values(under_normal_var, *law)),)

    hit = exceedances(returns, value_at_risk).double()
    there, hit, var = compress(usable(mask, returns=returns, value_at_risk=value_at_risk), hit, value_at_risk.double())
    ((statistic, p_value),) = on_subsamples(test, overlap, there, hit, var)
    null = f"exceedances are unforeseeable from {lags} past ones and the VaR, at the rate 1 - level"
    return BacktestResult("Engle-Manganelli dynamic quantile", statistic, p_value, there.sum(0), null)


def _projection(there: Tensor, hit: Tensor, var: Tensor, lags: int) -> tuple[Tensor, Tensor, Tensor]:
    """Squared length of the projection of the hits on the regressors, their rank, and the rows."""
    if len(there) <= lags:
        nothing = torch.zeros(there.shape[1:], dtype=torch.float64, device=there.device)
        return nothing, nothing, nothing
    used = there[lags:]
    rows = used.sum(0).double()
    target = hit[lags:]
    # Centred and of unit variance, which spans the same space beside the constant and conditions it.
    v = torch.where(used, var[lags:], 0.0)
    v = torch.where(used, v - v.sum(0) / rows.clamp(min=1), 0.0)
    scale = torch.where(used, var[lags:].abs(), 0.0).amax(0)
    deviation = (v**2).sum(0).div(rows.clamp(min=1)).sqrt()
    v = torch.where(deviation > 1e-12 * scale, v / deviation, 0.0)
    lagged = [torch.where(used, hit[lags - k : len(hit) - k], 0.0) for k in range(1, lags + 1)]
    columns = [used.double(), *lagged, v]
    k = len(columns)
    gram = torch.zeros((*rows.shape, k, k), dtype=torch.float64, device=hit.device)
    cross = torch.zeros((*rows.shape, k), dtype=torch.float64, device=hit.device)
    for i, a in enumerate(columns):
        cross[..., i] = (a * target).sum(0)
        for j in range(i + 1):
            gram[..., i, j] = gram[..., j, i] = (a * columns[j]).sum(0)
    size = gram.diagonal(dim1=-2, dim2=-1).sqrt()
    size = torch.where(size > 0, size, 1.0)
    values, vectors = torch.linalg.eigh(gram / size.unsqueeze(-1) / size.unsqueeze(-2))
    kept = values > 1e-10
    along = (vectors.mT @ (cross / size).unsqueeze(-1)).squeeze(-1)
    squared = torch.where(kept, along**2 / values.clamp(min=1e-10), 0.0).sum(-1)
    return squared, kept.sum(-1).double(), rows
