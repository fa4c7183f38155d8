"""A recurrent net over an asset's own sessions."""

from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from qtorch.nn import Dropout, Recurrence, last_states, noisy, take, usable_first, windows_of


class Recurrent(nn.Module):
    """Encodes each session of a window by a GRU or LSTM that has read it and the usable sessions before it.

    A linear layer and a GELU stand before the cell. Each session's inputs also go past it, so that it may keep to what
    came before; the sum of both, by layer norm, is the output.

    A masked step leaves the state as it is, and its own output is 0. The usable sessions are moved to the front of the
    window before torch's fused loop runs over it, so that the masked ones come after all that counts.

    Under autocast the loop stays in the parameters' precision: a state's rounding errors add up, and not every CPU
    trains a bfloat16 LSTM. torch.compile and torch.export keep it as one operation; see `qtorch.nn.Recurrence`.

    Args:
        in_features: inputs `F`.
        width: hidden width `D`.
        depth: layers.
        cell: ``"gru"`` or ``"lstm"``.
        dropout: probability, in training, of the states between layers and after the last.
        input_noise: standard deviation of Gaussian noise added to the inputs in training, as of `TemporalTransformer`.

    Raises:
        ValueError: the cell is not known.

    References:
        Cho et al. (2014), Learning Phrase Representations using RNN Encoder-Decoder; Hochreiter and Schmidhuber (1997).
    """

    layout: ClassVar[str] = "asset"
    causal: ClassVar[bool] = True

    def __init__(
        self,
        in_features: int,
        width: int = 48,
        depth: int = 1,
        cell: str = "gru",
        dropout: float = 0.1,
        input_noise: float = 0.3,
    ) -> None:
        super().__init__()
        self.in_features, self.width, self.depth, self.cell = in_features, width, depth, cell
        self.dropout, self.input_noise = dropout, input_noise
        self.embed = nn.Linear(in_features, width)
        self.layers = Recurrence(cell, width, depth, dropout)
        self.past = nn.Linear(in_features, width)
        self.norm = nn.LayerNorm(width)
        self.drop = Dropout(dropout)

    @property
    def out_features(self) -> int:
        """The hidden width `D`."""
        return self.width

    @property
    def shares(self) -> bool:
        """Whether windows share the work of their common sessions in `last_of`: those of a GRU of one layer do."""
        return self.cell == "gru" and self.depth == 1

    def forward(self, inputs: Float[Tensor, "B C F"], mask: Bool[Tensor, "B C"]) -> Float[Tensor, "B C D"]:
        """Hidden states of every position, 0 where masked."""
        order, place = usable_first(mask)
        inputs = take(torch.where(mask.unsqueeze(-1), inputs, 0.0), order)
        inputs = noisy(inputs, self.input_noise, self.training)
        with _full_precision(inputs):
            states = self.layers(nn.functional.gelu(self.embed(inputs)))
        hidden = self.norm(self.drop(states) + self.past(inputs))
        return torch.where(mask.unsqueeze(-1), take(hidden, place), 0.0)

    def last_of(
        self, inputs: Float[Tensor, "Q F"], mask: Bool[Tensor, " Q"], place: Int64[Tensor, " K"], context: int
    ) -> Float[Tensor, "K D"]:
        """Hidden states of the last position of windows that overlap, in evaluation mode.

        What `forward` gives for each window, to some 1e-6. With one layer of GRU all that depends on a session alone is
        computed once for all windows that hold it, and there is no gradient.

        Args:
            inputs: of `Q` sessions.
            mask: which of them are usable.
            place: where each of `K` windows begins among them, ascending from 0.
            context: sessions of a window.
        """
        if not self.shares:
            return self(windows_of(inputs, place, context), windows_of(mask, place, context))[:, -1]
        inputs = torch.where(mask.unsqueeze(-1), inputs, 0.0)
        with _full_precision(inputs):
            states = last_states(self.layers, nn.functional.gelu(self.embed(inputs)), mask, place, context)
        last = place + context - 1
        hidden = self.norm(states + self.past(inputs[last]))
        return torch.where(mask[last].unsqueeze(-1), hidden, 0.0)


def _full_precision(inputs: Tensor) -> AbstractContextManager[object]:
    """Without autocast; nothing where there is none, which would else be an operation of an exported graph."""
    device = inputs.device.type
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()
