"""How raw numbers become parameters of laws: smooth, and bounded so that no hidden state gives an absurd forecast."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

LEAST_DF, MOST_DF = 2.1, 60.0


def within(factor: float, raw: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Logs between those of 1 / factor and factor, with slope 1 at zero."""
    return up_to(math.log(factor), raw)


def up_to(most: float, raw: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Between -most and most, with slope 1 at zero."""
    return most * torch.tanh(raw / most)


def factor_of_volatility(raw: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Between 1/8 and 8; 1 at zero."""
    return torch.exp(within(8.0, raw))


def degrees_of_freedom(raw: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Between 2.1, where there is still a variance, and 60, as good as normal; 6 at zero."""
    return LEAST_DF + (MOST_DF - LEAST_DF) * torch.sigmoid(raw - 2.63)


def location(raw: Float[Tensor, "*batch"], scale: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """At most half a scale from zero, so that the value at risk at 90 % or beyond is always a loss."""
    return 0.5 * scale * torch.tanh(raw)
