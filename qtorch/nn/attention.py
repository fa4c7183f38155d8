"""Causal self-attention over an asset's sessions that sees only what the mask allows."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


def causal_mask(mask: Bool[Tensor, "B C"]) -> Bool[Tensor, "B 1 C C"]:
    """Which position (third axis) may attend to which (last axis): the usable ones up to itself, and itself.

    A masked position attends to itself alone, so that no row of the softmax is empty.
    """
    C = mask.shape[-1]
    index = torch.arange(C, device=mask.device)
    earlier = index[:, None] >= index[None, :]
    itself = index[:, None] == index[None, :]
    return torch.logical_or(torch.logical_and(earlier, mask[:, None, None, :]), itself)


def rotary(x: Float[Tensor, "B heads C width"]) -> Float[Tensor, "B heads C width"]:
    """Rotates pairs of channels by angles that grow with position, so that products depend on distance alone.

    References:
        Su et al. (2021), RoFormer: Enhanced Transformer with Rotary Position Embedding, equation 15.
    """
    half = x.shape[-1] // 2
    frequency = 1000.0 ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angle = torch.arange(x.shape[-2], device=x.device, dtype=torch.float32)[:, None] * frequency
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


class CausalBlock(nn.Module):
    """A pre-norm transformer block: masked causal attention with rotary positions, then a feed-forward layer.

    Args:
        width: hidden width `D`.
        heads: attention heads; they divide the width into even parts.
        expansion: feed-forward width over `D`.
        dropout: probability, in training.

    References:
        Vaswani et al. (2017), Attention Is All You Need; Xiong et al. (2020) for the place of the norms.
    """

    def __init__(self, width: int, heads: int, expansion: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.feedforward = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, expansion * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(expansion * width, width),
        )

    def forward(self, hidden: Float[Tensor, "B C D"], allowed: Bool[Tensor, "B 1 C C"]) -> Float[Tensor, "B C D"]:
        """Hidden states through the block; `allowed` as of `causal_mask`."""
        B, C, D = hidden.shape
        qkv = self.qkv(self.attention_norm(hidden)).view(B, C, 3, self.heads, D // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = nn.functional.scaled_dot_product_attention(
            rotary(q), rotary(k), v, attn_mask=allowed, dropout_p=self.dropout if self.training else 0.0
        )
        hidden = hidden + self.out(mixed.transpose(1, 2).reshape(B, C, D))
        return hidden + self.feedforward(hidden)
