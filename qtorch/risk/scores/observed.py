"""Which elements of a score count, and values for the others that keep gradients finite."""

import torch
from jaxtyping import Bool
from torch import Tensor

_STAND_IN = 0.5  # lies in the support of every usual distribution, and is a valid variance or shortfall


def observed(mask: Bool[Tensor, "..."] | None, *inputs: Tensor) -> tuple[Bool[Tensor, "..."], list[Tensor]]:
    """Where the mask is True and no input is NaN; and the broadcast inputs with a stand-in elsewhere.

    A NaN that is only covered up after the arithmetic still makes the gradient NaN; so it is replaced before.
    """
    there = torch.ones((), dtype=torch.bool, device=inputs[0].device) if mask is None else mask
    for x in inputs:
        there = there & ~x.isnan()
    return there, [torch.where(there, x, _STAND_IN) for x in inputs]
