"""A causal masked transformer over an asset's own sessions."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from qtorch.nn import CausalBlock, causal_mask


class Transformer(nn.Module):
    """Encodes each session of a window from itself and the usable sessions before it, pooled over all assets.

    Masked positions influence nothing, whatever they hold (NaN too); their own output is 0. A window padded further
    on the left gives the same output, because positions enter by their distances alone.

    Args:
        in_features: inputs `F`.
        width: hidden width `D`.
        depth: blocks.
        heads: attention heads, which divide the width into even parts.
        expansion: feed-forward width over `D`.
        dropout: probability, in training.
        input_noise: standard deviation of Gaussian noise added to the inputs in training. Inputs that all assets of
            a date share tell the date, and a model without it learns what came next by heart.

    Raises:
        ValueError: the heads do not divide the width into even parts.
    """

    def __init__(
        self,
        in_features: int,
        width: int = 48,
        depth: int = 2,
        heads: int = 4,
        expansion: int = 2,
        dropout: float = 0.1,
        input_noise: float = 0.3,
    ) -> None:
        super().__init__()
        if width % (2 * heads):
            raise ValueError(f"width {width} must be a multiple of twice the heads, {heads}.")
        self.in_features, self.width, self.depth = in_features, width, depth
        self.heads, self.expansion, self.dropout, self.input_noise = heads, expansion, dropout, input_noise
        self.embed = nn.Linear(in_features, width)
        self.blocks = nn.ModuleList(CausalBlock(width, heads, expansion, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    @property
    def out_features(self) -> int:
        """The hidden width `D`."""
        return self.width

    def forward(self, inputs: Float[Tensor, "B C F"], mask: Bool[Tensor, "B C"]) -> Float[Tensor, "B C D"]:
        """Hidden states of every position, 0 where masked."""
        usable = mask.unsqueeze(-1)
        if self.training and self.input_noise > 0:
            inputs = inputs + self.input_noise * torch.randn_like(inputs)
        hidden = self.embed(torch.where(usable, inputs, 0.0))
        allowed = causal_mask(mask)
        for block in self.blocks:
            hidden = block(hidden, allowed)
        return torch.where(usable, self.norm(hidden), 0.0)
