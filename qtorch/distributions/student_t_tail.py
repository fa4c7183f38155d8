"""The tail of the standard Student-t to full float64 precision, with its derivative in the degrees of freedom.

Every function here is elementary arithmetic (no lgamma, no incomplete beta), so that it compiles into one kernel.
For x >= 0 and T(x) = P(X > x) of df = nu degrees of freedom, with f the density,

    T(x) = 1/2 - x f(x) S,      S = 2F1(1, (nu + 1)/2; 3/2; y),   y = x^2 / (nu + x^2)     near the centre,
    T(x) = x f(x) / (2 K),      K the continued fraction of the incomplete beta function    in the tail,

the power series having positive terms only, the continued fraction being contracted to its even part, in the form
without cancellation. The border lies at x = 3 for the normal and at T about 1e-3 .. 0.1 for heavier tails, where either
needs few terms; those of `FULL` reach 3e-16 on their sides for any nu >= 1/2.

References:
    Abramowitz and Stegun (1964), 26.5.8, 26.7.1 and 15.3.3; DiDonato and Morris (1992), Algorithm 708: significant
    digit computation of the incomplete beta function ratios, ACM TOMS 18, for the even contraction.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float64
from torch import Tensor

from qtorch.distributions.loops import State, Step, add, count_down

FULL = (48, 24)  # terms of the series and the fraction
ROUGH = (24, 8)  # the same for 1e-4 relative in the tail
_SHIFT = 8
_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)

Double = Float64[Tensor, "..."]


def log_normaliser(nu: Double) -> Double:
    """Compute log Gamma((nu + 1)/2) - log Gamma(nu/2) - log(pi nu)/2, to 1e-15 for any nu > 0.

    The ratio of the gammas by its asymptotic series about nu/2 + 8, and down from there by its recurrence.
    """
    a = nu / 2
    product = torch.ones_like(a)
    for k in range(_SHIFT):
        product = product * ((a + k) / (a + (k + 0.5)))
    z = 1 / (a + _SHIFT)
    z2 = z * z
    correction = 1 / 192 - z2 * (
        1 / 640 - z2 * (17 / 14336 - z2 * (31 / 18432 - z2 * (691 / 180224 - z2 * 5461 / 425984)))
    )
    return torch.log(product) + 0.5 * torch.log1p(_SHIFT / a) + z * (z2 * correction - 0.125) - _HALF_LOG_2PI


def log_density(x: Double, nu: Double) -> Double:
    """Log density of the standard Student-t at any x."""
    return log_normaliser(nu) - (nu + 1) * half_log1p(x, nu)


def log_tail(x: Double, nu: Double) -> Double:
    """Log of P(X > x) for x >= 0. Measured against mpmath for nu .5 to 1e4: 4e-13 relative in the tail probability."""
    return _by_side(_log_tail_inner, _log_tail_outer, x, nu)


def log_tail_less(x: Double, nu: Double, tail: Double, normaliser: Double, terms: tuple[int, int] = FULL) -> Double:
    """Log of P(X > x) over `tail`, for x >= 0; precise relative to x where both tend to 1/2."""
    inner, outer = partial(_log_tail_less_inner, terms[0]), partial(_log_tail_less_outer, terms[1])
    return _by_side(inner, outer, x, nu, tail, normaliser)


def log_tail_slope(x: Double, nu: Double, log_tail: Double) -> Double:
    """The derivative of log P(X > x) with respect to nu, for x >= 0; 1e-13 relative for nu up to 1e4."""
    return _by_side(_log_tail_slope_inner, _log_tail_slope_outer, x, nu, log_tail)


def _by_side(
    inner: Callable[..., Double], outer: Callable[..., Double], x: Double, nu: Double, *others: Double
) -> Double:
    """`inner` where the power series is used, `outer` where the fraction is.

    A kernel has to compute both; on a CPU in eager mode each element pays for its own side alone.
    """
    central = x * x * (9 + nu) < 9 * nu
    if torch.compiler.is_compiling() or x.is_cuda or torch.is_grad_enabled() or x.ndim == 0:
        # The side that is not taken gets a harmless x.
        near, far = torch.where(central, x, 0.0), torch.where(central, 4.0, x)
        return torch.where(central, inner(near, nu, *others), outer(far, nu, *others))
    result = torch.empty_like(x)
    for side, function in ((central, inner), (~central, outer)):
        place = side.nonzero(as_tuple=True)
        if len(place[0]):
            result[place] = function(*(tensor[place] for tensor in (x, nu, *others)))
    return result


def _log_tail_inner(x: Double, nu: Double) -> Double:
    return torch.log(0.5 - x * torch.exp(log_density(x, nu)) * _series(x, nu))


def _log_tail_outer(x: Double, nu: Double) -> Double:
    return torch.log(0.5 * x / _fraction(x, nu)) + log_density(x, nu)


def _log_tail_less_inner(terms: int, x: Double, nu: Double, tail: Double, normaliser: Double) -> Double:
    central = x * torch.exp(normaliser - (nu + 1) * half_log1p(x, nu)) * _series(x, nu, terms)
    return torch.log1p(((0.5 - tail) - central) / tail)


def _log_tail_less_outer(terms: int, x: Double, nu: Double, tail: Double, normaliser: Double) -> Double:
    return torch.log(0.5 * x / _fraction(x, nu, terms)) + normaliser - (nu + 1) * half_log1p(x, nu) - torch.log(tail)


def _log_tail_slope_inner(x: Double, nu: Double, log_tail: Double) -> Double:
    S, dS = _series_dual(x, nu)
    return -x * torch.exp(log_density(x, nu) - log_tail) * (S * _log_density_slope(x, nu) + dS)


def _log_tail_slope_outer(x: Double, nu: Double, log_tail: Double) -> Double:
    K, dK = _fraction_dual(x, nu)
    return _log_density_slope(x, nu) - dK / K


def half_log1p(x: Double, nu: Double) -> Double:
    """log(1 + x^2 / nu) / 2, also where x^2 overflows."""
    far = x.abs() > 1e100
    near = 0.5 * torch.log1p(torch.where(far, 0.0, x) ** 2 / nu)
    return torch.where(far, torch.log(torch.where(far, x.abs(), 1.0)) - 0.5 * torch.log(nu), near)


def _log_density_slope(x: Double, nu: Double) -> Double:
    """The derivative of the log density with respect to nu."""
    y, _ = _shares(x, nu)
    # y - log(1 + x^2 / nu) = y + log(1 - y), whose leading terms cancel for small y.
    power = torch.full_like(y, 1 / 14)
    for k in range(13, 1, -1):
        power = 1 / k + y * power
    difference = torch.where(y < 0.05, -y * y * power, y - 2 * half_log1p(x, nu))
    return _log_normaliser_slope(nu) + 0.5 * difference + 0.5 * y / nu


def _log_normaliser_slope(nu: Double) -> Double:
    a = nu / 2
    ratio = torch.zeros_like(a)
    for k in range(_SHIFT):
        ratio = ratio + 0.5 / ((a + k) * (a + (k + 0.5)))
    z2 = 1 / (a + _SHIFT) ** 2
    correction = 0.125 - z2 * (3 / 192 - z2 * (5 / 640 - z2 * (119 / 14336 - z2 * (279 / 18432 - z2 * 7601 / 180224))))
    return 0.5 * (ratio - 0.5 * _SHIFT / (a * (a + _SHIFT)) + z2 * correction)


def _series(x: Double, nu: Double, terms: int = FULL[0]) -> Double:
    """S of the module's formulae, for arguments near the centre, by Horner's rule."""
    y, _ = _shares(x, nu)
    step = partial(_series_step, y * ((nu + 1) / 2), y)
    return count_down(step, terms - 1, (torch.ones_like(y),), stride=8)[0]


def _series_step(first: Double, y: Double, k: Step, total: Double) -> State:
    return (1 + add(first, y, k) * total / (k + 1.5),)


def _fraction(x: Double, nu: Double, terms: int = FULL[1]) -> Double:
    """K of the module's formulae, for arguments in the tail, from its far end."""
    y, w = _shares(x, nu)
    a = nu / 2
    # The numerator of step m is a (2m + 1/2) + 3 m (m + 1/2) + (a + m) (a + m + 1/2) y.
    step = partial(_fraction_step, a, w, (a * a * y, a * (1 + y), 3 + y))
    return count_down(step, terms - 1, (torch.full_like(y, torch.inf),), stride=4)[0]


def _fraction_step(a: Double, w: Double, numerator: State, m: Step, value: Double) -> State:
    first, second, third = numerator
    s, below, factor = a + 2 * m, w / value, -(m + 1) * (m + 0.5)
    above = add(add(first, second, 2 * m + 0.5), third, m * (m + 0.5))
    return ((above + s * below * factor) / add(s + 1, below, factor),)


def _series_dual(x: Double, nu: Double) -> tuple[Double, Double]:
    """S and its derivative with respect to nu."""
    y, w = _shares(x, nu)
    # Of y (h + k), h = (nu + 1)/2, the derivative is y (y/2 - (k + 1/2) w / nu), without cancellation.
    slopes = y * (0.5 * y - 0.5 * w / nu), -y * w / nu
    step = partial(_series_dual_step, y * ((nu + 1) / 2), y, slopes)
    total, d_total = count_down(step, FULL[0] - 1, (torch.ones_like(y), torch.zeros_like(y)), stride=4)
    return total, d_total


def _series_dual_step(first: Double, y: Double, slopes: State, k: Step, total: Double, d_total: Double) -> State:
    factor = add(first, y, k)
    d_total = (factor * d_total + add(slopes[0], slopes[1], k) * total) / (k + 1.5)
    return 1 + factor * total / (k + 1.5), d_total


def _fraction_dual(x: Double, nu: Double) -> tuple[Double, Double]:
    """K and its derivative with respect to nu."""
    y, w = _shares(x, nu)
    a, dw = nu / 2, y * w / nu
    numerator = a * a * y, a * (1 + y), 3 + y
    slopes = a * (y - a * dw), 0.5 * (1 + y) - a * dw
    step = partial(_fraction_dual_step, a, w, dw, numerator, slopes)
    value, d_value = count_down(step, FULL[1] - 1, (torch.full_like(y, torch.inf), torch.zeros_like(y)), stride=2)
    return value, d_value


def _fraction_dual_step(
    a: Double, w: Double, dw: Double, numerator: State, slopes: State, m: Step, value: Double, d_value: Double
) -> State:
    first, second, third = numerator
    s, factor, square = a + 2 * m, -(m + 1) * (m + 0.5), m * (m + 0.5)
    below = w * factor / value
    d_below = (dw * factor - below * d_value) / value
    denominator = s + 1 + below
    value = (add(add(first, second, 2 * m + 0.5), third, square) + s * below) / denominator
    d_above = add(add(slopes[0], slopes[1], 2 * m + 0.5), dw, -square) + 0.5 * below + s * d_below
    return value, (d_above - value * (0.5 + d_below)) / denominator


def _shares(x: Double, nu: Double) -> tuple[Double, Double]:
    """The shares y = x^2 / (nu + x^2) and 1 - y, also where x^2 overflows."""
    square = (x / torch.sqrt(nu)).clamp(max=1e150) ** 2
    w = 1 / (1 + square)
    return square * w, w
