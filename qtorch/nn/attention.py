"""Self-attention that sees only what a mask allows, and the transformer block around it."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from qtorch.errors import ArgumentError
from qtorch.nn.attend import attend
from qtorch.nn.dropout import Dropout
from qtorch.nn.rotary import Angles, rotate


def usable_keys(mask: Bool[Tensor, "B K"]) -> tuple[Bool[Tensor, "B 1 1 K"], Bool[Tensor, "B 1 1"]]:
    """Which keys every query may attend to, and whether there are any.

    Where no key is usable all are allowed, since a softmax over nothing is no number; what comes of it is to be
    replaced by zeros, as `Block` does with the second tensor.
    """
    some = mask.any(1, keepdim=True)
    return torch.logical_or(mask, ~some)[:, None, None, :], some.unsqueeze(-1)


class Block(nn.Module):
    """A pre-norm transformer block: self-attention, then a feed-forward layer.

    Args:
        width: hidden width `D`.
        heads: attention heads; they divide the width.
        expansion: feed-forward width over `D`.
        dropout: probability, in training, inside the feed-forward layer and where the next argument says.
        drop_weights: dropout of the attention weights, as Vaswani et al.'s code has it. Otherwise what attention and
            feed-forward layer add is dropped out, which on CPUs leaves attention its fused kernel, about three times
            faster in training.

    Attributes:
        whole: whether vmap may run several nets together, False at first; see `attend`.

    References:
        Vaswani et al. (2017), Attention Is All You Need; Xiong et al. (2020) for the place of the norms.
    """

    def __init__(self, width: int, heads: int, expansion: int, dropout: float, drop_weights: bool = False) -> None:
        super().__init__()
        if width % heads:
            raise ArgumentError(f"width {width} must be a multiple of the heads, {heads}.")
        self.heads, self.weight_dropout, self.whole = heads, dropout if drop_weights else 0.0, False
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.feedforward = feedforward(width, expansion, dropout)
        self.drop = Dropout(0.0 if drop_weights else dropout)

    def forward(
        self,
        hidden: Float[Tensor, "B C D"],
        allowed: Bool[Tensor, "*any K"] | None = None,
        some: Bool[Tensor, "B 1 1"] | None = None,
        angles: Angles | None = None,
        causal: bool = False,
    ) -> Float[Tensor, "B C D"]:
        """Hidden states through the block.

        Args:
            hidden: the states.
            allowed: which position may attend to which, broadcast to `[B, heads, C, C]`; at least one for each.
            some: where False, attention adds nothing.
            angles: of rotary positions.
            causal: each position may attend to itself and those before it; without `allowed`.
        """
        q, k, v = self._project(hidden)
        if angles is not None:
            q, k = rotate(q, angles), rotate(k, angles)
        weight_dropout = self.weight_dropout if self.training else 0.0
        mixed = attend(q, k, v, allowed, weight_dropout, causal, self.whole)
        return self._add(hidden, mixed, some)

    def extend(
        self,
        hidden: Float[Tensor, "B k D"],
        keys: Float[Tensor, "B heads M width"],
        values: Float[Tensor, "B heads M width"],
        angles: Angles,
        allowed: Bool[Tensor, "B 1 k K"],
    ) -> tuple[Float[Tensor, "B k D"], Float[Tensor, "B heads K width"], Float[Tensor, "B heads K width"]]:
        """Hidden states of new positions, and the keys and values of theirs and all before them.

        Args:
            hidden: states of the new positions.
            keys: of the `M` positions before them, not rotated.
            values: of the same.
            angles: of all `K = M + k` positions.
            allowed: which new position may attend to which of all.
        """
        q, k, v = self._project(hidden)
        keys, values = torch.cat([keys, k], dim=-2), torch.cat([values, v], dim=-2)
        cos, sin = angles
        new = q.shape[-2]
        q = rotate(q, (cos[..., -new:, :], sin[..., -new:, :]))
        mixed = attend(q, rotate(keys, angles), values, allowed)
        return self._add(hidden, mixed, None), keys, values

    def _project(self, hidden: Tensor) -> list[Tensor]:
        """Queries, keys and values, `[B, heads, C, width]` each."""
        qkv = self.qkv(self.attention_norm(hidden)).chunk(3, dim=-1)  # in backward one concatenation
        return [part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in qkv]

    def _add(self, hidden: Tensor, mixed: Tensor, some: Tensor | None) -> Tensor:
        mixed = mixed.transpose(1, 2).flatten(2)
        if some is not None:
            mixed = torch.where(some, mixed, 0.0)
        hidden = self.drop(self.out(mixed), onto=hidden)
        return self.drop(self.feedforward(hidden), onto=hidden)


def feedforward(width: int, expansion: int, dropout: float) -> nn.Sequential:
    """Norm, a layer to `expansion` times the width, GELU, dropout, and a layer back."""
    return nn.Sequential(
        nn.LayerNorm(width),
        nn.Linear(width, expansion * width),
        nn.GELU(),
        Dropout(dropout),
        nn.Linear(expansion * width, width),
    )
