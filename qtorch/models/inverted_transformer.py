"""iTransformer with masks: whole series as tokens."""

from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from qtorch.errors import ArgumentError
from qtorch.nn import Block, Dropout, instance_norm, last_steps, noisy, usable_keys


class InvertedTransformer(nn.Module):
    """Encodes a window's last row by attention between series, each of which is one token.

    A series' steps, standardised by those that are usable, are mapped to its token by one linear layer; tokens attend
    to each other; there are no positions, so permuting the series permutes their tokens. In panel layout the series
    are the assets, each with all its inputs, and each asset has a hidden state; in asset layout they are the inputs of
    one asset, and the hidden state is a linear map of all their tokens.

    A masked step is 0, beside a second series that is 1 there and 0 where nothing is masked; a series without a usable
    step is seen by no other, and its own hidden state is 0. So masked values influence nothing. A window shorter
    than `context` is taken as padded on its left.

    Args:
        in_features: inputs `F`.
        context: steps that are seen; of a longer window the last so many.
        layout: ``"panel"`` or ``"asset"``.
        width: hidden width `D`.
        depth: blocks.
        heads: attention heads, which divide the width.
        expansion: feed-forward width over `D`.
        dropout: probability, in training, of what attention and feed-forward layers add, and inside the latter.
        input_noise: standard deviation of Gaussian noise added to the inputs in training, as of `TemporalTransformer`.
        standardise: whether series are standardised by their own window; the means and log standard deviations are
            then inputs of the token. The paper's forecasts get them back; a hidden state has to know them.

    Raises:
        ValueError: the heads do not divide the width, or the layout is not known.

    References:
        Liu et al. (2024), iTransformer: Inverted Transformers Are Effective for Time Series Forecasting, section 3.1.
    """

    causal: ClassVar[bool] = False

    def __init__(
        self,
        in_features: int,
        context: int = 64,
        layout: str = "panel",
        width: int = 48,
        depth: int = 2,
        heads: int = 4,
        expansion: int = 2,
        dropout: float = 0.1,
        input_noise: float = 0.3,
        standardise: bool = True,
    ) -> None:
        super().__init__()
        if layout not in ("panel", "asset"):
            raise ArgumentError(f"layout must be 'panel' or 'asset', not {layout!r}.")
        self.in_features, self.context, self.layout, self.width, self.depth = in_features, context, layout, width, depth
        self.heads, self.expansion, self.dropout, self.input_noise = heads, expansion, dropout, input_noise
        self.standardise = standardise
        channels = in_features if layout == "panel" else 1
        self.embed = nn.Linear(channels * context, width)
        self.embed_missing = nn.Linear(context, width, bias=False)
        self.embed_level = nn.Linear(2 * channels, width, bias=False) if standardise else None
        self.blocks = nn.ModuleList(Block(width, heads, expansion, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.drop = Dropout(dropout)
        self.join = None if layout == "panel" else nn.Linear(in_features * width, width)

    @property
    def out_features(self) -> int:
        """The hidden width `D`."""
        return self.width

    def forward(self, inputs: Float[Tensor, "B C *N F"], mask: Bool[Tensor, "B C *N"]) -> Float[Tensor, "B 1 *N D"]:
        """Hidden states of the window's last row; 0 where all steps of the window are masked."""
        inputs, mask = last_steps(inputs, self.context), last_steps(mask, self.context)
        if self.join is None:
            tokens, seen = self._encode(inputs, mask)
            return torch.where(seen.unsqueeze(-1), tokens, 0.0).unsqueeze(1)
        tokens, seen = self._encode(inputs.unsqueeze(-1), mask.unsqueeze(-1).expand(inputs.shape))
        return torch.where(seen[:, :1], self.join(tokens.flatten(1)), 0.0).unsqueeze(1)

    def _encode(
        self, inputs: Float[Tensor, "B C V E"], mask: Bool[Tensor, "B C V"]
    ) -> tuple[Float[Tensor, "B V D"], Bool[Tensor, "B V"]]:
        """Tokens of `V` series of `E` channels, and which have a usable step."""
        usable = mask.unsqueeze(-1)
        values = noisy(torch.where(usable, inputs, 0.0), self.input_noise, self.training)
        values = torch.where(usable, values, 0.0)
        level = None
        if self.embed_level is not None:
            values, mean, deviation = instance_norm(values, usable)
            level = self.embed_level(torch.cat([mean, deviation.log()], dim=-1))
        missing = self.embed_missing((~mask).transpose(1, 2).to(values.dtype))
        tokens = self.embed(values.permute(0, 2, 1, 3).flatten(2)) + missing
        if level is not None:
            tokens = tokens + level
        seen = mask.any(1)
        allowed, _ = usable_keys(seen)
        tokens = self.drop(tokens)
        for block in self.blocks:
            tokens = block(tokens, allowed)
        return self.norm(tokens), seen
