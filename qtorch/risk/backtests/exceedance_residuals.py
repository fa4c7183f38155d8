"""McNeil and Frey's bootstrap test of how far losses go beyond the value at risk."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qtorch.distributions.checks import require
from qtorch.risk.backtests.coverage import exceedances
from qtorch.risk.backtests.result import BacktestResult
from qtorch.risk.backtests.series import check_level, check_overlap, check_shortfall, compress, inflation, usable


def mcneil_frey(
    returns: Float[Tensor, "T *series"],
    value_at_risk: Float[Tensor, "T *series"],
    expected_shortfall: Float[Tensor, "T *series"],
    level: float,
    mask: Bool[Tensor, "T *series"] | None = None,
    scale: Float[Tensor, "T *series"] | None = None,
    overlap: int = 1,
    draws: int = 1000,
    generator: torch.Generator | None = None,
) -> BacktestResult:
    """Test that losses beyond the VaR exceed the ES by nothing on average, against more.

    Residuals r = (loss - ES) / scale of the exceedances have mean zero. The statistic is their t-ratio, mean over s /
    sqrt(m) of m residuals; the one-sided p-value is the share of t-ratios at least as large in samples drawn with
    replacement from the residuals less their mean. The number of exceedances is not tested. NaN with fewer than two, or
    where all residuals are equal.

    Windows that overlap: m residuals count as m divided by the inflation of their sum's variance (as in `kupiec`), and
    at least 2, both in the t-ratio and in the samples.

    Size at 5 %: exceedances are few and skewed, so that it rejects 1 to 3 % of true models with 250 sessions, 2 to 4 %
    with 500 and 3 to 5 % with 1,500, the less the higher the level. Ten-day windows every session: below 2.5 %; taken
    as independent 6 to 18 %.

    Args:
        returns: in decimals.
        value_at_risk: positive losses at `level`.
        expected_shortfall: positive losses at `level`, at least the VaR.
        level: confidence, such as 0.975.
        mask: which days count, all by default; NaN never do.
        scale: volatility forecasts that make the residuals alike; the ES by default.
        overlap: sessions that each observation spans, where there is one every session.
        draws: samples; the smallest p-value is 1 / (draws + 1). Random numbers are common to all series.
        generator: of the draws.

    Raises:
        ValueError: shapes differ; the level, the overlap or the draws are out of range; an ES is not positive or
            lies below its VaR, or most VaR are negative.

    References:
        McNeil and Frey (2000), Estimation of tail-related risk measures for heteroscedastic financial time series,
        Journal of Empirical Finance 7, section 3.3; Efron and Tibshirani (1993), An introduction to the bootstrap,
        algorithm 16.2.
    """
    p = check_level(level)
    check_overlap(overlap)
    require(draws >= 1, "draws", draws, "draw at least one sample")
    panels = {"returns": returns, "value_at_risk": value_at_risk, "expected_shortfall": expected_shortfall}
    there = usable(mask, **panels, **({} if scale is None else {"scale": scale}))
    check_shortfall(value_at_risk, expected_shortfall, there)
    unit = (expected_shortfall if scale is None else scale).double()
    hit = there & exceedances(returns, value_at_risk)
    residual = (-returns.double() - expected_shortfall.double()) / unit
    tail, r = compress(hit, torch.where(hit, residual, 0.0))
    m = tail.sum(0)
    n = m.double().clamp(min=1)
    used, within = compress(there, torch.where(hit, residual - r.sum(0) / n, 0.0))
    size = torch.minimum(torch.ceil(n / inflation(within, used, p, overlap)).clamp(min=2), n)
    mean = r.sum(0) / n
    centred = torch.where(tail, r - mean, 0.0)
    deviation = ((centred**2).sum(0) / (n - 1).clamp(min=1)).sqrt()
    tested = (m > 1) & (deviation > 1e-12 * r.abs().amax(0))
    statistic = torch.where(tested, mean / deviation * size.sqrt(), torch.nan)
    p_value = _bootstrap(centred, m, size, statistic, draws, generator).view(m.shape)
    return BacktestResult(
        "McNeil-Frey exceedance residuals",
        statistic,
        torch.where(tested, p_value, torch.nan),
        there.sum(0),
        "losses beyond the VaR average the ES or less",
    )


def _bootstrap(
    centred: Tensor, m: Tensor, size: Tensor, statistic: Tensor, draws: int, generator: torch.Generator | None
) -> Tensor:
    """Share of samples whose t-ratio is at least the observed one, in the series' flat order.

    Series with as many residuals share the samples' indices, so that their sums are one matrix product.
    """
    rows = centred.reshape(len(centred), -1)
    m, size, statistic = m.reshape(-1), size.reshape(-1).long(), statistic.reshape(-1)
    out = torch.full_like(statistic, torch.nan)
    source = centred.device if generator is None else generator.device
    most = int(size.max()) if size.numel() else 0
    uniforms = torch.rand(draws, most, generator=generator, device=source, dtype=torch.float64).to(centred.device)
    for count, length in torch.stack([m, size]).T[statistic.isfinite()].unique(dim=0).tolist():
        of = (m == count) & (size == length) & statistic.isfinite()
        drawn = (uniforms[:, :length] * count).long()
        weight = torch.zeros(draws, count, dtype=torch.float64, device=centred.device)
        weight.scatter_add_(1, drawn, torch.ones_like(uniforms[:, :length]))
        values = rows[:count, of]
        mean = weight @ values / length
        variance = ((weight @ values**2 - length * mean**2) / max(length - 1, 1)).clamp(min=0)
        # A sample of one residual repeated has no t-ratio; its mean decides with infinite weight.
        ratio = mean / variance.sqrt().clamp(min=1e-150) * length**0.5
        out[of] = ((ratio >= statistic[of]).sum(0) + 1).double() / (draws + 1)
    return out
