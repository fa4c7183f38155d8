"""Gauss-Legendre quadrature of quantile functions, which heavy tails make singular at 0 and 1."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

Double = Float64[Tensor, "..."]


def legendre(count: int) -> tuple[Double, Double]:
    """Nodes and weights on (0, 1)."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return torch.from_numpy((nodes + 1) / 2), torch.from_numpy(weights / 2)


NODES, WEIGHTS = legendre(128)


def along(nodes: Double, like: Tensor, ndim: int | None = None) -> Double:
    """Nodes in front of the dimensions of a tensor, on its device."""
    return nodes.to(like.device).reshape(-1, *[1] * (like.ndim if ndim is None else ndim))


def lower_mean(function: Callable[[Double], Double], p: Double, ndim: int, power: int = 6) -> Double:
    """(1/p) int_0^p f(u) du with u = p v^power, which takes the singularity at 0 out of tails.

    With power 6 of tails of index above 1.2, for f the quantile function; with 24 of its square's above 2.2.

    Args:
        function: of left-tail masses `[nodes, ...]`.
        p: upper limit, broadcast against the rest.
        ndim: of the result, before broadcasting against `p`.
        power: of the substitution.
    """
    ndim = max(ndim, p.ndim)
    v = along(NODES, p, ndim)
    return (along(WEIGHTS, p, ndim) * power * v ** (power - 1) * function(p * v**power)).sum(0)


def entropy(log_prob: Callable[[Double], Double], icdf: Callable[[Double], Double], like: Tensor) -> Double:
    """-int_0^1 log f(icdf(u)) du, of laws of the shape and device of a tensor, to 1e-8."""
    half = torch.full((), 0.5, dtype=torch.float64, device=like.device)
    left = lower_mean(lambda mass: log_prob(icdf(mass.clamp(min=1e-16))), half, like.ndim)
    right = lower_mean(lambda mass: log_prob(icdf(1 - mass.clamp(min=1e-16))), half, like.ndim)
    return -0.5 * (left + right)


def between(
    function: Callable[[Double], Double], low: Double, high: Double, ndim: int, split: float | Double = 0.5
) -> Double:
    """int_low^(1 - high) f(u) du, where f may be singular at 0 and, logarithmically at most, at 1.

    Args:
        function: of left-tail masses `[nodes, ...]`.
        low: mass left out on the left.
        high: mass left out on the right.
        ndim: of the result, before broadcasting against the masses.
        split: mass where f need not be smooth.
    """
    left, right = split - low, (1 - split) - high
    above = (1 - high).clamp(max=1 - 2**-53)
    return left * lower_mean(lambda u: function(low + u), left, ndim, 24) + right * lower_mean(
        lambda u: function(above - u), right, ndim, 24
    )
