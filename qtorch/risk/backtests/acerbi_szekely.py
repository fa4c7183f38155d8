"""Acerbi and Szekely's tests of the expected shortfall, with simulated p-values."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor
from torch.distributions import Distribution

from qtorch.distributions.checks import require
from qtorch.risk.backtests.coverage import exceedances
from qtorch.risk.backtests.result import BacktestResult
from qtorch.risk.backtests.series import check_level, check_overlap, check_shortfall, usable

_CHUNK = 1 << 22  # simulated statistics held at once


class AcerbiSzekely(NamedTuple):
    """Z1 looks at the size of the exceedances, Z2 at their size and number."""

    z1: BacktestResult
    z2: BacktestResult

    def __str__(self) -> str:
        return "\n\n".join(map(str, self))


def acerbi_szekely(
    returns: Float[Tensor, "T *series"],
    value_at_risk: Float[Tensor, "T *series"],
    expected_shortfall: Float[Tensor, "T *series"],
    level: float,
    mask: Bool[Tensor, "T *series"] | None = None,
    overlap: int = 1,
    distribution: Distribution | None = None,
    tail_index: float = 0.2,
    draws: int = 1000,
    generator: torch.Generator | None = None,
) -> AcerbiSzekely:
    """Tests Z1 and Z2 of the expected shortfall.

    With I the exceedances of n observations, y the returns and p = 1 - level,
    Z1 = sum(y I / ES) / sum(I) + 1 and Z2 = sum(y I / ES) / (n p) + 1. Both are 0 on average where the forecasts
    are right and negative where they are too small; the p-value is one-sided, the share of simulated statistics at
    most as large (the observed one counted among them). Z1 is NaN without an exceedance, and simulated given one.

    Simulation: exceedances are placed at random, and their losses drawn from `distribution` below its quantile of mass
    p where it is given (about 1.5 p draws evaluations of its icdf over the panel); else from what VaR and ES imply, VaR
    plus a generalised Pareto excess of shape `tail_index` (0: exponential) and mean ES - VaR. Random numbers are common
    to all series. The critical value of Z2 at 5 %, 250 observations and 97.5 % is -0.70 for the normal (-0.70 with
    index 0, -0.71 with the default), -0.73 for Student's t with 5 degrees of freedom (-0.73) and -0.82 with 3 (-0.82
    with 1/3).

    Windows of h sessions that overlap: places and tail masses are those of overlapping sums of independent Student-t
    returns with 4 degrees of freedom, whose tails cluster somewhat more than the normal's.

    Size at 5 % with 250 to 1,500 sessions: Z2 3.5 to 6.5 %; Z1 1 to 4 % where returns are normal and 4 to 6 % where
    they are Student-t with 5 degrees of freedom. Ten-day windows every session: Z2 3 to 7 %, Z1 at most 5.6 %; taken as
    independent Z2 rejects 16 to 24 %. Power of Z2 against a scale 25 % larger than forecast: 86 % (normal, 99 %, 250
    sessions), 90 % (97.5 %, 250) and 99 % (97.5 %, 500).

    Args:
        returns: in decimals.
        value_at_risk: positive losses at `level`.
        expected_shortfall: positive losses at `level`, at least the VaR.
        level: confidence, such as 0.975.
        mask: which days count, all by default; NaN never do.
        overlap: sessions that each observation spans, where there is one every session.
        distribution: the forecast distribution of the returns, with `icdf`; its batch shape broadcasts against
            `[T, *series]`.
        tail_index: shape of the losses beyond the VaR, below 1, where no distribution is given.
        draws: simulated samples; the smallest p-value is 1 / (draws + 1).
        generator: of the draws.

    Raises:
        ValueError: shapes differ; the level, the overlap, the tail index or the draws are out of range; an ES is not
            positive or lies below its VaR, or most VaR are negative.

    References:
        Acerbi and Szekely (2014), Backtesting expected shortfall, Risk, December, equations 4 to 7 and table of
        critical values.
    """
    p = check_level(level)
    check_overlap(overlap)
    require(tail_index < 1, "tail_index", tail_index, "give a shape below 1, where the mean excess is finite")
    require(draws >= 1, "draws", draws, "simulate at least one sample")
    there = usable(mask, returns=returns, value_at_risk=value_at_risk, expected_shortfall=expected_shortfall)
    check_shortfall(value_at_risk, expected_shortfall, there)
    hit = there & exceedances(returns, value_at_risk)
    n, count = there.sum(0), hit.sum(0).double()
    shortfall = torch.where(there, expected_shortfall.double(), 1.0)
    total = torch.where(hit, -returns.double() / shortfall, 0.0).sum(0)
    uniforms = window_uniforms(draws, len(returns), overlap, generator, returns.device)
    if distribution is None:
        share = torch.where(there, value_at_risk.double() / shortfall, 0.0)
        p1, p2 = _implied(uniforms, p, tail_index, there, share, total, count)
    else:
        p1, p2 = _given(uniforms, p, distribution, there, shortfall, total, count)
    z1 = torch.where(count > 0, 1 - total / count.clamp(min=1), torch.nan)
    z2 = torch.where(n > 0, 1 - total / (n.double().clamp(min=1) * p), torch.nan)
    return AcerbiSzekely(
        BacktestResult(
            "Acerbi-Szekely Z1", z1, torch.where(count > 0, p1, torch.nan), n, "losses beyond the VaR average the ES"
        ),
        BacktestResult(
            "Acerbi-Szekely Z2", z2, torch.where(n > 0, p2, torch.nan), n, "losses beyond the VaR sum to what is due"
        ),
    )


def window_uniforms(
    draws: int, rows: int, overlap: int, generator: torch.Generator | None, device: torch.device
) -> Float64[Tensor, "S T"]:
    """Uniform transforms of samples of a true model: independent, or of overlapping sums of heavy-tailed returns.

    The sums' law is taken from the draws themselves, by their ranks among all.

    Args:
        draws: samples.
        rows: observations of each.
        overlap: sessions that each observation spans.
        generator: of the draws; they are made on its device.
        device: of the result.
    """
    source = device if generator is None else generator.device

    def uniform(shape: tuple[int, int]) -> Tensor:
        return torch.rand(shape, generator=generator, device=source, dtype=torch.float64)

    if overlap == 1:
        return uniform((draws, rows)).to(device)
    shape = (draws, rows + overlap - 1)
    normal = torch.randn(shape, generator=generator, device=source, dtype=torch.float64)
    # -2 log of a product of two uniforms is chi-squared with 4 degrees of freedom.
    square = -2 * (torch.log(uniform(shape)) + torch.log(uniform(shape)))
    path = (normal / square.clamp(min=1e-12).sqrt()).cumsum(1)
    sums = path[:, overlap - 1 :].clone()
    sums[:, 1:] -= path[:, : rows - 1]
    order = sums.flatten().argsort()
    place = torch.arange(len(order), dtype=torch.float64, device=source)
    return torch.empty_like(place).scatter(0, order, (place + 0.5) / len(order)).view(draws, rows).to(device)


def _implied(
    uniforms: Tensor, p: float, xi: float, there: Tensor, share: Tensor, total: Tensor, count: Tensor
) -> tuple[Tensor, Tensor]:
    """P-values of losses VaR + (ES - VaR) G beyond the VaR, G of mean 1, so that sums are matrix products."""
    hit = (uniforms < p).double()
    mass = (uniforms / p).clamp(1e-300, 1)
    excess = -torch.log(mass) if abs(xi) < 1e-8 else (1 - xi) / xi * torch.expm1(-xi * torch.log(mass))
    # loss / ES = share + (1 - share) G = share (1 - G) + G
    first, second = hit * (1 - excess), hit * excess
    there, share = (x.reshape(len(x), x.shape[1:].numel()) for x in (there.double(), share))
    out = []
    for part in torch.arange(share.shape[1], device=share.device).split(max(1, _CHUNK // len(uniforms))):
        used = there[:, part]
        totals = first @ share[:, part] + second @ used
        out.append(_p_values(totals, hit @ used, total.reshape(-1)[part], count.reshape(-1)[part]))
    p1, p2 = (torch.cat(values).view(total.shape) for values in zip(*out, strict=True))
    return p1, p2


def _given(
    uniforms: Tensor,
    p: float,
    distribution: Distribution,
    there: Tensor,
    shortfall: Tensor,
    total: Tensor,
    count: Tensor,
) -> tuple[Tensor, Tensor]:
    """P-values of losses from the distribution: at a time those of one exceedance for every row that has another."""
    hit = uniforms < p
    most = int(hit.sum(0).max()) if hit.numel() else 0
    sample = (~hit).to(torch.uint8).argsort(dim=0, stable=True)[:most]
    valid = hit.gather(0, sample)
    mass = torch.where(valid, uniforms.gather(0, sample), p)
    series = (1,) * (there.ndim - 1)
    totals = torch.zeros((len(uniforms), *there.shape[1:]), dtype=torch.float64, device=there.device)
    for k in range(most):
        loss = -distribution.icdf(mass[k].view(-1, *series)).double() / shortfall
        totals.index_add_(0, sample[k], torch.where(there & valid[k].view(-1, *series), loss, 0.0))
    counts = torch.tensordot(hit.double(), there.double(), 1)
    return _p_values(totals, counts, total, count)


def _p_values(totals: Tensor, counts: Tensor, total: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Share of samples with a mean loss, given an exceedance, and with a total loss at least as large as observed."""
    some = counts > 0
    as_bad = some & (totals / counts.clamp(min=1) >= total / count.clamp(min=1))
    p1 = (1 + as_bad.sum(0)) / (1 + some.sum(0))
    p2 = (1 + (totals >= total).sum(0)) / (1 + len(totals))
    return p1.double(), p2.double()
