"""Rotary positions: attention sees the distances of sessions, in whatever unit they are counted."""

import torch
from jaxtyping import Float
from torch import Tensor

Angles = tuple[Tensor, Tensor]


def rotary_angles(position: Float[Tensor, "*batch C"], width: int) -> Angles:
    """Cosines and signed sines of the angles by which channels turn at a position; both `[*batch, 1, C, width]`.

    Channels i and i + width/2 are a pair, which turns by `position * 1000^(-2 i / width)` radians: from one radian a
    unit, which tells neighbours apart, to about one in 1,000 units.

    Args:
        position: in sessions or days, near 0, since its rounding error becomes the angle's.
        width: channels of a head, an even number.
    """
    half = width // 2
    frequency = 1000.0 ** (-torch.arange(half, device=position.device, dtype=torch.float32) / half)
    angle = (position.float().unsqueeze(-1) * frequency).unsqueeze(-3)
    cos, sin = angle.cos(), angle.sin()
    # In one tensor, which a compiler keeps; of `[cos, cos]` it would take the cosine anew in each head of each block.
    both = torch.cat([cos, cos, -sin, sin], dim=-1)
    return both[..., :width], both[..., width:]


def rotate(x: Float[Tensor, "*batch heads C width"], angles: Angles) -> Float[Tensor, "*batch heads C width"]:
    """Turns pairs of channels by the angles of their positions, so that products depend on distances alone.

    References:
        Su et al. (2021), RoFormer: Enhanced Transformer with Rotary Position Embedding, equation 34.
    """
    cos, sin = angles
    first, second = x.chunk(2, dim=-1)
    swapped = torch.cat([second, first], dim=-1)  # as `roll`, whose index by remainder is compiled to no vector code
    return torch.addcmul(x * cos.to(x.dtype), swapped, sin.to(x.dtype))
