"""How unequally the assets share a portfolio's variance."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def risk_parity(
    weights: Float[Tensor, "*batch N"],
    covariance: Float[Tensor, "*#batch N N"],
    mask: Bool[Tensor, "*#batch N"] | None = None,
    *,
    shares: Float[Tensor, "*#batch N"] | None = None,
) -> Float[Tensor, "*batch"]:
    r"""Sum of squared gaps of the assets' shares of the variance, $w_i (\Sigma w)_i / w^T \Sigma w$, from those wanted.

    Args:
        weights: not all zero where unmasked.
        covariance: of returns; NaN at masked assets is fine.
        mask: True for assets of the universe.
        shares: wanted, adding up to 1; equal by default.

    References:
        Maillard, Roncalli and Teiletche (2010), The properties of equally weighted risk contribution portfolios,
        Journal of Portfolio Management 36.
    """
    there = torch.ones_like(weights, dtype=torch.bool) if mask is None else mask.expand(weights.shape)
    both = torch.logical_and(there.unsqueeze(-1), there.unsqueeze(-2))
    dtype = torch.promote_types(weights.dtype, torch.float32)
    w, sigma = torch.where(there, weights, 0.0).to(dtype), torch.where(both, covariance, 0.0).to(dtype)
    parts = w * (sigma * w.unsqueeze(-2)).sum(-1)
    equal = 1 / there.sum(-1, keepdim=True).clamp(min=1).to(dtype)
    gap = parts / parts.sum(-1, keepdim=True) - (equal if shares is None else shares)
    return (torch.where(there, gap, 0.0) ** 2).sum(-1)
