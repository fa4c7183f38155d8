"""PatchTST with masks: patches of a window as tokens, each input a series of its own."""

from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from qtorch.errors import ArgumentError
from qtorch.nn import Block, Dropout, instance_norm, last_steps, noisy, usable_keys


class PatchTransformer(nn.Module):
    """Encodes a window's last session from overlapping patches of each input, by one transformer for all inputs.

    Each input is standardised by its own usable steps, continued by its last value for a stride, cut into patches,
    and encoded apart from the others with the same weights; patches of all are mapped together to the hidden state, to
    which a linear map of the means and log standard deviations taken out at the start is added.

    A masked step is 0 in its patch and 1 in a second series beside it, which is 0 where nothing is masked; a patch
    without a usable step is seen by no other and adds nothing. So masked values influence nothing. Patches lie at fixed
    distances from the window's end, and a window shorter than `context` is taken as padded on its left.

    What differs from the paper: the flattened patches are mapped to a hidden state for a head, not to returns, so
    inputs meet there; norms are layer norms before each layer, since batch norms, after each in the paper, make a
    window's loss depend on the others of its batch.

    Args:
        in_features: inputs `F`.
        context: steps that are seen; of a longer window the last so many.
        width: hidden width of the patches.
        depth: blocks.
        heads: attention heads, which divide the width.
        expansion: feed-forward width over the patches'.
        dropout: probability, in training, of what attention and feed-forward layers add, and inside the latter.
        input_noise: standard deviation of Gaussian noise added to the inputs in training, as of `TemporalTransformer`.
        patch: steps of a patch.
        stride: steps from one patch to the next.
        standardise: whether inputs are standardised by their own window.
        out_features: width of the hidden state `D`; None is the patches'.

    Raises:
        ValueError: the heads do not divide the width, or patches do not fit into the context.

    References:
        Nie et al. (2023), A Time Series is Worth 64 Words: Long-term Forecasting with Transformers, section 3.1.
    """

    layout: ClassVar[str] = "asset"
    causal: ClassVar[bool] = False

    def __init__(
        self,
        in_features: int,
        context: int = 64,
        width: int = 48,
        depth: int = 3,
        heads: int = 4,
        expansion: int = 2,
        dropout: float = 0.2,
        input_noise: float = 0.3,
        patch: int = 16,
        stride: int = 8,
        standardise: bool = True,
        out_features: int | None = None,
    ) -> None:
        super().__init__()
        if not 1 <= stride <= patch <= context:
            raise ArgumentError(f"stride, patch and context must ascend from 1, not {stride}, {patch}, {context}.")
        self.in_features, self.context, self.width, self.depth = in_features, context, width, depth
        self.heads, self.expansion, self.dropout, self.input_noise = heads, expansion, dropout, input_noise
        self.patch, self.stride, self.standardise = patch, stride, standardise
        self.out_features = width if out_features is None else out_features
        patches = (context - patch) // stride + 2
        self.embed = nn.Linear(patch, width)
        self.embed_missing = nn.Linear(patch, width, bias=False)
        self.place = nn.Parameter(0.02 * torch.randn(patches, width))
        self.blocks = nn.ModuleList(Block(width, heads, expansion, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.drop = Dropout(dropout)
        self.flatten = nn.Linear(in_features * patches * width, self.out_features)
        self.level = nn.Linear(2 * in_features, self.out_features, bias=False) if standardise else None

    def forward(self, inputs: Float[Tensor, "B C F"], mask: Bool[Tensor, "B C"]) -> Float[Tensor, "B 1 D"]:
        """The hidden state of the window's last position; 0 where the whole window is masked."""
        inputs, mask = last_steps(inputs, self.context), last_steps(mask, self.context)
        values = noisy(torch.where(mask.unsqueeze(-1), inputs, 0.0), self.input_noise, self.training)
        usable = mask.unsqueeze(-1)
        values = torch.where(usable, values, 0.0)
        level = None
        if self.level is not None:
            values, mean, deviation = instance_norm(values, usable)
            level = self.level(torch.cat([mean, deviation.log()], dim=-1))
        B, F = values.shape[0], self.in_features
        series = self._patches(values.transpose(1, 2))  # [B, F, patches, patch]
        usable = self._patches(mask)  # [B, patches, patch]
        missing = self.embed_missing((~usable).to(series.dtype))
        tokens = (self.embed(series) + (missing + self.place).unsqueeze(1)).flatten(0, 1)
        seen = usable.any(-1)
        allowed, _ = usable_keys(seen)
        allowed = allowed.repeat_interleave(F, dim=0)
        tokens = self.drop(tokens)
        for block in self.blocks:
            tokens = block(tokens, allowed)
        tokens = torch.where(seen[:, None, :, None], self.norm(tokens).unflatten(0, (B, F)), 0.0)
        hidden = self.flatten(tokens.flatten(1))
        if level is not None:
            hidden = hidden + level
        return torch.where(mask.any(1, keepdim=True), hidden, 0.0).unsqueeze(1)

    def _patches(self, series: Tensor) -> Tensor:
        """Overlapping patches of series `[..., C]`, continued by their last value; `[..., patches, patch]`."""
        last = series[..., -1:].expand(*series.shape[:-1], self.stride)
        return torch.cat([series, last], dim=-1).unfold(-1, self.patch, self.stride)
