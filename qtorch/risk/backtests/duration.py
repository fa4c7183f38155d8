"""Christoffersen and Pelletier's test of the times between exceedances."""

import torch
from jaxtyping import Bool
from torch import Tensor

from qtorch.distributions.checks import require
from qtorch.risk.backtests.laws import chi2_sf
from qtorch.risk.backtests.monte_carlo import simulated_p_values
from qtorch.risk.backtests.result import BacktestResult
from qtorch.risk.backtests.series import Pair, check_level, check_overlap, compress, on_subsamples, usable

_LOW, _HIGH = 0.01, 30.0  # of the Weibull exponent; the likelihood has its maximum beyond only for equal durations


def duration(
    exceeded: Bool[Tensor, "T *series"],
    level: float,
    mask: Bool[Tensor, "T *series"] | None = None,
    overlap: int = 1,
    draws: int = 1000,
    generator: torch.Generator | None = None,
) -> BacktestResult:
    """Weibull duration test: without memory the times between exceedances are exponential.

    The durations D between exceedances, with the time to the first and the time since the last as censored, have the
    density a^b b D^(b-1) exp(-(a D)^b). LR of b = 1 against any b; b < 1 is clustering. The p-value is simulated, as
    the paper has it, with independent exceedances at the rate 1 - level, or chi-squared with one degree of freedom. For
    given b the rate is a^b = m / sum D^b with m uncensored durations, and what is left is concave in b: Newton's method
    with bisection finds all series' maxima at once. NaN with fewer than two exceedances.

    Size at 5 %: 4 to 7 % at any level and 250 to 1,500 sessions. The chi-squared law would reject 21 % (99 %, 250
    sessions) to 6 % (97.5 %, 1,500), and again 11 % where exceedances are many, since times are whole days (95 %,
    1,500). Ten-day windows every session: at most 9 %.

    Args:
        exceeded: whether the loss was beyond the value at risk.
        level: confidence, such as 0.99.
        mask: which days count, all by default.
        overlap: sessions that each observation spans, where there is one every session; above 1 the interleaved
            subsamples are tested (Bonferroni).
        draws: simulated samples for each number of observations, of at most 16 different ones; 0 for the chi-squared
            law.
        generator: of the draws.

    Raises:
        ValueError: shapes differ, or the level or the overlap is out of range.

    References:
        Christoffersen and Pelletier (2004), Backtesting value-at-risk: a duration-based approach, Journal of Financial
        Econometrics 2, equations 8 to 14.
    """
    p = check_level(level)
    check_overlap(overlap)
    require(draws >= 0, "draws", draws, "simulate some samples, or 0 for the chi-squared law")

    def test(there: Tensor, hit: Tensor) -> tuple[Pair]:
        statistic = _statistic(there, hit)
        if draws == 0:
            return ((statistic, chi2_sf(statistic, 1)),)
        return (
            (statistic, simulated_p_values(_statistic, lambda u: u < p, statistic, there.sum(0), draws, generator)),
        )

    there, hit = compress(usable(mask, exceeded=exceeded), exceeded)
    ((statistic, p_value),) = on_subsamples(test, overlap, there, hit)
    null = "exceedances have no memory (Weibull exponent 1)"
    return BacktestResult("Christoffersen-Pelletier duration", statistic, p_value, there.sum(0), null)


def _statistic(there: Tensor, hit: Tensor) -> Tensor:
    times, counted = durations(there, hit)
    m = (counted == 1).sum(0).double()
    tested = m > 0
    log_time = torch.log(torch.where(counted >= 0, times, 1.0))
    sum_log = torch.where(counted == 1, log_time, 0.0).sum(0)
    # Scaled by the longest, which changes neither the maximum over a nor the statistic and keeps powers below 1.
    top = torch.where(counted >= 0, log_time, 0.0).amax(0)
    x = log_time - top
    shifted = sum_log - m * top

    def profile(b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-likelihood and its two derivatives, up to a constant."""
        power = torch.where(counted >= 0, torch.exp(b * x), 0.0)
        s0 = power.sum(0).clamp(min=1e-300)
        mean = (power * x).sum(0) / s0
        spread = (power * x * x).sum(0) / s0 - mean**2
        value = m * torch.log(b) - m * torch.log(s0) + b * shifted
        return value, m / b - m * mean + shifted, -m / b**2 - m * spread

    low, high = torch.full_like(m, _LOW), torch.full_like(m, _HIGH)
    b = torch.ones_like(m)
    for _ in range(60):
        _, slope, curvature = profile(b)
        low, high = torch.where(slope > 0, b, low), torch.where(slope > 0, high, b)
        step = b - slope / curvature.clamp(max=-1e-300)
        inside = (step >= low) & (step <= high)
        new = torch.where(inside, step, (low + high) / 2)
        done = (new - b).abs() <= 1e-13 * b
        b = new
        if (done | ~tested).all():
            break
    statistic = 2 * (profile(b)[0] - profile(torch.ones_like(b))[0]).clamp(min=0)
    return torch.where(tested, statistic, torch.nan)


def durations(there: Tensor, hit: Tensor) -> tuple[Tensor, Tensor]:
    """Times up to each exceedance from the one before or the start, and from the last to the end.

    Args:
        there: compressed rows, `[R, *series]`.
        hit: exceedances.

    Returns:
        Times and what they are: 1 between two exceedances, 0 censored, -1 none; both `[most exceedances + 1, *series]`.
        An exceedance at the first observation has no time before it, and one at the last none after it.
    """
    n, x = there.sum(0), hit.sum(0)
    rows = int(x.max()) if x.numel() else 0
    clock = torch.arange(1, len(hit) + 1, device=hit.device, dtype=torch.float64)
    clock = clock.view(-1, *[1] * (hit.ndim - 1)).expand(hit.shape)
    place = torch.where(hit, hit.cumsum(0) - 1, rows)
    # The last row takes rows without exceedance.
    at = clock.new_zeros((rows + 1, *hit.shape[1:])).scatter(0, place, clock)
    rank = torch.arange(rows + 1, device=hit.device).view(-1, *[1] * (hit.ndim - 1)).expand(at.shape)
    before = torch.cat([torch.zeros_like(at[:1]), at[:-1]])
    times = torch.where(rank < x, at - before, torch.where(rank == x, n - before, 0.0))
    kind = torch.where(rank > x, -1, torch.where((rank == x) | (rank == 0), 0, 1))
    nothing = (times <= 0) | ((rank == 0) & (x > 0) & (at == 1))
    return times, torch.where(nothing, -1, kind)
