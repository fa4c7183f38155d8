"""What encoders share that give several hidden states a place."""

from typing import Any

from torch import nn


class SeveralStates(nn.Module):
    """An encoder made of another one, of its layout, with K hidden states at each place, `[B, C, (N,) K, D]`.

    Args:
        encoder: the other one.
        draws: K.
    """

    encoder: Any

    def __init__(self, encoder: nn.Module, draws: int) -> None:
        super().__init__()
        self.encoder, self._draws = encoder, draws

    @property
    def draws(self) -> int:
        """Hidden states of a place, K."""
        return self._draws

    @property
    def layout(self) -> str:
        """As of the encoder."""
        return getattr(self.encoder, "layout", "asset")

    @property
    def causal(self) -> bool:
        """As of the encoder."""
        return getattr(self.encoder, "causal", True)

    @property
    def in_features(self) -> int | None:
        """As of the encoder, if it says."""
        return getattr(self.encoder, "in_features", None)

    @property
    def context(self) -> int | None:
        """As of the encoder, if it has one."""
        return getattr(self.encoder, "context", None)

    @property
    def out_features(self) -> int:
        """The hidden width `D`."""
        return self.encoder.out_features
