"""The quantile of the standard Student-t to full float64 precision, by one corrected first guess.

References:
    Hill (1970), Algorithm 396: Student's t-quantiles, Communications of the ACM 13, for the first guess from df 2.3 and
    for that in the tail at any df (with the exact constant of the tail).
    Shaw (2006), Sampling Student's t distribution - use of the inverse cumulative distribution function, Journal of
    Computational Finance 9, for the power series about the median (its terms of order 9 and 11 derived from x'').
"""

import torch
from jaxtyping import Float64
from torch import Tensor

from qtorch.distributions.student_t_tail import half_log1p, log_normaliser, log_tail_less

Double = Float64[Tensor, "..."]


def quantile(p: Double, nu: Double) -> Double:
    """The x with P(T <= x) = p for p in [0, 1]; NaN outside.

    One step of Householder's third-order method on the log tail as a function of s = asinh(x / sqrt(nu)), where it is
    smooth and nearly straight. It takes the fourth power of a small error; against a second step x changes by 3e-13 at
    most, relative, and by 1e-14 for p above 1e-10 and df from 2 to 1e3, which is the rounding of the tail itself.
    """
    tail = torch.minimum(p, 1 - p)
    root, normaliser, log_mass = torch.sqrt(nu), log_normaliser(nu), torch.log(tail)
    x = _guess(tail, nu, log_mass, normaliser)
    error = log_tail_less(x, nu, normaliser, tail, log_mass)
    # Of log P(T > x) as a function of s the derivatives are -u, -u v and -u (v^2 + u v - nu / cosh^2 s).
    q = x / root
    cosh = torch.hypot(q, torch.ones_like(q))
    u = torch.exp(normaliser - (nu + 1) * half_log1p(x, nu) - error - log_mass) * root * cosh
    v = u - nu * (q / cosh)
    newton = error / u
    third = v * v + u * v - nu / (cosh * cosh)
    step = newton * (1 + 0.5 * v * newton) / (1 + newton * (v + third * newton / 6))
    # sinh(s + step) by the addition theorem; cosh(step) - 1 by 2 sinh^2(step / 2) loses nothing.
    half = torch.sinh(0.5 * step)
    change = 2 * half * (q * half + cosh * torch.sqrt(1 + half * half))
    x = (x + root * change).clamp(min=0)
    x = torch.where(tail > 0, x, torch.where(tail == 0, torch.inf, torch.nan))
    return torch.where(p < 0.5, -x, x)


def _guess(tail: Double, nu: Double, log_mass: Double, normaliser: Double) -> Double:
    """An x with P(T > x) = tail; s is right to 1e-4 for nu above 2.4, to 7e-4 for nu above 1/2."""
    a = 1 / (nu - 0.5).clamp(min=0.5)
    # The tail is tail = (x^2 / nu)^(-nu / 2) / (2 d) in the limit.
    d = 0.5 * torch.exp(0.5 * torch.log(nu) - normaliser)
    log_pareto = (torch.log(2 * d) + log_mass) / nu
    y = torch.exp(2 * log_pareto)
    share = (1 / (((nu + 6) / (nu * y) - 0.089 * d - 0.822) * (nu + 2) * 3) + 0.5 / (nu + 4)) * y - 1
    far = torch.exp(0.5 * torch.log(nu) - log_pareto) * torch.sqrt((1 + y * share * (nu + 1) / (nu + 2)).clamp(min=0))

    z = torch.special.ndtri(tail)
    z2, b = z * z, 48 / (a * a)
    c = (((0.05 * d * z - 5) * z - 7) * z - 2) * z + b + ((20700 * a / b - 98) * a - 16) * a + 96.36
    c = c + torch.where(nu < 5, 0.3 * (nu - 4.5) * (z + 0.6), 0.0)
    z = (((((0.4 * z2 + 6.3) * z2 + 36) * z2 + 94.5) / c - z2 - 3) / b + 1) * z
    near = torch.sqrt(nu * torch.expm1((a * z * z).clamp(max=600)))

    heavy = torch.where(tail < 0.26, far, _central(tail, nu, normaliser))
    return torch.where(nu < 2.3, heavy, torch.where(y > 0.05 + a, near, far))


def _central(tail: Double, nu: Double, normaliser: Double) -> Double:
    """The power series about the median."""
    v, m = (0.5 - tail) * torch.exp(-normaliser), 1 / nu
    v2 = v * v
    series = (243649 + m * (153161 - m * (64250 - m * (23734 - m * (2503 - m))))) * v2 / 110
    series = (4369 + m * (3832 - m * (402 - m * (136 + m))) + series) * v2 / 72
    series = (127 + m * (135 + m * (9 + m)) + series) * v2 / 42
    series = (7 + m * (8 + m) + series) * v2 / 20
    return v * (1 + (1 + m + series) * v2 / 6)
