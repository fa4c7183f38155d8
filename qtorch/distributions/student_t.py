"""Student's t distribution function and quantile, which torch lacks, with gradients in value and parameters."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float64
from torch import Tensor

_TERMS = 64  # of the continued fraction: 1e-13 relative for df from 2 to 1e4
_TINY = 1e-300
_CHUNK = 1 << 16


def t_log_prob(x: Tensor, df: Tensor) -> Tensor:
    """Log density of the standard Student-t.

    The normaliser is computed in float64, because in float32 the difference of two lgammas loses all digits at
    large df. Shapes broadcast; the result has the dtype of `x`.
    """
    nu = df.double()
    log_normaliser = torch.lgamma((nu + 1) / 2) - torch.lgamma(nu / 2) - 0.5 * torch.log(math.pi * nu)
    return log_normaliser.to(x.dtype) - (df + 1) / 2 * torch.log1p(x * x / df)


def t_cdf(x: Tensor, df: Tensor) -> Float64[Tensor, "..."]:
    """Distribution function of the standard Student-t, in float64.

    F(x) = I_w(df/2, 1/2) / 2 with w = df / (df + x^2) for x <= 0, by the continued fraction of the regularised
    incomplete beta function. Measured against scipy for df 2.1 to 1e4 and x -50 to 0: 1e-11 relative.

    References:
        Abramowitz and Stegun (1964), 26.5.8 and 26.7.1; Lentz (1976) for the evaluation.
    """
    return _chunked(_cdf, x.double(), df.double())


def _cdf(x: Float64[Tensor, "..."], nu: Float64[Tensor, "..."]) -> Float64[Tensor, "..."]:
    half = 0.5 * _incomplete_beta(x * x, nu)
    return torch.where(x <= 0, half, 1 - half)


def t_icdf(probability: Tensor, df: Tensor) -> Float64[Tensor, "..."]:
    """Quantile of the standard Student-t, in float64, for left-tail masses in (0, 1).

    Newton's method on the smaller tail, from its leading expansions; gradients follow from the implicit function
    theorem. Measured against scipy for df 2.1 to 1e4 and probabilities 1e-10 to 0.5: 1e-10 relative.

    References:
        Abramowitz and Stegun (1964), 26.7.5, for the expansion about the normal quantile.
    """
    return _chunked(_icdf, probability.double(), df.double())


def _icdf(p: Float64[Tensor, "..."], nu: Float64[Tensor, "..."]) -> Float64[Tensor, "..."]:
    tail = torch.minimum(p, 1 - p)
    with torch.no_grad():
        x = -_start(tail, nu)
        for _ in range(6):
            mass, density = 0.5 * _incomplete_beta(x * x, nu), torch.exp(t_log_prob(x, nu))
            # In the tail the step is in log |x|, where log F is nearly straight: d log F / d log|x| = x f / F.
            in_log = x * torch.exp((torch.log(tail) - torch.log(mass)) * mass / (x * density).clamp(max=-_TINY))
            better = torch.where(tail < 0.2, in_log, (x - (mass - tail) / density).clamp(max=0))
            done = (mass - tail).abs() <= 1e-14 * tail
            x = torch.where(done, x, better)
            if not torch.compiler.is_compiling() and done.all():
                break
        x = torch.where(p > 0.5, -x, x)
    if not (p.requires_grad or nu.requires_grad):
        return x
    return x - (_cdf(x, nu) - p) / torch.exp(t_log_prob(x, nu)).detach()


def t_tail_mean(x: Tensor, df: Tensor) -> Float64[Tensor, "..."]:
    """E[T | T <= x] of the standard Student-t for df > 1: -f(x) / F(x) (df + x^2) / (df - 1), in float64.

    References:
        McNeil, Frey and Embrechts (2015), Quantitative Risk Management, equation 2.25.
    """
    x, nu = torch.broadcast_tensors(x.double(), df.double())
    return -torch.exp(t_log_prob(x, nu)) / t_cdf(x, nu) * (nu + x * x) / (nu - 1)


def t_mean_abs(df: Tensor) -> Float64[Tensor, "..."]:
    """E|T| of the standard Student-t for df > 1, in float64."""
    nu = df.double()
    log_ratio = torch.lgamma((nu + 1) / 2) - torch.lgamma(nu / 2)
    return 2 * torch.sqrt(nu / math.pi) * torch.exp(log_ratio) / (nu - 1)


def _chunked(function: Callable[[Tensor, Tensor], Tensor], x: Tensor, nu: Tensor) -> Tensor:
    """Applies an elementwise function to broadcast arguments, on a CPU in pieces that stay in its cache."""
    x, nu = torch.broadcast_tensors(x, nu)
    if x.is_cuda or x.numel() <= _CHUNK or torch.compiler.is_compiling() or x.requires_grad or nu.requires_grad:
        return function(x, nu)
    out = torch.empty(x.numel(), dtype=x.dtype)
    pieces = zip(out.split(_CHUNK), x.flatten().split(_CHUNK), nu.flatten().split(_CHUNK), strict=True)
    for piece, *arguments in pieces:
        piece.copy_(function(*arguments))
    return out.view(x.shape)


def _incomplete_beta(square: Float64[Tensor, "..."], nu: Float64[Tensor, "..."]) -> Float64[Tensor, "..."]:
    """I_w(nu/2, 1/2) for w = nu / (nu + square), from whichever side the continued fraction converges fast."""
    a, b = nu / 2, torch.full_like(nu, 0.5)
    w, complement = nu / (nu + square), square / (nu + square)
    swap = w > (a + 1) / (a + b + 2)
    a, b = torch.where(swap, b, a), torch.where(swap, a, b)
    w, complement = torch.where(swap, complement, w), torch.where(swap, w, complement)
    positive = w > 0  # at square = 0 the swapped w is 0, where the result is 0 and the logarithm is not
    w = torch.where(positive, w, torch.ones_like(w))
    log_front = (
        a * torch.log(w)
        + b * torch.log(torch.where(positive, complement, torch.ones_like(complement)))
        - (torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b))
    )
    safe = torch.where(positive, w, torch.full_like(w, 0.5))
    value = torch.exp(log_front) / a * _continued_fraction(a, b, safe)
    value = torch.where(positive, value, torch.zeros_like(value))
    return torch.where(swap, 1 - value, value)


def _continued_fraction(
    a: Float64[Tensor, "..."], b: Float64[Tensor, "..."], w: Float64[Tensor, "..."]
) -> Float64[Tensor, "..."]:
    """Modified Lentz evaluation of 1 / (1 + d1 / (1 + d2 / ...)), Abramowitz and Stegun 26.5.8."""
    c = torch.ones_like(w)
    d = 1 / _away_from_zero(1 - (a + b) * w / (a + 1))
    value = d
    # Each element stops by itself, so that its last bit does not depend on what else is in the tensor.
    done = torch.zeros_like(w, dtype=torch.bool)
    for m in range(1, _TERMS):
        for term in (
            m * (b - m) * w / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * w / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _away_from_zero(1 + term * d)
            c = _away_from_zero(1 + term / c)
            change = c * d
            value = torch.where(done, value, value * change)
        done = done | ((change - 1).abs() < 4e-16)
        if not torch.compiler.is_compiling() and done.all():
            break
    return value


def _away_from_zero(x: Float64[Tensor, "..."]) -> Float64[Tensor, "..."]:
    return torch.where(x.abs() < _TINY, torch.full_like(x, _TINY), x)


def _start(tail: Float64[Tensor, "..."], nu: Float64[Tensor, "..."]) -> Float64[Tensor, "..."]:
    """A starting point for -quantile: the Pareto tail far out where it is heavy, the normal's expansion elsewhere."""
    z = -torch.special.ndtri(tail)
    normal = z * (1 + (z * z + 1) / (4 * nu))
    # The tail behaves as C x^-nu / nu, C = nu^(nu/2) nu^(1/2) / B(nu/2, 1/2).
    log_c = nu / 2 * torch.log(nu) + torch.lgamma((nu + 1) / 2) - torch.lgamma(nu / 2) - 0.5 * math.log(math.pi)
    pareto = torch.exp((log_c - torch.log(nu) - torch.log(tail)) / nu)
    return torch.where(pareto * pareto > 4 * nu, pareto, normal)
