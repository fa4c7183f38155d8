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

from qtorch.distributions.loops import in_pieces
from qtorch.distributions.student_t_tail import half_log1p, log_normaliser, log_tail_less

Double = Float64[Tensor, "..."]


def quantile(p: Double, nu: Double) -> Double:
    """The x with P(T <= x) = p for p in [0, 1], which broadcasts against nu; NaN outside.

    One step of Householder's third-order method on the log tail as a function of s = asinh(x / sqrt(nu)), where it is
    smooth and nearly straight. It takes the fourth power of a small error; against a second step x changes by 3e-13 at
    most, relative, and by 1e-14 for p above 1e-10 and df from 2 to 1e3, which is the rounding of the tail itself.
    """
    # The dear functions of p alone and of nu alone come before they broadcast.
    z, normaliser = torch.special.ndtri(torch.minimum(p, 1.0 - p)), log_normaliser(nu)
    return in_pieces(_solve, p, nu, z, normaliser)


def _solve(p: Double, nu: Double, z: Double, normaliser: Double) -> Double:
    tail = torch.minimum(p, 1.0 - p)
    root, log_mass = torch.sqrt(nu), torch.log(tail)
    x = _guess(tail, log_mass, z, nu, root, normaliser)
    error = log_tail_less(x, nu, normaliser, tail, log_mass)
    # Of log P(T > x) as a function of s the derivatives are -u, -u v and -u (v^2 + u v - nu / cosh^2 s).
    q = x / root
    cosh = torch.hypot(q, torch.ones_like(q))
    u = torch.exp(normaliser - (nu + 1.0) * half_log1p(x, nu) - error - log_mass) * root * cosh
    v = u - nu * (q / cosh)
    newton = error / u
    third = v * v + u * v - nu / (cosh * cosh)
    step = newton * (1.0 + 0.5 * v * newton) / (1.0 + newton * (v + third * newton / 6.0))
    # sinh(s + step) by the addition theorem; cosh(step) - 1 by 2 sinh^2(step / 2) loses nothing.
    half = torch.sinh(0.5 * step)
    change = 2.0 * half * (q * half + cosh * torch.sqrt(1.0 + half * half))
    x = (x + root * change).clamp(min=0.0)
    x = torch.where(tail > 0.0, x, torch.where(tail == 0.0, torch.inf, torch.nan))
    return torch.where(p < 0.5, -x, x)


def _guess(tail: Double, log_mass: Double, z: Double, nu: Double, root: Double, normaliser: Double) -> Double:
    """An x with P(T > x) = tail; s is right to 1e-4 for nu above 2.4, to 7e-4 for nu above 1/2."""
    # The tail is (x^2 / nu)^(-nu / 2) / (2 d) in the limit.
    d = 0.5 * root * torch.exp(-normaliser)
    log_pareto = (torch.log(2.0 * d) + log_mass) / nu
    y = torch.exp(2.0 * log_pareto)
    share = (1.0 / (((nu + 6.0) / (nu * y) - 0.089 * d - 0.822) * (3.0 * nu + 6.0)) + 0.5 / (nu + 4.0)) * y - 1.0
    far = root * torch.exp(-log_pareto) * torch.sqrt((1.0 + y * share * (nu + 1.0) / (nu + 2.0)).clamp(min=0.0))

    b = (nu - 0.5).clamp(min=0.5)
    a = 1.0 / b
    c = 48.0 * b * b + ((431.25 * a * a * a - 98.0) * a - 16.0) * a + 96.36
    c = c + (((0.05 * d * z - 5.0) * z - 7.0) * z - 2.0) * z
    c = c + torch.where(nu < 5.0, 0.3 * (nu - 4.5) * (z + 0.6), 0.0)
    z2 = z * z
    near = (((((0.4 * z2 + 6.3) * z2 + 36.0) * z2 + 94.5) / c - z2 - 3.0) * (a * a / 48.0) + 1.0) * z
    near = root * torch.sqrt(torch.expm1((a * near * near).clamp(max=600.0)))

    heavy = torch.where(tail < 0.26, far, _central(tail, nu, d / root))
    return torch.where(nu < 2.3, heavy, torch.where(y > 0.05 + a, near, far))


def _central(tail: Double, nu: Double, half: Double) -> Double:
    """The power series about the median, `half` being that over the density there."""
    v, m = (1.0 - 2.0 * tail) * half, 1.0 / nu
    v2 = v * v
    series = (243649.0 + m * (153161.0 - m * (64250.0 - m * (23734.0 - m * (2503.0 - m))))) * v2 / 110.0
    series = (4369.0 + m * (3832.0 - m * (402.0 - m * (136.0 + m))) + series) * v2 / 72.0
    series = (127.0 + m * (135.0 + m * (9.0 + m)) + series) * v2 / 42.0
    series = (7.0 + m * (8.0 + m) + series) * v2 / 20.0
    return v * (1.0 + (1.0 + m + series) * v2 / 6.0)
