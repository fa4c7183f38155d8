"""Null laws of the backtests' statistics, in float64."""

import math

import torch
from jaxtyping import Float64
from torch import Tensor


def chi2_sf(x: Float64[Tensor, "*series"], df: int | Float64[Tensor, "*series"]) -> Float64[Tensor, "*series"]:
    """Upper tail of the chi-squared law: the regularised incomplete gamma function Q(df / 2, x / 2)."""
    half = torch.as_tensor(df, dtype=torch.float64, device=x.device) / 2
    return torch.special.gammaincc(half, x.clamp(min=0) / 2)


def two_sided(z: Float64[Tensor, "*series"]) -> Float64[Tensor, "*series"]:
    """P(|Z| >= |z|) of a standard normal."""
    return torch.erfc(z.abs() / math.sqrt(2))


def kolmogorov_sf(d: Float64[Tensor, "*series"], n: Float64[Tensor, "*series"]) -> Float64[Tensor, "*series"]:
    """P(D_n >= d) of the one-sample Kolmogorov-Smirnov distance of a continuous law.

    Pelz and Good's expansion in powers of n^(-1/2) up to the third, and 2 exp(-2 n (d + 1 / (6 n))^2) where that is
    below 1e-7 and the expansion would cancel. Measured against the exact law (scipy's kstwo), the absolute error is
    2e-4 at n = 20, 3e-5 at 50, 7e-6 at 100, 7e-7 at 250 and 4e-8 at 1,000.

    References:
        Pelz and Good (1976), Approximating the lower tail-areas of the Kolmogorov-Smirnov one-sample statistic, JRSS B
        38; Simard and L'Ecuyer (2011), Computing the two-sided Kolmogorov-Smirnov distribution, JSS 39, section 2.3.
    """
    x = (d * n.sqrt()).clamp(min=0.05)
    tail = 2 * torch.exp(-2 * n * (d + 1 / (6 * n)) ** 2)
    total = torch.zeros((4, *x.shape), dtype=x.dtype, device=x.device)
    x2, x4, x6 = x**2, x**4, x**6
    pi2 = math.pi**2
    for k in range(8):
        s = pi2 * (k + 0.5) ** 2
        decay = 2 * torch.exp(-s / (2 * x2))  # k and -k - 1 give the same term
        total[0] += decay / x
        total[1] += decay * (s - x2) / (6 * x4)
        total[2] += decay * (6 * x6 + 2 * x4 + s * (2 * x4 - 5 * x2) + s**2 * (1 - 2 * x2)) / (72 * x**7)
        third = s**3 * (5 - 30 * x2) + s**2 * (212 * x4 - 60 * x2) + s * (135 * x4 - 96 * x6) - 30 * x6 - 90 * x**8
        total[3] += decay * third / (6480 * x**10)
        s = pi2 * (k + 1) ** 2
        decay = 2 * torch.exp(-s / (2 * x2))
        total[2] -= decay * s / (36 * x**3)
        total[3] += decay * (3 * s * x2 - s**2) / (216 * x6)
    cdf = math.sqrt(math.pi / 2) * (total[0] + total[1] / n.sqrt() + total[2] / n + total[3] / n**1.5)
    return torch.where(tail < 1e-7, tail, 1 - cdf).clamp(0, 1)


def kolmogorov_limit_sf(x: Float64[Tensor, "*series"]) -> Float64[Tensor, "*series"]:
    """P(K >= x) of Kolmogorov's limit law, 2 sum_k (-1)^(k-1) exp(-2 k^2 x^2); 1 below 0.2, where it is 1 - 1e-12."""
    k = torch.arange(1, 31, dtype=x.dtype, device=x.device)
    sign = torch.where(k % 2 == 1, 1.0, -1.0).to(x.dtype)
    series = 2 * (sign * torch.exp(-2 * (k * x.clamp(min=0.2).unsqueeze(-1)) ** 2)).sum(-1)
    return torch.where(x < 0.2, 1.0, series).clamp(0, 1)


def anderson_darling_sf(a: Float64[Tensor, "*series"], n: Float64[Tensor, "*series"]) -> Float64[Tensor, "*series"]:
    """P(A_n^2 >= a) of the Anderson-Darling distance of a continuous law.

    Marsaglia and Marsaglia's approximation of the limit law and of its error at n; beyond 6 the limit's leading term
    sqrt(3) erfc(sqrt(a)), from the largest weight 1/2 of the chi-squared sum. Absolute error below 1e-4 by simulation.

    References:
        Marsaglia and Marsaglia (2004), Evaluating the Anderson-Darling distribution, JSS 9.
    """
    z = a.clamp(min=1e-3)
    low = (
        torch.exp(-1.2337141 / z)
        / z.sqrt()
        * _polynomial(z, (2.00012, 0.247105, -0.0649821, 0.0347962, -0.011672, 0.00168691))
    )
    middle = z.clamp(max=8)
    high = -torch.expm1(-torch.exp(_polynomial(middle, (1.0776, -2.30695, 0.43424, -0.082433, 0.008056, -0.0003146))))
    limit = torch.where(z < 2, 1 - low, high)
    sf = torch.where(z > 6, math.sqrt(3) * torch.erfc(z.sqrt()), limit - _finite_sample(1 - limit, n))
    return sf.clamp(0, 1)


def _finite_sample(x: Tensor, n: Tensor) -> Tensor:
    """What the distribution function at n adds to the limit's value x."""
    c = 0.01265 + 0.1757 / n
    t = x / c
    first = t.clamp(0, 1).sqrt() * (1 - t.clamp(0, 1)) * (49 * t.clamp(0, 1) - 102)
    first = first * (0.0037 / n**3 + 0.00078 / n**2 + 0.00006 / n)
    t = ((x - c) / (0.8 - c)).clamp(0, 1)
    second = _polynomial(t, (-0.00022633, 6.54034, -14.6538, 14.458, -8.259, 1.91864)) * (0.04213 + 0.01365 / n) / n
    third = _polynomial(x, (-130.2137, 745.2337, -1705.091, 1950.646, -1116.360, 255.7844)) / n
    return torch.where(x < c, first, torch.where(x < 0.8, second, third))


def binomial_cdf(k: Float64[Tensor, "*series"], n: Float64[Tensor, "*series"], p: float) -> Float64[Tensor, "*series"]:
    """P(X <= k) of the binomial law, as a sum of its masses; the largest n bounds its memory."""
    top = int(k.max()) + 1 if k.numel() else 1
    x = torch.arange(top, device=n.device, dtype=torch.float64)
    n = n.unsqueeze(-1)
    log_mass = (
        torch.lgamma(n + 1)
        - torch.lgamma(x + 1)
        - torch.lgamma((n - x).clamp(min=0) + 1)
        + x * math.log(p)
        + (n - x) * math.log1p(-p)
    )
    counted = (x <= n) & (x <= k.unsqueeze(-1))
    return torch.where(counted, torch.exp(log_mass), 0.0).sum(-1).clamp(max=1)


def shortfall_variance(p: float, tail_index: float) -> float:
    """Variance of max(L - VaR, 0) / p in units of (ES - VaR)^2: beyond the VaR a generalised Pareto excess."""
    return 2 * (1 - tail_index) / ((1 - 2 * tail_index) * p) - 1


def _polynomial(x: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    """Horner's scheme, lowest power first."""
    value = torch.zeros_like(x)
    for c in reversed(coefficients):
        value = value * x + c
    return value
