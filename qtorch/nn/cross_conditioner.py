"""Parameters for some assets of a cross-section from the states and values of others."""

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from qtorch.errors import ArgumentError
from qtorch.nn.memory_block import Memory, MemoryBlock
from qtorch.nn.squash import squash

_FAR = 5.0  # values beyond it are told apart by their squash alone


class CrossConditioner(nn.Module):
    """Assets ask, by their states, a memory of what other assets tell, their states and values.

    What an asset tells does not depend on who else is there, and what one asks doesn't on who else asks: so a memory
    may be filled one asset after another. A value enters as asinh(x), and as its normal distribution function, which
    tells values near zero apart. A fresh network gives zeros.

    Args:
        in_features: hidden width of the assets' states.
        width: of the network `D`.
        heads: attention heads; they divide the width.
        depth: blocks, in each of which an asset asks once.
        parameters: P of each asset.

    Raises:
        ValueError: there is no block, or the heads do not divide the width.
    """

    def __init__(self, in_features: int, width: int, heads: int, depth: int, parameters: int) -> None:
        super().__init__()
        if depth < 1:
            raise ArgumentError(f"depth={depth}: give at least 1 block.")
        self.in_features, self.width, self.heads, self.depth = in_features, width, heads, depth
        self.ask = nn.Linear(in_features, width)
        self.tell = nn.Linear(in_features, width)
        self.value = nn.Linear(2, width)
        self.told = nn.Linear(width, width)
        self.blocks = nn.ModuleList(MemoryBlock(width, heads, 2) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, parameters)
        nn.init.normal_(self.value.weight)  # of order 1, so that the bends of the hidden layer lie among the values
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def contexts(
        self, hidden: Float[Tensor, "*batch N D"]
    ) -> tuple[Float[Tensor, "*batch N W"], Float[Tensor, "*batch N W"]]:
        """What each asset asks, and its state's part of what it tells."""
        return self.ask(hidden), self.tell(hidden)

    def memories(self, tell: Float[Tensor, "B K W"], values: Float[Tensor, "B K"]) -> list[Memory]:
        """The memory of each block."""
        x = values.to(self.value.weight.dtype)
        near = torch.special.ndtr(x.clamp(-_FAR, _FAR)) - 0.5
        told = self.told(torch.nn.functional.gelu(tell + self.value(torch.stack((squash(x), 3 * near), dim=-1))))
        return [cast(MemoryBlock, block).memory(told) for block in self.blocks]

    def forward(
        self, ask: Float[Tensor, "B Q W"], memories: Sequence[Memory], seen: Bool[Tensor, "B #Q K"]
    ) -> Float[Tensor, "P B Q"]:
        """Parameters of those that ask.

        Args:
            ask: as `contexts` gives it.
            memories: as `memories` gives them.
            seen: what each of them may see; one that may see nothing answers from its own state.
        """
        some = seen.any(-1, keepdim=True)
        allowed = torch.logical_or(seen, ~some).unsqueeze(1)  # a softmax over nothing is no number
        for block, memory in zip(self.blocks, memories, strict=True):
            ask = block(ask, memory, allowed, some)
        result = self.out(self.norm(ask)).movedim(-1, 0).contiguous()
        return result.float() if result.dtype in (torch.bfloat16, torch.float16) else result


def rows(x: Shaped[Tensor, "..."], shape: torch.Size, ndim: int) -> Shaped[Tensor, "..."]:
    """A tensor of `ndim` dimensions after the batch's, expanded to a batch shape, whose dimensions become one."""
    own = x.shape[x.ndim - ndim :]
    return x.expand(*shape, *own).reshape(-1, *own)
