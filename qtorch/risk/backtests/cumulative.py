"""Du and Escanciano's tests of the expected shortfall by cumulative violations of the tail."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from qtorch.distributions.checks import require
from qtorch.errors import ArgumentError
from qtorch.risk.backtests.laws import chi2_sf, two_sided
from qtorch.risk.backtests.monte_carlo import simulated_p_values
from qtorch.risk.backtests.result import BacktestResult
from qtorch.risk.backtests.series import (
    Pair,
    autocovariance,
    check_level,
    check_overlap,
    compress,
    inflation,
    on_subsamples,
    usable,
)

_STEP = 1 / 1024  # of the grid that the null law is convolved on


class DuEscanciano(NamedTuple):
    """The mean of the cumulative violations, and their autocorrelations."""

    unconditional: BacktestResult
    conditional: BacktestResult

    def __str__(self) -> str:
        return "\n\n".join(map(str, self))


def du_escanciano(
    pit: Float[Tensor, "T *series"],
    level: float,
    mask: Bool[Tensor, "T *series"] | None = None,
    lags: int = 5,
    overlap: int = 1,
    draws: int = 1000,
    generator: torch.Generator | None = None,
) -> DuEscanciano:
    """Tests of the expected shortfall: cumulative violations have the right mean, and are unforeseeable.

    With u the transform and p = 1 - level, H = (1 - u / p) 1{u <= p} has mean p / 2 and variance p (1/3 - p/4).
    Unconditional: U = sqrt(n) (mean H - p/2) / sqrt(p (1/3 - p/4)), standard normal; positive where the tail was worse
    than forecast, two-sided p-value. Conditional: C = n sum of the squared first autocorrelations of H - p/2, in the
    limit chi-squared with `lags` degrees of freedom; that law rejects 6 to 13 % at 5 % with up to 1,500 observations,
    so that the p-value is simulated. NaN without an observation; the conditional one also without a violation or with
    no more observations than lags.

    Windows that overlap: U^2 is divided by the inflation of the variance as in `kupiec`; the conditional test runs on
    interleaved subsamples (Bonferroni).

    Size at 5 %: both 4 to 6.5 % with 250 to 1,500 sessions. Ten-day windows every session: unconditional 3 to 7 %,
    conditional 2 to 9 %; taken as independent 14 to 46 % and 80 to 100 %.

    Args:
        pit: probability that the forecast gave to returns at most as high as the one that came.
        level: confidence, such as 0.975.
        mask: which days count, all by default; NaN never do.
        lags: of the autocorrelations.
        overlap: sessions that each observation spans, where there is one every session.
        draws: simulated samples for each number of observations, of at most 16 different ones; 0 for the chi-squared
            law.
        generator: of the draws.

    Raises:
        ValueError: shapes differ, the level, the lags, the draws or the overlap are out of range, or transforms leave
            [0, 1].

    References:
        Du and Escanciano (2017), Backtesting expected shortfall: accounting for tail risk, Management Science 63,
        equations 4 to 9.
    """
    p = check_level(level)
    check_overlap(overlap)
    require(draws >= 0, "draws", draws, "simulate some samples, or 0 for the chi-squared law")
    require(lags >= 1, "lags", lags, "give the number of autocorrelations, 1 or more")
    there, violation = compress(*cumulative_violations(pit, p, mask))
    n = there.sum(0)
    standard = (violation - p / 2) / (p * (1 / 3 - p / 4)) ** 0.5
    total = torch.where(there, standard, 0.0).sum(0)
    u = total / (n.clamp(min=1) * inflation(violation, there, p, overlap)).sqrt()
    u = torch.where(n > 0, u, torch.nan)

    def autocorrelation(there: Tensor, violation: Tensor) -> Tensor:
        n = there.sum(0).double()
        centred = torch.where(there, violation - p / 2, 0.0)
        variance = autocovariance(centred, there, 0).clamp(min=1e-300)
        statistic = torch.zeros_like(n)
        for j in range(1, min(lags, len(centred) - 1) + 1):
            # The paper's divisor of the j-th autocovariance is n - j.
            rho = autocovariance(centred, there, j) * n / (n - j).clamp(min=1) / variance
            statistic = statistic + n * rho**2
        tested = (violation > 0).any(0) & (n > lags)
        return torch.where(tested, statistic, torch.nan)

    def conditional(there: Tensor, violation: Tensor) -> tuple[Pair]:
        statistic = autocorrelation(there, violation)
        if draws == 0:
            return ((statistic, chi2_sf(statistic, lags)),)
        law = (lambda u: (1 - u / p).clamp(min=0), statistic, there.sum(0), draws, generator)
        return ((statistic, simulated_p_values(autocorrelation, *law)),)

    ((statistic, p_value),) = on_subsamples(conditional, overlap, there, violation)
    return DuEscanciano(
        BacktestResult("Du-Escanciano unconditional", u, two_sided(u), n, "the tail's violations sum to what is due"),
        BacktestResult("Du-Escanciano conditional", statistic, p_value, n, "the tail's violations are unforeseeable"),
    )


def cumulative_violations(pit: Tensor, p: float, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Usable rows, and 1 - u / p where u <= p, else 0.

    Raises:
        ValueError: transforms leave [0, 1].
    """
    there = usable(mask, pit=pit)
    check_transforms(pit, there)
    u = pit.double()
    return there, torch.where(there & (u <= p), 1 - u / p, 0.0)


def check_transforms(pit: Tensor, there: Tensor) -> None:
    """Refuses transforms that are no probabilities.

    Raises:
        ValueError: a usable one lies outside [0, 1]; the message names the first.
    """
    bad = there & ((pit < 0) | (pit > 1))
    if bad.any():
        place = tuple(bad.nonzero()[0].tolist())
        raise ArgumentError(
            f"pit[{', '.join(map(str, place))}] = {pit[place].item():.6g}, and {int(bad.sum())} in all lie outside "
            "[0, 1]: give the forecast's cdf at the realised return."
        )


@dataclass(frozen=True, eq=False)
class ViolationLaw:
    """The law of the sum of n cumulative violations under a true model, on a grid.

    Attributes:
        upper: probability of at most each grid point, `[G]`.
    """

    upper: Float64[Tensor, " G"]

    def cdf(self, total: Float64[Tensor, "*series"]) -> Float64[Tensor, "*series"]:
        """P(sum <= total), between grid points by linear interpolation."""
        place = (total / _STEP).clamp(0, len(self.upper) - 1)
        low = place.floor().long().clamp(max=len(self.upper) - 2)
        table = self.upper.to(total.device)
        return torch.lerp(table[low], table[low + 1], place - low)


def violation_law(n: int, p: float) -> ViolationLaw:
    """The sum of n independent violations, each 0 with probability 1 - p and else uniform on [0, 1].

    The uniform is put on a grid by cells; the n-fold convolution is a power of the discrete Fourier transform over a
    span that the sum leaves with probability below 1e-12.
    """
    mean, deviation = n * p / 2, (n * p / 3) ** 0.5
    span = min(n + 1.0, mean + 10 * deviation + 30)
    points = int(span / _STEP) + 2
    mass = torch.zeros(points, dtype=torch.float64)
    cells = round(1 / _STEP)
    mass[: cells + 1] = p * _STEP
    mass[0] = 1 - p + p * _STEP / 2
    mass[cells] = p * _STEP / 2
    size = 2 ** (points - 1).bit_length()
    law = torch.fft.irfft(torch.fft.rfft(mass, n=size) ** n, n=size)[:points].clamp(min=0)
    # Half of a grid point's mass lies below it, all of it where the atom of no violation is.
    atom = (1 - p) ** n
    upper = law.cumsum(0) - law / 2
    upper[0] = atom
    return ViolationLaw(upper.clamp(max=1))
