"""A velocity field as a network."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qtorch.nn.squash import squash


class Velocity(nn.Module):
    """v(t, x, context) by a smooth network; x enters as asinh(x), the time as sines and cosines.

    Args:
        features: coordinates D.
        context: features C of the context; 0 for none.
        hidden: widths, at least one.
        frequencies: of the time, pi to that many times pi.
    """

    def __init__(self, features: int, context: int, hidden: Sequence[int], frequencies: int = 4) -> None:
        super().__init__()
        self.features, self.hidden, self.frequencies = features, list(hidden), frequencies
        self.first = nn.Linear(features, hidden[0])
        self.context = nn.Linear(context, hidden[0], bias=False) if context else None
        self.time = nn.Linear(2 * frequencies, hidden[0], bias=False)
        self.rest = nn.ModuleList(nn.Linear(m, n) for m, n in pairwise([*hidden, features]))

    def forward(
        self, t: Float[Tensor, "..."], x: Float[Tensor, "... D"], context: Float[Tensor, "... C"] | None = None
    ) -> Float[Tensor, "... D"]:
        """The velocity at times `[...]` from 0 to 1, which broadcast against those of x."""
        angle = t.unsqueeze(-1) * math.pi * torch.arange(1, self.frequencies + 1, device=x.device)
        hidden = self.first(squash(x)) + self.time(torch.cat((angle.sin(), angle.cos()), -1).to(x.dtype))
        if self.context is not None and context is not None:
            hidden = hidden + self.context(context)
        for layer in self.rest:
            hidden = layer(torch.nn.functional.silu(hidden))
        return hidden
