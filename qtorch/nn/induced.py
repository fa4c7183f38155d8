"""Attention over a set by way of a few inducing points, at a cost linear in the set's size."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from qtorch.nn.attention import feedforward
from qtorch.nn.dropout import Dropout


class CrossBlock(nn.Module):
    """A pre-norm block in which one set attends to another; arguments as of `Block`."""

    def __init__(self, width: int, heads: int, expansion: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query_norm, self.key_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.feedforward = feedforward(width, expansion, dropout)
        self.drop = Dropout(dropout)

    def forward(
        self,
        hidden: Float[Tensor, "B Q D"],
        others: Float[Tensor, "B K D"],
        allowed: Bool[Tensor, "B 1 1 K"] | None = None,
        some: Bool[Tensor, "B 1 1"] | None = None,
    ) -> Float[Tensor, "B Q D"]:
        """States that have attended to others; masks as of `Block`."""
        q = self.query(self.query_norm(hidden)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = self.key_value(self.key_norm(others)).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
        mixed = mixed.transpose(1, 2).flatten(2)
        if some is not None:
            mixed = torch.where(some, mixed, 0.0)
        hidden = self.drop(self.out(mixed), onto=hidden)
        return self.drop(self.feedforward(hidden), onto=hidden)


class InducedBlock(nn.Module):
    """Self-attention of a set in two steps: learned points attend to the set, and the set to the points.

    `points' = CrossBlock(points, set)`, then `CrossBlock(set, points')`: a cost of `N m` for a set of N and m points,
    where each of N attending to all costs `N^2`.

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
        self.gather = CrossBlock(width, heads, expansion, dropout)
        self.spread = CrossBlock(width, heads, expansion, dropout)

    def forward(
        self, hidden: Float[Tensor, "B N D"], allowed: Bool[Tensor, "B 1 1 N"], some: Bool[Tensor, "B 1 1"]
    ) -> Float[Tensor, "B N D"]:
        """States of the set; masks as of `Block`, so that a masked member asks and is not seen."""
        points = self.points.to(hidden.dtype).expand(hidden.shape[0], -1, -1)
        return self.spread(hidden, self.gather(points, hidden, allowed, some))
