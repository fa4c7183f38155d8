"""Tests of how often and how soon losses exceed the value at risk."""

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from qtorch.errors import ArgumentError
from qtorch.risk.backtests.laws import chi2_sf
from qtorch.risk.backtests.result import BacktestResult
from qtorch.risk.backtests.series import (
    Pair,
    check_level,
    check_overlap,
    compress,
    in_order,
    inflation,
    on_subsamples,
    usable,
)


def exceedances(
    returns: Float[Tensor, "T *series"], value_at_risk: Float[Tensor, "T *series"]
) -> Bool[Tensor, "T *series"]:
    """Whether the loss reached the value at risk: return <= -VaR; False where either is NaN.

    A single forecast may be negative, of a position that hardly can lose; most of a panel are so only where the VaR is
    given as a return, and then nearly every day would be an exceedance.

    A missing day must not count as a day without exceedance: pass `returns.isfinite() & value_at_risk.isfinite()` as
    the mask of the tests that take exceedances.

    Args:
        returns: in decimals.
        value_at_risk: positive losses.

    Raises:
        ValueError: more than half of the values at risk are negative.

    Example:
        >>> import torch
        >>> exceedances(torch.tensor([-0.03, 0.01]), torch.tensor([0.02, 0.02]))
        tensor([ True, False])
    """
    negative, given = int((value_at_risk < 0).sum()), int(value_at_risk.isfinite().sum())
    if 2 * negative > given:
        raise ArgumentError(
            f"value_at_risk is negative in {negative:,} of {given:,} places: give losses as positive numbers, that is "
            "minus the quantile of returns."
        )
    return returns <= -value_at_risk


def kupiec(
    exceeded: Bool[Tensor, "T *series"],
    level: float,
    mask: Bool[Tensor, "T *series"] | None = None,
    overlap: int = 1,
) -> BacktestResult:
    """Proportion-of-failures test: are there as many exceedances as the level promises?

    LR = 2 log [(x/n)^x (1 - x/n)^(n-x) / (p^x (1 - p)^(n-x))] for x exceedances of n, chi-squared with one degree of
    freedom. Defined for no exceedance and for nothing but exceedances; NaN without an observation.

    Windows that overlap: the statistic is divided by the inflation of the count's variance (Rao and Scott 1981), with
    Hansen and Hodrick's autocovariances kept between the Gaussian windows' value and h.

    Size: the count is discrete, so that the rejection rate of a true model at 5 % is, exactly, with 250, 500 and 1,500
    sessions 9.5 %, 7.1 % and 5.6 % for the 99 % VaR (no exceedance at all, 8.1 % likely in 250, is rejected), 7.4 %,
    6.2 % and 5.7 % for 97.5 %, 5.9 %, 5.4 % and 5.2 % for 95 %. Of ten-day windows every session it is 1.7 to 4.8 %
    where returns are normal and 1.3 to 7.5 % where they are Student-t with 4 degrees of freedom; taken as independent
    they would be rejected at 42 to 52 % (500 sessions).

    Args:
        exceeded: whether the loss was beyond the value at risk.
        level: confidence, such as 0.99.
        mask: which days count, all by default.
        overlap: sessions that each observation spans, where there is one every session.

    Raises:
        ValueError: shapes differ, or the level or the overlap is out of range.

    References:
        Kupiec (1995), Techniques for verifying the accuracy of risk measurement models, Journal of Derivatives 3; Rao
        and Scott (1981), The analysis of categorical data from complex sample surveys, JASA 76.

    Example:
        >>> import torch
        >>> print(kupiec(torch.arange(250) < 8, 0.99))
        Kupiec proportion of failures
        H0: exceedances come at the rate 1 - level
                statistic  p_value  observations verdict_at_5%
        series
        0          7.7336   0.0054           250      rejected
    """
    p = check_level(level)
    check_overlap(overlap)
    there, hit = in_order(usable(mask, exceeded=exceeded), overlap, exceeded)
    n = there.sum(0)
    statistic = coverage_statistic(there, hit, p) / inflation(hit.double(), there, p, overlap)
    p_value = torch.where(n > 0, chi2_sf(statistic, 1), torch.nan)
    return BacktestResult(
        "Kupiec proportion of failures", statistic, p_value, n, "exceedances come at the rate 1 - level"
    )


def time_until_first_failure(
    exceeded: Bool[Tensor, "T *series"],
    level: float,
    mask: Bool[Tensor, "T *series"] | None = None,
    overlap: int = 1,
) -> BacktestResult:
    """Test of the number v of observations up to and with the first exceedance.

    LR = 2 log [(1/v) (1 - 1/v)^(v-1) / (p (1 - p)^(v-1))], chi-squared with one degree of freedom. Where none has come
    in n observations the first is censored, LR = -2 n log(1 - p). It says little, by design: Kupiec gives it for the
    start of a model's life. NaN without an observation.

    Size: v is one discrete number; at 5 % the test rejects 7.1 % (99 % VaR), 6.2 % (97.5 %) and 6.2 % (95 %) of true
    models, but 14 % of those of the 99 % VaR in 250 sessions, where no exceedance counts against them. Windows that
    overlap are tested on interleaved subsamples (Bonferroni), at most 5 %.

    Args:
        exceeded: whether the loss was beyond the value at risk.
        level: confidence, such as 0.99.
        mask: which days count, all by default.
        overlap: sessions that each observation spans, where there is one every session.

    Raises:
        ValueError: shapes differ, or the level or the overlap is out of range.

    References:
        Kupiec (1995), Techniques for verifying the accuracy of risk measurement models, Journal of Derivatives 3.
    """
    p = check_level(level)
    check_overlap(overlap)

    def test(there: Tensor, hit: Tensor) -> tuple[Pair]:
        n = there.sum(0).double()
        first = torch.where(hit.any(0), hit.to(torch.uint8).argmax(0) + 1.0, torch.inf).double()
        failed = first.isfinite()
        v = torch.where(failed, first, 1.0)
        best = torch.xlogy(torch.ones_like(v), 1 / v) + torch.xlogy(v - 1, 1 - 1 / v)
        null = _log(p, v) + torch.xlogy(v - 1, torch.full_like(v, 1 - p))
        statistic = torch.where(failed, 2 * (best - null), -2 * n * _log(1 - p, v)).clamp(min=0)
        return ((statistic, torch.where(n > 0, chi2_sf(statistic, 1), torch.nan)),)

    there, hit = compress(usable(mask, exceeded=exceeded), exceeded)
    ((statistic, p_value),) = on_subsamples(test, overlap, there, hit)
    null = "the first exceedance comes after a geometric time of mean 1 / (1 - level)"
    return BacktestResult("Kupiec time until first failure", statistic, p_value, there.sum(0), null)


def coverage_statistic(there: Tensor, hit: Tensor, p: float) -> Float64[Tensor, "*series"]:
    """Kupiec's likelihood ratio of compressed rows."""
    n, x = there.sum(0).double(), hit.sum(0).double()
    known = torch.full_like(n, p)
    return 2 * (log_likelihood(x, n, x / n.clamp(min=1)) - log_likelihood(x, n, known)).clamp(min=0)


def log_likelihood(successes: Tensor, trials: Tensor, probability: Tensor) -> Float64[Tensor, "*series"]:
    """Bernoulli log-likelihood with 0 log 0 = 0."""
    return torch.xlogy(successes, probability) + torch.xlogy(trials - successes, 1 - probability)


def _log(p: float, like: Tensor) -> Tensor:
    return torch.log(torch.full_like(like, p))
