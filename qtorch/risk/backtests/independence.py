"""Christoffersen's tests of exceedances that follow one another."""

from typing import NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor

from qtorch.distributions.checks import require
from qtorch.risk.backtests.coverage import coverage_statistic, log_likelihood
from qtorch.risk.backtests.laws import chi2_sf
from qtorch.risk.backtests.monte_carlo import simulated_p_values
from qtorch.risk.backtests.result import BacktestResult
from qtorch.risk.backtests.series import Pair, check_level, check_overlap, compress, on_subsamples, usable


class Christoffersen(NamedTuple):
    """Independence by itself, and jointly with coverage."""

    independence: BacktestResult
    conditional_coverage: BacktestResult

    def __str__(self) -> str:
        return "\n\n".join(map(str, self))


def christoffersen(
    exceeded: Bool[Tensor, "T *series"],
    level: float,
    mask: Bool[Tensor, "T *series"] | None = None,
    overlap: int = 1,
    draws: int = 0,
    generator: torch.Generator | None = None,
) -> Christoffersen:
    """Tests of independence against a Markov chain, and of conditional coverage (independence and coverage jointly).

    The likelihood ratio of a chain of order one against a constant rate, chi-squared with one degree of freedom; added
    to Kupiec's statistic, with two. Days that do not count are skipped: a series' consecutive observations are
    neighbours. Without an exceedance the independence statistic is 0; NaN with fewer than two observations. Windows
    that overlap are tested on interleaved subsamples (Bonferroni).

    Size: two exceedances in a row are rare, so that at 5 % the independence test rejects 1.5 % of true models with the
    99 % and 97.5 % VaR and up to 1,500 sessions, and 1.7 %, 2.4 % and 5.7 % with the 95 % VaR and 250, 500 and 1,500;
    the conditional-coverage test 0.5 to 3 %, 3 to 4 % and 4 to 7 %. Ten-day windows every session: below 2.2 %; taken
    as independent 57 to 100 %. Simulated p-values (`draws`) hold their size but for ties, that count against rejection.

    Args:
        exceeded: whether the loss was beyond the value at risk.
        level: confidence, such as 0.99.
        mask: which days count, all by default.
        overlap: sessions that each observation spans, where there is one every session.
        draws: samples of independent exceedances, for each number of observations, that p-values are simulated by; 0
            for the chi-squared laws.
        generator: of the draws.

    Raises:
        ValueError: shapes differ, or the level or the overlap is out of range.

    References:
        Christoffersen (1998), Evaluating interval forecasts, International Economic Review 39, equations 7 to 12.
    """
    p = check_level(level)
    check_overlap(overlap)
    require(draws >= 0, "draws", draws, "simulate some samples, or 0 for the chi-squared laws")

    def statistics(there: Tensor, hit: Tensor) -> tuple[Tensor, Tensor]:
        pair = there[1:]  # compressed rows: the one before is there too
        before, now = hit[:-1] & pair, hit[1:]
        n1, n01, n11 = before.sum(0).double(), (~before & now & pair).sum(0).double(), (before & now).sum(0).double()
        n0 = pair.sum(0) - n1
        share = (n01 + n11) / (n0 + n1).clamp(min=1)
        chain = log_likelihood(n01, n0, n01 / n0.clamp(min=1)) + log_likelihood(n11, n1, n11 / n1.clamp(min=1))
        statistic = 2 * (chain - log_likelihood(n01 + n11, n0 + n1, share)).clamp(min=0)
        joint = statistic + coverage_statistic(there, hit, p)
        return statistic, torch.where(n0 + n1 > 0, joint, torch.nan)

    def test(there: Tensor, hit: Tensor) -> tuple[Pair, ...]:
        n = there.sum(0)
        out = []
        for i, statistic in enumerate(statistics(there, hit)):
            if draws == 0:
                p_value = chi2_sf(statistic, i + 1)
            else:
                chosen = lambda there, hit, i=i: statistics(there, hit)[i]  # noqa: E731
                p_value = simulated_p_values(chosen, lambda u: u < p, statistic, n, draws, generator)
            out.append((statistic, torch.where(n > 1, p_value, torch.nan)))
        return tuple(out)

    there, hit = compress(usable(mask, exceeded=exceeded), exceeded)
    independence, joint = on_subsamples(test, overlap, there, hit)
    n = there.sum(0)
    return Christoffersen(
        BacktestResult("Christoffersen independence", *independence, n, "an exceedance does not foretell the next"),
        BacktestResult(
            "Christoffersen conditional coverage", *joint, n, "exceedances are independent at the rate 1 - level"
        ),
    )
