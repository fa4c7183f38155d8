"""A network: what is trained, exported, compiled and saved, and knows no Lightning."""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


class Network(nn.Module):
    """An encoder and a head's parameters.

    Args:
        encoder: a module `(inputs, mask) -> hidden`: in asset layout `[B, C, F] -> [B, C, D]`, in panel layout
            `[B, C, N, F] -> [B, C, N, D]`. Its attributes `layout` (``"asset"`` where it has none) and `causal` (True)
            say which, and whether the hidden state of each position depends on no later one; an encoder that is not
            causal returns that of the last position alone, `[B, 1, ..., D]`.
        head: a module with `parameters_of(hidden) -> tensors [*batch, H, ...]` and `distribution(*parameters)`.
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
    def causal(self) -> bool:
        """Whether there is a forecast from each position of a window, not from its last alone."""
        return getattr(self.encoder, "causal", True)

    def forward(
        self, inputs: Float[Tensor, "B C *N F"], mask: Bool[Tensor, "B C *N"], every_position: bool = False
    ) -> tuple[Float[Tensor, "B ..."], ...]:
        """The head's parameter tensors from the window's last session, or from each of its sessions.

        Returns:
            `[B, H, ...]`, with C after B if from every position, and N before H in panel layout.
        """
        hidden = self.encoder(inputs, mask)
        hidden = hidden if every_position else hidden[:, -1]
        if torch.is_autocast_enabled(hidden.device.type):
            # Degrees of freedom and volatilities of 8 bits would make steps of half a per cent in every forecast.
            with torch.autocast(hidden.device.type, enabled=False):
                return self.head.parameters_of(hidden.float())
        return self.head.parameters_of(hidden)
