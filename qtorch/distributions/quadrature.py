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


def lower_mean(function: Callable[[Double], Double], p: Double, ndim: int) -> Double:
    """(1/p) int_0^p f(u) du with u = p v^6, which takes the singularity at 0 out of tails of index above 1.2.

    Args:
        function: of left-tail masses `[nodes, ...]`.
        p: upper limit, broadcast against the rest.
        ndim: of the result, before broadcasting against `p`.
    """
    ndim = max(ndim, p.ndim)
    v = along(NODES, p, ndim)
    return (along(WEIGHTS, p, ndim) * 6 * v**5 * function(p * v**6)).sum(0)
