"""The last scores of each series."""

import torch
from torch import Tensor


def pushed(memory: Tensor, new: Tensor, mask: Tensor) -> Tensor:
    """A memory `[W, L, H, N]`, oldest first, with a score more at its end and one less at its start, where masked."""
    return torch.where(mask, torch.cat([memory[1:], new[None]]), memory)
