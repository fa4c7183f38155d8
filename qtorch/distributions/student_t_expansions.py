"""The power series and the continued fraction of Student's tail, each with its derivative in the degrees of freedom.

Both run from their far ends, as recurrences that neither divide nor cancel. The fraction is the ratio N / D of a pair.

References:
    Abramowitz and Stegun (1964), 26.5.8 and 15.3.3; DiDonato and Morris (1992), Algorithm 708: significant digit
    computation of the incomplete beta function ratios, ACM TOMS 18, for the even contraction.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from qtorch.distributions.loops import State, Step, add, add_product, count_down

Double = Float64[Tensor, "..."]
_TERMS = 24  # of the fraction, and half those of the series
_START = 2.0**-500  # of N and D, which grow by less than 1e19 a step


class Expansion(NamedTuple):
    """A recurrence: coefficients of (x, nu), the step state_m -> state_{m-1}, the state's start and its outcome."""

    coefficients: Callable[[Double, Double], State]
    step: Callable[..., State]
    start: tuple[float, ...]
    outcome: Callable[..., State]

    def evaluate(self, x: Double, nu: Double) -> State:
        """The outcome, by a loop in Python."""
        state = tuple(torch.full_like(x, value) for value in self.start)
        return self.outcome(*count_down(partial(self.step, self.coefficients(x, nu)), _TERMS - 1, state))


def evaluate_both(series: Expansion, fraction: Expansion, near: Double, far: Double, nu: Double) -> tuple[State, State]:
    """The outcomes of a series at `near` and of a fraction at `far`, by one loop that can be compiled."""
    count = len(series.start)
    state = tuple(torch.full_like(near, value) for value in series.start + fraction.start)
    coefficients = series.coefficients(near, nu), fraction.coefficients(far, nu)
    state = count_down(partial(_both, series.step, fraction.step, count, *coefficients), _TERMS - 1, state)
    return series.outcome(*state[:count]), fraction.outcome(*state[count:])


def _both(
    series: Callable[..., State],
    fraction: Callable[..., State],
    count: int,
    series_coefficients: State,
    fraction_coefficients: State,
    m: Step,
    *state: Tensor,
) -> State:
    return *series(series_coefficients, m, *state[:count]), *fraction(fraction_coefficients, m, *state[count:])


def _series_coefficients(x: Double, nu: Double) -> State:
    y, _ = shares(x, nu)
    return y * (0.5 * nu + 0.5), y, torch.ones_like(y)


def _series_step(coefficients: State, m: Step, S: Double) -> State:
    """Two terms: S <- 1 + y (h + k) / (k + 3/2) S for k = 2m + 1 and 2m, where h = (nu + 1)/2."""
    yh, y, one = coefficients
    for k in (2 * m + 1, 2 * m):
        S = add_product(one, add(yh, y, k), S, 1 / (k + 1.5))
    return (S,)


def _series_dual_coefficients(x: Double, nu: Double) -> State:
    y, w = shares(x, nu)
    # Of y (h + k) the derivative is y (y/2 - (k + 1/2) w / nu), without cancellation.
    return y * (0.5 * nu + 0.5), y, torch.ones_like(y), y * (0.5 * y - 0.5 * w / nu), -y * w / nu


def _series_dual_step(coefficients: State, m: Step, S: Double, dS: Double) -> State:
    yh, y, one, d_yh, d_y = coefficients
    for k in (2 * m + 1, 2 * m):
        factor, slope, share = add(yh, y, k), add(d_yh, d_y, k), 1 / (k + 1.5)
        dS = (factor * dS + slope * S) * share
        S = add_product(one, factor, S, share)
    return S, dS


def _fraction_coefficients(x: Double, nu: Double) -> State:
    y, w = shares(x, nu)
    r = 2.0 / nu
    return 0.5 * nu * y, 1.0 + y, (3.0 + y) * r, w, w * r, r


def _fraction_step(coefficients: State, m: Step, N: Double, D: Double) -> State:
    """One term of the even contraction, numerator and denominator divided by nu/2: with r = 2.0 / nu.

    N <- (nu y/2 + (2m + 1/2) (1 + y) + m (m + 1/2) (3 + y) r) N + f w (1 + 2m r) D,  f = -(m + 1)(m + 1/2),
    D <- (1 + (2m + 1) r) N + f w r D.
    """
    first, second, third, w, wr, r = coefficients
    f = -(m + 1) * (m + 0.5)
    above = add(add(first, second, 2 * m + 0.5), third, m * (m + 0.5))
    return (
        add_product(above * N, add(w, wr, 2 * m), D, f),
        add_product(add_product(N, r, N, 2 * m + 1), wr, D, f),
    )


def _fraction_dual_coefficients(x: Double, nu: Double) -> State:
    y, w = shares(x, nu)
    r = 2.0 / nu
    dw = y * w / nu
    slopes = 0.5 * y * y, -dw, -(dw + 0.5 * (3.0 + y) * r) * r, dw, (dw - 0.5 * w * r) * r, -0.5 * r * r
    return 0.5 * nu * y, 1.0 + y, (3.0 + y) * r, w, w * r, r, *slopes


def _fraction_dual_step(coefficients: State, m: Step, N: Double, D: Double, dN: Double, dD: Double) -> State:
    first, second, third, w, wr, r, *slopes = coefficients
    d_first, d_second, d_third, dw, d_wr, dr = slopes
    f, g, h = -(m + 1) * (m + 0.5), 2 * m + 0.5, m * (m + 0.5)
    above, d_above = add(add(first, second, g), third, h), add(add(d_first, d_second, g), d_third, h)
    q, dq = add(w, wr, 2 * m), add(dw, d_wr, 2 * m)
    d_numerator = add_product(add_product(above * dN + d_above * N, q, dD, f), dq, D, f)
    d_denominator = add_product(add_product(dN, r, dN, 2 * m + 1), dr, N, 2 * m + 1)
    d_denominator = add_product(add_product(d_denominator, wr, dD, f), d_wr, D, f)
    return *_fraction_step((first, second, third, w, wr, r), m, N, D), d_numerator, d_denominator


def shares(x: Double, nu: Double) -> tuple[Double, Double]:
    """The shares y = x^2 / (nu + x^2) and w = 1 - y, also where x^2 overflows."""
    square = (x / torch.sqrt(nu)).clamp(max=1e150).square()
    w = 1.0 / (1.0 + square)
    return square * w, w


def _identity(*state: Double) -> State:
    return state


def _ratio(N: Double, D: Double) -> State:
    return (N / D,)


def _log_slope(N: Double, D: Double, dN: Double, dD: Double) -> State:
    return (dN / N - dD / D,)


SERIES = Expansion(_series_coefficients, _series_step, (1.0,), _identity)
SERIES_DUAL = Expansion(_series_dual_coefficients, _series_dual_step, (1.0, 0.0), _identity)
FRACTION = Expansion(_fraction_coefficients, _fraction_step, (_START, 0.0), _ratio)
FRACTION_DUAL = Expansion(_fraction_dual_coefficients, _fraction_dual_step, (_START, 0.0, 0.0, 0.0), _log_slope)
