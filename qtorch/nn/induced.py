"""Attention over a set by way of a few inducing points, at a cost linear in the set's size."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from qtorch.nn.memory_block import MemoryBlock


class InducedBlock(nn.Module):
    """Self-attention of a set in two steps: learned points attend to the set, and the set to the points.

    A `MemoryBlock` in which the points ask the set, then one in which the set asks the points: a cost of `N m` for a
    set of N and m points, where each of N attending to all costs `N^2`.

    Args:
        width: hidden width `D`.
        heads: attention heads; they divide the width.
        expansion: feed-forward width over `D`.
        dropout: probability, in training, as of `Block`.
        inducing: points `m`.

    References:
        Lee et al. (2019), Set Transformer, equations 9 and 10 (the block ISAB).
    """

    def __init__(self, width: int, heads: int, expansion: int, dropout: float, inducing: int) -> None:
        super().__init__()
        self.points = nn.Parameter(torch.randn(inducing, width))
        self.gather = MemoryBlock(width, heads, expansion, dropout)
        self.spread = MemoryBlock(width, heads, expansion, dropout)

    def forward(
        self, hidden: Float[Tensor, "B N D"], allowed: Bool[Tensor, "B 1 1 N"], some: Bool[Tensor, "B 1 1"]
    ) -> Float[Tensor, "B N D"]:
        """States of the set; masks as of `Block`, so that a masked member asks and is not seen."""
        points = self.points.to(hidden.dtype).expand(hidden.shape[0], -1, -1)
        points = self.gather(points, self.gather.memory(hidden), allowed, some)
        return self.spread(hidden, self.spread.memory(points))
