"""What all backtests do with the rows of a panel: skip the unusable ones, and allow for windows that overlap."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from qtorch.distributions.checks import require
from qtorch.errors import ArgumentError

Pair = tuple[Tensor, Tensor]  # statistic and p-value


def check_level(level: float) -> float:
    """The probability of an exceedance, 1 - level.

    Raises:
        ValueError: the level is not inside (1/2, 1), as where the probability itself is given.
    """
    require(0.5 < level < 1, "level", level, "give the confidence, inside (1/2, 1), such as 0.99 for a tail of 1 %")
    return 1 - level


def check_overlap(overlap: int) -> None:
    """Refuses an overlap below one session.

    Raises:
        ValueError: it is.
    """
    require(overlap >= 1, "overlap", overlap, "give the sessions that an observation spans, 1 where none overlap")


def check_shortfall(value_at_risk: Tensor, expected_shortfall: Tensor, there: Tensor) -> None:
    """Refuses expected shortfalls that are not positive or lie below their value at risk, but for rounding.

    Raises:
        ValueError: a usable one does; the message names the first.
    """
    for bad, what in (
        (expected_shortfall <= 0, "is not positive: give the ES as a positive loss"),
        (
            expected_shortfall < value_at_risk - 1e-6 * value_at_risk.abs(),
            "lies below its value at risk: give both as positive losses at one level",
        ),
    ):
        bad = bad & there
        if bad.any():
            place = tuple(bad.nonzero()[0].tolist())
            shown = ", ".join(map(str, place))
            raise ArgumentError(
                f"expected_shortfall[{shown}] = {expected_shortfall[place].item():.6g} with value_at_risk "
                f"{value_at_risk[place].item():.6g}, one of {int(bad.sum())}, {what}."
            )


def usable(mask: Tensor | None, **panels: Tensor) -> Tensor:
    """The rows that count: inside the mask, and finite in every panel.

    Args:
        mask: bool, `[T, *series]`, True where usable; None for all rows.
        panels: tensors `[T, *series]` under the names that an error calls them by.

    Raises:
        ValueError: shapes differ, or the mask is not bool.
    """
    first, values = next(iter(panels.items()))
    require(values.ndim >= 1, first, tuple(values.shape), "give [T, *series], time first")
    everything = panels if mask is None else {**panels, "mask": mask}
    for name, other in everything.items():
        if other.shape != values.shape:
            raise ArgumentError(
                f"{name} has shape {tuple(other.shape)} but {first} {tuple(values.shape)}: "
                "give both as [T, *series] on the same dates."
            )
    there = torch.ones_like(values, dtype=torch.bool)
    if mask is not None:
        if mask.dtype != torch.bool:
            raise ArgumentError(f"mask is {mask.dtype}: give a bool tensor, True where a row is usable.")
        there = mask
    for panel in panels.values():
        if panel.is_floating_point():
            there = there & panel.isfinite()
    return there


def compress(there: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
    """Moves each series' usable rows to the front, in their order, so that they become neighbours.

    Args:
        there: usable rows, `[T, *series]`.
        values: panels `[T, *series]`.

    Returns:
        The usable rows and the values, `[R, *series]` with R >= 1 the most usable rows of a series; values are 0
        where there is no row.
    """
    rows = max(int(there.sum(0).max()) if there.numel() else 0, 1)
    if there.numel() and there.all():
        return (there, *values)
    place = torch.where(there, there.cumsum(0) - 1, rows)
    out = []
    for value in (there, *values):
        packed = value.new_zeros((rows + 1, *value.shape[1:]))
        out.append(packed.scatter(0, place, value)[:rows])  # the last row takes what is not usable
    return tuple(out)


def in_order(there: Tensor, overlap: int, *values: Tensor) -> tuple[Tensor, ...]:
    """Usable rows and values, 0 where unusable; they are made neighbours only if windows overlap and order matters."""
    if overlap > 1:
        return compress(there, *values)
    return (there, *(value if there.all() else torch.where(there, value, 0) for value in values))


def on_subsamples(
    test: Callable[..., tuple[Pair, ...]], overlap: int, there: Tensor, *values: Tensor
) -> tuple[Pair, ...]:
    """Runs tests that lean on the order of observations, on every h-th of them where windows span h sessions.

    The h interleaved subsamples consist of windows that do not overlap. Their smallest p-value times their number
    (Bonferroni) is the p-value of all, and its statistic the statistic; the verdict is conservative.

    Args:
        test: of compressed rows and values to pairs of statistic and p-value.
        overlap: h.
        there: as of `compress`, like the values.
        values: panels `[R, *series]`.

    References:
        Diebold, Gunther and Tay (1998), Evaluating density forecasts, International Economic Review 39, section 4.
    """
    if overlap == 1:
        return test(there, *values)
    combined = []
    for statistic, p_value in test(*(_interleaved(value, overlap) for value in (there, *values))):
        count = p_value.isfinite().sum(0)
        lowest, which = p_value.nan_to_num(nan=torch.inf).min(0)
        statistic = statistic.gather(0, which.unsqueeze(0)).squeeze(0)
        combined.append((statistic, torch.where(count > 0, (lowest * count).clamp(max=1), torch.nan)))
    return tuple(combined)


def _interleaved(value: Tensor, overlap: int) -> Tensor:
    """[R, *series] to [R / h, h, *series], padded by zeros."""
    short = -len(value) % overlap
    padded = torch.cat([value, value.new_zeros((short, *value.shape[1:]))])
    return padded.reshape(-1, overlap, *value.shape[1:])


def autocovariance(x: Tensor, there: Tensor, lag: int) -> Tensor:
    """Mean of x[t] x[t - lag], the sum divided by all rows; `x` is 0 where there is no row."""
    n = there.sum(0).clamp(min=1)
    return (x[lag:] * x[: len(x) - lag]).sum(0) / n


def automatic_lags(n: Tensor) -> Tensor:
    """How many lags a long-run variance of n rows has by default: floor(4 (n / 100)^(2/9)).

    References:
        Newey and West (1994), Automatic lag selection in covariance matrix estimation, Review of Economic Studies 61.
    """
    return torch.floor(4 * (n / 100) ** (2 / 9) + 1e-12)


def bartlett(k: int, lags: Tensor) -> Tensor:
    """Bartlett's weight of the k-th autocovariance, 1 - k / (lags + 1), 0 beyond the lags."""
    return (1 - k / (lags + 1)).clamp(min=0)


def long_run_variance(x: Tensor, there: Tensor, lags: Tensor) -> Tensor:
    """Newey and West's variance of sqrt(n) times the mean, with Bartlett's weights.

    Args:
        x: demeaned, 0 where there is no row, `[R, *series]`.
        there: usable rows.
        lags: of each series, `[*series]`.

    References:
        Newey and West (1987), A simple, positive semi-definite, heteroskedasticity and autocorrelation consistent
        covariance matrix, Econometrica 55.
    """
    total = autocovariance(x, there, 0)
    for k in range(1, min(int(lags.max()) if lags.numel() else 0, len(x) - 1) + 1):
        total = total + 2 * bartlett(k, lags) * autocovariance(x, there, k)
    return total


def inflation(x: Tensor, there: Tensor, p: float, overlap: int) -> Tensor:
    """How much windows of h sessions that overlap raise the variance of a mean over them, `[*series]`.

    1 + 2 sum_{k<h} rho_k with the autocorrelations of `x` (Hansen and Hodrick 1980), but no less than the same sum
    for exceedances of Gaussian windows, and no more than h. The floor is needed because a few clusters of tail
    events say next to nothing of their own dependence: without it a nominal 5 % test of ten-day windows rejects
    11 % (95 % VaR, 500 sessions) to 48 % (99 %, 250 sessions) of true models. The ceiling is a theorem: no functions
    of two sums of independent terms, h - k of the h shared, correlate by more than 1 - k / h.

    Args:
        x: what is averaged, 0 where there is no row, `[R, *series]`.
        there: usable rows.
        p: probability of an exceedance.
        overlap: h.

    References:
        Hansen and Hodrick (1980), Forward exchange rates as optimal predictors of future spot rates, JPE 88; Dembo,
        Kagan and Shepp (2001), Remarks on the maximum correlation coefficient, Bernoulli 7.
    """
    n = there.sum(0).double()
    if overlap == 1:
        return torch.ones_like(n)
    centred = torch.where(there, x - x.sum(0) / n.clamp(min=1), 0.0)
    variance = autocovariance(centred, there, 0)
    ratio = torch.ones_like(variance)
    floor = torch.ones_like(variance)
    for k in range(1, min(overlap, len(x))):
        ratio = ratio + 2 * autocovariance(centred, there, k) / variance.clamp(min=torch.finfo(x.dtype).tiny)
        floor = floor + 2 * (1 - k / n.clamp(min=1)).clamp(min=0) * _gaussian_correlation(p, 1 - k / overlap)
    return torch.maximum(torch.where(variance > 0, ratio, floor), floor).clamp(max=overlap)


def _gaussian_correlation(p: float, rho: float) -> float:
    """Correlation of the events that two normals of correlation `rho` lie below their quantile of mass `p`.

    P(both) = p - 2 T(c, sqrt((1 - rho) / (1 + rho))) with Owen's function T by Gauss-Legendre quadrature.
    """
    c = torch.special.ndtri(torch.tensor(p, dtype=torch.float64)).item()
    top = math.sqrt((1 - rho) / (1 + rho))
    nodes, weights = np.polynomial.legendre.leggauss(32)
    x = top * (nodes + 1) / 2
    owen = float((weights * np.exp(-(c**2) * (1 + x**2) / 2) / (1 + x**2)).sum()) * top / 2 / (2 * math.pi)
    return (p - 2 * owen - p * p) / (p * (1 - p))
