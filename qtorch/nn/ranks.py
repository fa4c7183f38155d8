"""Ranks of assets by a fixed function of their states, which do not depend on how the assets are numbered."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor


def fixed_score(hidden: Float[Tensor, "*batch N D"], which: int) -> Float[Tensor, "*batch N"]:
    """A number for each asset from its state alone: sum_d sin(w_d h_d + p_d), of the `which`-th frequencies and phases.

    A rank has no gradient, so there is nothing to learn in it. Waves, and not a straight projection, because several of
    these would order states of one feature in one way. Frequencies are between 1 and 3, so that near states mostly have
    near scores. In float32 at least, and by sums over an asset's own numbers, so that permuting assets permutes the
    scores to the last digit.

    Args:
        hidden: finite states of the assets.
        which: 0 or more, each another function.
    """
    hidden = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
    number = torch.arange(1, hidden.shape[-1] + 1, device=hidden.device, dtype=hidden.dtype)
    # Multiples of irrational numbers, modulo 1, are spread evenly and repeat nowhere.
    frequency = 1 + 2 * torch.frac(number * 0.6180339887 + which * 0.4142135624)
    phase = torch.frac(number * 0.7548776662 + which * 0.5698402910)
    return torch.sin(hidden * frequency + phase).sum(-1)


def order_of(score: Float[Tensor, "*batch N"], mask: Bool[Tensor, "*batch N"]) -> Int64[Tensor, "*batch N"]:
    """Which asset comes i-th: by rising score, those that are not there last; ties by number."""
    return torch.argsort(torch.where(mask, score, torch.inf), dim=-1, stable=True)


def lower_half(score: Float[Tensor, "*batch N"], mask: Bool[Tensor, "*batch N"]) -> Bool[Tensor, "*batch N"]:
    """Those of the assets that are there whose score is in the lower half, which of an odd number is the larger one."""
    rank = torch.argsort(order_of(score, mask), dim=-1)
    return torch.logical_and(mask, 2 * rank < mask.sum(-1, keepdim=True))
