"""Noise on inputs, against learning dates by heart."""

import torch
from jaxtyping import Float
from torch import Tensor


def noisy(inputs: Float[Tensor, "..."], deviation: float, training: bool) -> Float[Tensor, "..."]:
    """Inputs with Gaussian noise of a standard deviation added in training."""
    if training and deviation > 0:
        return inputs + deviation * torch.randn_like(inputs)
    return inputs
