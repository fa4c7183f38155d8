"""A transformer over the assets of a panel and their histories by turns."""

from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from qtorch.errors import ArgumentError
from qtorch.nn import Block, InducedBlock, days_since_start, last_usable, noisy, rotary_angles, usable_keys


class PanelTransformer(nn.Module):
    """Encodes each asset at each row of a window from its own sessions and those of all assets up to that row.

    Blocks over time, in which an asset attends to its own sessions up to the row, alternate with blocks over assets,
    in which it attends to all that are usable on the row. Permuting the assets permutes the output, and any number of
    assets will do.

    Masked values influence nothing, whatever they hold. At a row on which an asset is masked - its market is closed -
    it has its last session's inputs, and asks without being seen: it attends to its sessions before and to the assets
    of the row, and nothing attends to it. So the forecast of a closed asset knows what the open ones did. Before its
    first usable session of the window an asset's output is 0.

    Args:
        in_features: inputs `F`.
        width: hidden width `D`.
        depth: pairs of a block over time and one over assets.
        heads: attention heads, which divide the width into even parts.
        expansion: feed-forward width over `D`.
        dropout: probability, in training, of what attention and feed-forward layers add, and inside the latter.
        input_noise: standard deviation of Gaussian noise added to the inputs in training, as of `TemporalTransformer`.
        inducing: points through which assets attend to each other, at a cost linear in their number; for thousands of
            assets. None lets each attend to all.
        gap_input: the input by which distances in time are in days, as of `TemporalTransformer`; None counts rows.

    Raises:
        ValueError: the heads do not divide the width into even parts, or an argument is out of bounds.

    References:
        Vaswani et al. (2017); Lee et al. (2019), Set Transformer, for the inducing points.
    """

    layout: ClassVar[str] = "panel"
    causal: ClassVar[bool] = True

    def __init__(
        self,
        in_features: int,
        width: int = 48,
        depth: int = 2,
        heads: int = 4,
        expansion: int = 2,
        dropout: float = 0.1,
        input_noise: float = 0.3,
        inducing: int | None = None,
        gap_input: int | None = None,
    ) -> None:
        super().__init__()
        if width % (2 * heads):
            raise ArgumentError(f"width {width} must be a multiple of twice the heads, {heads}.")
        if gap_input is not None and not 0 <= gap_input < in_features:
            raise ArgumentError(f"gap_input {gap_input} must be one of the inputs 0 to {in_features - 1}, or None.")
        if inducing is not None and inducing < 1:
            raise ArgumentError(f"inducing must be at least 1 point, or None, not {inducing}.")
        self.in_features, self.width, self.depth = in_features, width, depth
        self.heads, self.expansion, self.dropout, self.input_noise = heads, expansion, dropout, input_noise
        self.inducing, self.gap_input = inducing, gap_input
        self.embed = nn.Linear(in_features, width)
        self.over_time = nn.ModuleList(Block(width, heads, expansion, dropout) for _ in range(depth))
        self.over_assets = nn.ModuleList(
            Block(width, heads, expansion, dropout)
            if inducing is None
            else InducedBlock(width, heads, expansion, dropout, inducing)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)

    @property
    def out_features(self) -> int:
        """The hidden width `D`."""
        return self.width

    def forward(self, inputs: Float[Tensor, "B C N F"], mask: Bool[Tensor, "B C N"]) -> Float[Tensor, "B C N D"]:
        """Hidden states of every asset at every row, 0 before its first usable session."""
        B, C, N, _ = inputs.shape
        inputs = torch.where(mask.unsqueeze(-1), inputs, 0.0)
        angles = rotary_angles(self._position(inputs, mask), self.width // self.heads)
        inputs = noisy(inputs, self.input_noise, self.training)
        last = last_usable(mask.transpose(1, 2).flatten(0, 1)).unflatten(0, (B, N)).transpose(1, 2).contiguous()
        started = (last >= 0).unsqueeze(-1)
        inputs = inputs.gather(1, last.clamp(min=0).unsqueeze(-1).expand(inputs.shape))
        hidden = self.embed(torch.where(started, inputs, 0.0))
        in_time = _own_history(mask)
        on_row, some = usable_keys(mask.flatten(0, 1))
        for over_time, over_assets in zip(self.over_time, self.over_assets, strict=True):
            own = over_time(hidden.transpose(1, 2).flatten(0, 1), in_time, angles=angles)
            hidden = own.unflatten(0, (B, N)).transpose(1, 2)
            hidden = over_assets(hidden.flatten(0, 1), on_row, some).unflatten(0, (B, C))
        return torch.where(started, self.norm(hidden), 0.0)

    def _position(self, inputs: Tensor, mask: Tensor) -> Float[Tensor, "*BN C"]:
        if self.gap_input is None:
            return torch.arange(mask.shape[1], device=mask.device, dtype=torch.float32)
        return days_since_start(inputs, mask, self.gap_input).transpose(1, 2).flatten(0, 1)


def _own_history(mask: Bool[Tensor, "B C N"]) -> Bool[Tensor, "BN 1 C C"]:
    """Which row of an asset may attend to which of its own: the usable ones up to itself.

    A row before its first usable one attends to itself alone, so that no softmax is empty; its output is 0 anyway.
    """
    C = mask.shape[1]
    usable = mask.transpose(1, 2).flatten(0, 1)
    row = torch.arange(C, device=mask.device)
    allowed = torch.logical_and(usable[:, None, :], row[:, None] >= row)
    started = usable.cumsum(1) > 0
    itself = torch.logical_and(~started[:, :, None], row[:, None] == row)
    return torch.logical_or(allowed, itself).unsqueeze(1)
