"""A window cut or padded to a length."""

import torch
from jaxtyping import Shaped
from torch import Tensor


def last_steps(x: Shaped[Tensor, "B C *rest"], count: int) -> Shaped[Tensor, "B K *rest"]:
    """The last `count` steps of each window, with zeros (False in a mask) before a shorter one."""
    short = count - x.shape[1]
    if short <= 0:
        return x[:, -count:]
    return torch.cat([x.new_zeros(x.shape[0], short, *x.shape[2:]), x], dim=1)
