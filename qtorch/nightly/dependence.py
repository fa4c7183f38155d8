"""The copulas that join a night's marginals: fitted to the transforms known before, on a schedule."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from qtorch.data import DataError
from qtorch.distributions import StudentTCopula
from qtorch.risk import fit_copula

REFIT_AFTER, HALF_LIFE, MOST_FACTORS = 63, 250.0, 5  # the first two in sessions
LEAST_DAYS = 60


def factors_of(assets: int) -> int:
    """As many factors as the correlations of some assets determine, 1 at least and 5 at most.

    References:
        Ledermann (1937), On the rank of the reduced correlational matrix in multiple-factor analysis, Psychometrika 2.
    """
    return min(MOST_FACTORS, max(1, math.floor((2 * assets + 1 - math.sqrt(8 * assets + 1)) / 2)))


def fitted(pit: Float64[Tensor, "T N"], start: StudentTCopula | None = None) -> StudentTCopula:
    """A t copula of past transforms, of which those of 250 sessions before the last count half.

    Args:
        pit: in the order of time; NaN where an asset has none.
        start: a copula of the same assets to start from.

    Raises:
        DataError: two assets or more have transforms on too few days.
    """
    if pit.shape[1] == 1:
        return StudentTCopula(30.0, pit.new_zeros(1, 1))  # any: one asset depends on none
    days = int((pit.isfinite().sum(1) > 1).sum())
    if days < LEAST_DAYS:
        raise DataError(
            f"a copula needs {LEAST_DAYS} days on which two assets have both a forecast and a return; there are {days} "
            f"in {len(pit)}. Give more history or assets, lower risk.backtest_sessions, or set risk.dependence to past."
        )
    age = torch.arange(len(pit) - 1, -1, -1, dtype=torch.float64)
    return fit_copula(pit, factors_of(pit.shape[1]), 0.5 ** (age / HALF_LIFE), start=start)


def refitted(
    pit: Float64[Tensor, "T N"], days: Sequence[int], window: int
) -> list[tuple[Sequence[int], StudentTCopula]]:
    """The copulas of consecutive days, fitted anew every 63 sessions to what was known by then.

    Args:
        pit: in the order of time.
        days: positions in `pit`, one after the other; a day knows the rows before it.
        window: the most rows that one is fitted to.

    Returns:
        Days in a row and their copula.

    Raises:
        DataError: as of `fitted`.
    """
    blocks: list[tuple[Sequence[int], StudentTCopula]] = []
    for first in range(0, len(days), REFIT_AFTER):
        day = days[first]
        before = blocks[-1][1] if blocks else None
        blocks.append((days[first : first + REFIT_AFTER], fitted(pit[max(0, day - window) : day], before)))
    return blocks
