"""Scale matrices Sigma = F F' + diag(D) of a few factors and a diagonal, without the N x N matrix.

With M = I + F' D^-1 F, R x R, the determinant is |Sigma| = |M| |D| and Sigma^-1 = D^-1 - D^-1 F M^-1 F' D^-1. F is
`[..., N, R]`, other arguments are `[..., N]` or `[..., R]`; batch dimensions broadcast, and factors that a batch shares
are never copied.
"""

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

Double = Float64[Tensor, "..."]


def to_factors(x: Double, F: Double) -> Double:
    """F' x."""
    return torch.einsum("...n,...nr->...r", x, F)


def from_factors(f: Double, F: Double) -> Double:
    """F f."""
    return torch.einsum("...r,...nr->...n", f, F)


def product(x: Double, F: Double, D: Double) -> Double:
    """Sigma x."""
    return from_factors(to_factors(x, F), F) + D * x


def quadratic(x: Double, F: Double, D: Double) -> Double:
    """The form x' Sigma x."""
    exposure = to_factors(x, F)
    return (exposure * exposure).sum(-1) + (x * x * D).sum(-1)


def diagonal(F: Double, D: Double) -> Double:
    """The diagonal of Sigma."""
    return (F * F).sum(-1) + D


def inner_root(weight: Double, F: Double) -> Double:
    """The Cholesky root of M, with `weight` the inverse of D, or 0 for a coordinate that is not there."""
    R = F.shape[-1]
    if F.ndim == 2 and weight.ndim > 1:
        # One product of all weights with the pairs of shared factors, where weighted factors would be [..., N, R].
        pairs = (F.unsqueeze(-1) * F.unsqueeze(-2)).reshape(F.shape[0], R * R)
        gram = (weight @ pairs).reshape(*weight.shape[:-1], R, R)
    else:
        gram = (F * weight.unsqueeze(-1)).mT @ F
    return torch.linalg.cholesky(gram + torch.eye(R, dtype=F.dtype, device=F.device))


def log_det(root: Double) -> Double:
    """Log determinant of M, from its root."""
    return 2 * torch.log(torch.diagonal(root, dim1=-2, dim2=-1)).sum(-1)


def regress(r: Double, weight: Double, F: Double, root: Double) -> tuple[Double, Double]:
    """Q = r' Sigma^-1 r and the f = M^-1 F' D^-1 r at which it is least as (r - F f)' D^-1 (r - F f) + f' f.

    As a sum of squares it is not negative, and to first order it is free of the error of f: 1e-12 relative where the
    factors are a million times the coordinates' own scales, and solving with the N x N matrix keeps five digits.
    """
    f = torch.einsum("...r,...rs->...s", to_factors(weight * r, F), torch.cholesky_inverse(root))
    own = r - from_factors(f, F)
    return (weight * own * own).sum(-1) + (f * f).sum(-1), f


def regress_some(r: Double, there: Bool[Tensor, "..."], F: Double, D: Double) -> tuple[Double, Double, Double]:
    """Q, f and the root of M of the coordinates that are there, whatever r is at the others.

    The marginal law of some coordinates has their rows of F and D alone, and a row of weight 0 adds nothing to M.
    """
    r = torch.where(there, r, 0.0)
    weight = torch.where(there, 1 / D, 0.0)
    root = inner_root(weight, F)
    return *regress(r, weight, F, root), root


def log_det_some(root: Double, there: Bool[Tensor, "..."], D: Double) -> Double:
    """Log determinant of the rows and columns of Sigma that are there, from the root of their M."""
    return log_det(root) + torch.where(there, torch.log(D), 0.0).sum(-1)


def remaining(root: Double, F: Double) -> Double:
    """The factors F M^(-1/2) of coordinates given others, from the root of the others' M."""
    return torch.linalg.solve_triangular(root, F.mT, upper=False).mT
