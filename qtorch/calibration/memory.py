"""The last scores of each series."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def pushed(
    memory: Float[Tensor, "W L H N"], new: Float[Tensor, "L H N"], mask: Bool[Tensor, "..."]
) -> Float[Tensor, "W L H N"]:
    """A memory, oldest first, with a score more at its end and one less at its start, where masked."""
    return torch.where(mask, torch.cat([memory[1:], new[None]]), memory)
