"""Tests of probability integral transforms: of the whole forecast distribution, or of its tail."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qtorch.risk.backtests.cumulative import check_transforms
from qtorch.risk.backtests.laws import anderson_darling_sf, chi2_sf, kolmogorov_sf
from qtorch.risk.backtests.result import BacktestResult
from qtorch.risk.backtests.series import Pair, check_level, check_overlap, compress, on_subsamples, usable

_EDGE = 1e-12  # transforms are kept this far inside (0, 1), where their normal scores are finite (7 deviations)


class Uniformity(NamedTuple):
    """Two distances from the uniform law."""

    kolmogorov_smirnov: BacktestResult
    anderson_darling: BacktestResult

    def __str__(self) -> str:
        return "\n\n".join(map(str, self))


def pit_uniformity(
    pit: Float[Tensor, "T *series"], mask: Bool[Tensor, "T *series"] | None = None, overlap: int = 1
) -> Uniformity:
    """Kolmogorov-Smirnov and Anderson-Darling tests that the transforms are uniform.

    KS: sup |F_n(u) - u|, with the finite-sample law by Pelz and Good's expansion. AD: -n - sum (2i - 1) [log u(i) +
    log(1 - u(n + 1 - i))] / n, which weighs the tails more; transforms are kept 1e-12 inside (0, 1). Both take the
    observations for independent and the forecasts for known; parameters fitted on the same days make them too mild.
    NaN without an observation.

    Size at 5 %: 4 to 6 % from 20 observations. Ten-day windows every session: 1 to 4 %; taken as independent 60 to
    74 %.

    Args:
        pit: probability that the forecast gave to returns at most as high as the one that came.
        mask: which days count, all by default; NaN never do.
        overlap: sessions that each observation spans, where there is one every session; above 1 the interleaved
            subsamples are tested (Bonferroni).

    Raises:
        ValueError: shapes differ, the overlap is below 1, or transforms leave [0, 1].

    References:
        Diebold, Gunther and Tay (1998), Evaluating density forecasts, International Economic Review 39; Anderson and
        Darling (1954), A test of goodness of fit, JASA 49.
    """
    check_overlap(overlap)
    there = usable(mask, pit=pit)
    check_transforms(pit, there)
    there, u = compress(there, pit.double())

    def test(there: Tensor, u: Tensor) -> tuple[Pair, Pair]:
        n = there.sum(0).double()
        ordered = torch.where(there, u, 2.0).sort(0).values
        rank = torch.arange(1, len(u) + 1, device=u.device, dtype=torch.float64)
        rank = rank.view(-1, *[1] * (u.ndim - 1))
        used = rank <= n
        n1 = n.clamp(min=1)
        gap = torch.maximum(rank / n1 - ordered, ordered - (rank - 1) / n1)
        distance = torch.where(used, gap, 0.0).amax(0)
        inside = ordered.clamp(_EDGE, 1 - _EDGE)
        # log(1 - u(n + 1 - i)) has the weight 2i - 1, so that log(1 - u(i)) has 2 (n - i) + 1.
        terms = (2 * rank - 1) * torch.log(inside) + (2 * (n - rank) + 1) * torch.log1p(-inside)
        squared = -n - torch.where(used, terms, 0.0).sum(0) / n1
        some = n > 0
        return (
            (torch.where(some, distance, torch.nan), torch.where(some, kolmogorov_sf(distance, n1), torch.nan)),
            (torch.where(some, squared, torch.nan), torch.where(some, anderson_darling_sf(squared, n1), torch.nan)),
        )

    smirnov, darling = on_subsamples(test, overlap, there, u)
    n = there.sum(0)
    return Uniformity(
        BacktestResult("Kolmogorov-Smirnov of the transforms", *smirnov, n, "transforms are uniform"),
        BacktestResult("Anderson-Darling of the transforms", *darling, n, "transforms are uniform"),
    )


def berkowitz(
    pit: Float[Tensor, "T *series"],
    mask: Bool[Tensor, "T *series"] | None = None,
    level: float | None = None,
    overlap: int = 1,
) -> BacktestResult:
    """Likelihood-ratio test of the transforms' normal scores z; of all of them, or of the tail beyond the VaR.

    Without `level`: z_t - mu = rho (z_{t-1} - mu) + sigma e_t against mu = 0, sigma = 1, rho = 0, chi-squared with
    three degrees of freedom. The likelihood is conditional on the first score, so that least squares maximises it. NaN
    with fewer than 4 observations.

    With `level`: scores above that of the VaR are censored at it; mu and sigma of the normal against 0 and 1,
    chi-squared with two degrees of freedom. Newton's method in mu/sigma and 1/sigma, where the likelihood is concave.
    Without an exceedance it is -2 n log(level), the limit. NaN without an observation.

    Size at 5 % with 250 to 1,500 observations: 3 to 6.5 %. Ten-day windows every session: the whole distribution 1 to
    4 %, the tail 2 to 6 %; taken as independent 100 % and 38 to 56 %.

    Args:
        pit: probability that the forecast gave to returns at most as high as the one that came.
        mask: which days count, all by default; NaN never do.
        level: confidence, such as 0.99, of the tail; None for the whole distribution.
        overlap: sessions that each observation spans, where there is one every session; above 1 the interleaved
            subsamples are tested (Bonferroni).

    Raises:
        ValueError: shapes differ, the level or the overlap is out of range, or transforms leave [0, 1].

    References:
        Berkowitz (2001), Testing density forecasts, with applications to risk management, Journal of Business and
        Economic Statistics 19, sections 2.2 and 3; Olsen (1978), Note on the uniqueness of the maximum likelihood
        estimator for the Tobit model, Econometrica 46.
    """
    check_overlap(overlap)
    there = usable(mask, pit=pit)
    check_transforms(pit, there)
    z = torch.special.ndtri(pit.double().clamp(_EDGE, 1 - _EDGE))
    there, z = compress(there, z)
    if level is None:
        ((statistic, p_value),) = on_subsamples(_autoregression, overlap, there, z)
        null = "transforms are uniform and independent"
        return BacktestResult("Berkowitz", statistic, p_value, there.sum(0), null)
    c = torch.special.ndtri(torch.tensor(check_level(level), dtype=torch.float64)).item()
    ((statistic, p_value),) = on_subsamples(lambda there, z: _censored(there, z, c), overlap, there, z)
    return BacktestResult("Berkowitz tail", statistic, p_value, there.sum(0), "transforms are uniform beyond the VaR")


def _autoregression(there: Tensor, z: Tensor) -> tuple[Pair]:
    pair = there[1:]
    n = pair.sum(0).double()
    n1 = n.clamp(min=1)
    now, before = torch.where(pair, z[1:], 0.0), torch.where(pair, z[:-1], 0.0)
    y = torch.where(pair, now - now.sum(0) / n1, 0.0)
    x = torch.where(pair, before - before.sum(0) / n1, 0.0)
    xx = (x * x).sum(0)
    slope = torch.where(xx > 0, (x * y).sum(0) / xx.clamp(min=1e-300), 0.0)
    variance = ((y - slope * x) ** 2).sum(0) / n1
    statistic = ((now**2).sum(0) - n - n * torch.log(variance.clamp(min=1e-300))).clamp(min=0)
    tested = n > 2
    statistic = torch.where(tested, statistic, torch.nan)
    return ((statistic, torch.where(tested, chi2_sf(statistic, 3), torch.nan)),)


def _censored(there: Tensor, z: Tensor, c: float) -> tuple[Pair]:
    """The tail test, in theta = 1/sigma and delta = mu/sigma.

    log L = m log theta - sum (theta z - delta)^2 / 2 + k log Phi(delta - theta c) for m scores below c and k censored.
    """
    tail = there & (z <= c)
    m, k = tail.sum(0).double(), (there & ~tail).sum(0).double()
    s1 = torch.where(tail, z, 0.0).sum(0)
    s2 = torch.where(tail, z * z, 0.0).sum(0)

    def value(theta: Tensor, delta: Tensor) -> Tensor:
        square = theta**2 * s2 - 2 * theta * delta * s1 + m * delta**2
        return torch.xlogy(m, theta) - square / 2 + k * torch.special.log_ndtr(delta - theta * c)

    theta, delta = torch.ones_like(m), torch.zeros_like(m)
    null = value(theta, delta)
    bounded = (m > 1) & ((k > 0) | (m * s2 - s1**2 > 1e-12 * m * s2)) | ((m == 1) & (k > 0))
    for _ in range(50):
        w = delta - theta * c
        ratio = torch.exp(-(w**2) / 2 - torch.special.log_ndtr(w)) / (2 * torch.pi) ** 0.5
        bend = -ratio * (w + ratio)
        g1 = m / theta - theta * s2 + delta * s1 - k * ratio * c
        g2 = theta * s1 - m * delta + k * ratio
        h11 = -m / theta**2 - s2 + k * bend * c * c
        h12 = s1 - k * bend * c
        h22 = -m + k * bend
        determinant = (h11 * h22 - h12**2).clamp(min=1e-300)
        d1, d2 = -(h22 * g1 - h12 * g2) / determinant, -(h11 * g2 - h12 * g1) / determinant
        # Halve steps that would leave theta > 0 or lower the likelihood.
        size = torch.ones_like(m)
        now = value(theta, delta)
        for _ in range(30):
            worse = ~(value((theta + size * d1).clamp(min=1e-12), delta + size * d2) >= now - 1e-12 * now.abs())
            worse = (worse | (theta + size * d1 <= 0)) & bounded
            if not worse.any():
                break
            size = torch.where(worse, size / 2, size)
        step1, step2 = torch.where(bounded, size * d1, 0.0), torch.where(bounded, size * d2, 0.0)
        theta, delta = theta + step1, delta + step2
        if (step1.abs() + step2.abs() <= 1e-11 * (theta.abs() + delta.abs())).all():
            break
    n = m + k
    # Without an exceedance the likelihood tends to 1 as mu grows.
    best = torch.where(m == 0, 0.0, value(theta, delta))
    tested = (n > 0) & (bounded | (m == 0))
    statistic = torch.where(tested, 2 * (best - null).clamp(min=0), torch.nan)
    return ((statistic, torch.where(tested, chi2_sf(statistic, 2), torch.nan)),)
