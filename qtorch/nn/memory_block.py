"""An attention block whose keys and values are made beforehand, once for all that ask."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from qtorch.errors import ArgumentError
from qtorch.nn.attend import attend
from qtorch.nn.attention import feedforward
from qtorch.nn.dropout import Dropout

Memory = tuple[Float[Tensor, "B heads K width"], Float[Tensor, "B heads K width"]]


class MemoryBlock(nn.Module):
    """A pre-norm block in which states ask a memory of keys and values that may grow between two questions.

    Args:
        width: hidden width `D`.
        heads: attention heads; they divide the width.
        expansion: feed-forward width over `D`.
        dropout: probability, in training, as of `Block`.

    Raises:
        ValueError: the heads do not divide the width.

    Example:
        >>> block = MemoryBlock(8, 2, 2)
        >>> block(torch.randn(3, 5, 8), block.memory(torch.randn(3, 20, 8))).shape
        torch.Size([3, 5, 8])
    """

    def __init__(self, width: int, heads: int, expansion: int, dropout: float = 0.0) -> None:
        super().__init__()
        if width % heads:
            raise ArgumentError(f"width {width} must be a multiple of the heads, {heads}.")
        self.width, self.heads, self.expansion, self.dropout = width, heads, expansion, dropout
        self.whole = False  # as of `Block`
        self.query_norm, self.key_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.feedforward = feedforward(width, expansion, dropout)
        self.drop = Dropout(dropout)

    def memory(self, told: Float[Tensor, "B K D"]) -> Memory:
        """Keys and values of what was told."""
        k, v = self.key_value(self.key_norm(told)).chunk(2, dim=-1)
        return self._split(k), self._split(v)

    def forward(
        self,
        hidden: Float[Tensor, "B Q D"],
        memory: Memory,
        allowed: Bool[Tensor, "B 1 #Q K"] | None = None,
        some: Bool[Tensor, "B #Q 1"] | None = None,
    ) -> Float[Tensor, "B Q D"]:
        """States that have asked.

        Args:
            hidden: the states.
            memory: as `memory` gives it.
            allowed: which state may see what; at least one thing each; all may see all by default.
            some: where False, attention adds nothing; it adds everywhere by default.
        """
        q = self._split(self.query(self.query_norm(hidden)))
        keys, values = memory
        mixed = attend(q, keys, values, allowed, together=self.whole)
        mixed = mixed.transpose(1, 2).flatten(2)
        if some is not None:
            mixed = torch.where(some, mixed, 0.0)
        hidden = self.drop(self.out(mixed), onto=hidden)
        return self.drop(self.feedforward(hidden), onto=hidden)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
