"""A network: what is trained, exported, compiled and saved, and knows no Lightning."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor, nn
from torch.nn.functional import pad

from qtorch.heads.coupling_flow import CouplingFlowHead
from qtorch.heads.joint import JointHead
from qtorch.nn import windows_of


class Network(nn.Module):
    """An encoder and a head's parameters.

    Args:
        encoder: a module `(inputs, mask) -> hidden`: in asset layout `[B, C, F] -> [B, C, D]`, in panel layout
            `[B, C, N, F] -> [B, C, N, D]`. Its attributes `layout` (``"asset"`` where it has none) and `causal` (True)
            say which, and whether the hidden state of each position depends on no later one; an encoder that is not
            causal returns that of the last position alone, `[B, 1, ..., D]`. It may have a method `last_of` for
            windows that overlap, which is called where its attribute `shares` is True; see
            `qtorch.models.Recurrent`.
        head: a module with `parameters_of(hidden) -> tensors [*batch, H, ...]` and `distribution(*parameters)`. One of
            joint laws also takes the mask of a row, and has `dated`, as that of `qtorch.heads.JointHead`.
    """

    head: Any

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    @property
    def layout(self) -> str:
        """Whether windows hold one asset, ``"asset"``, or all, ``"panel"``."""
        return getattr(self.encoder, "layout", "asset")

    @property
    def joint(self) -> bool:
        """Whether the head's laws are of all assets together."""
        return isinstance(self.head, CouplingFlowHead | JointHead)

    @property
    def causal(self) -> bool:
        """Whether there is a forecast from each position of a window, not from its last alone."""
        return getattr(self.encoder, "causal", True)

    @property
    def shares(self) -> bool:
        """Whether windows that overlap share the work of their common sessions, which outruns a compiled network."""
        return getattr(self.encoder, "shares", False)

    def __call__(self, inputs: Tensor, mask: Tensor, every_position: Any = False) -> Any:
        """As `forward`; where that is compiled, an axis of one is padded, as it would be a graph of its own."""
        if self._compiled_call_impl is None:
            return super().__call__(inputs, mask, every_position)
        # A graph made of views asks of what they are views, and would be compiled anew for copies.
        inputs, mask = (x.clone(memory_format=torch.contiguous_format) if x._is_view() else x for x in (inputs, mask))
        if min(mask.shape) > 1:
            return super().__call__(inputs, mask, every_position)
        # One masked session before the others, and one masked window or asset after them.
        short = [int(size == 1) for size in mask.shape]
        around = [side for axis in (*range(2, mask.ndim), 0) for side in (0, short[axis])]
        around = [*around[:-2], short[1], 0, *around[-2:]]
        sizes = mask.shape
        outputs = super().__call__(pad(inputs, [0, 0, *around]), pad(mask, around), every_position)
        kept: list[slice] = [slice(sizes[0])]
        kept += [slice(-sizes[1], None)] if every_position else []
        kept += [slice(size) for size in sizes[2:]]
        return tuple(value[tuple(kept)] for value in outputs)

    def forward(
        self, inputs: Float[Tensor, "B C *N F"], mask: Bool[Tensor, "B C *N"], every_position: bool = False
    ) -> tuple[Shaped[Tensor, "B ..."], ...]:
        """The head's parameter tensors from the window's last session, or from each of its sessions.

        Returns:
            `[B, H, ...]`, with C after B if from every position, and N before H in panel layout.
        """
        hidden = self.encoder(inputs, mask)
        return self._of(*((hidden, mask) if every_position else (hidden[:, -1], mask[:, -1])))

    def last_of(
        self, inputs: Float[Tensor, "Q F"], mask: Bool[Tensor, " Q"], place: Int64[Tensor, " K"], context: int
    ) -> tuple[Shaped[Tensor, "K ..."], ...]:
        """The same from the last session of `K` windows of one asset each, which may overlap.

        Args:
            inputs: of `Q` sessions, as of `qtorch.data.WindowSource.overlapping`.
            mask: which of them are usable.
            place: where each window begins among them, ascending from 0.
            context: sessions of a window.
        """
        if self.shares:
            return self._of(self.encoder.last_of(inputs, mask, place, context))  # type: ignore[operator]
        return self(windows_of(inputs, place, context), windows_of(mask, place, context))

    def _of(self, hidden: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        given = (mask,) if self.joint else ()  # a joint head asks who is there
        if torch.is_autocast_enabled(hidden.device.type):
            # Degrees of freedom and volatilities of 8 bits would make steps of half a per cent in every forecast.
            with torch.autocast(hidden.device.type, enabled=False):
                return self.head.parameters_of(hidden.float(), *given)
        return self.head.parameters_of(hidden, *given)
