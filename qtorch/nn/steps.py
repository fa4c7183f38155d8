"""Windows cut from a series, and cut or padded to a length."""

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor


def last_steps(x: Shaped[Tensor, "B C *rest"], count: int) -> Shaped[Tensor, "B K *rest"]:
    """The last `count` steps of each window, with zeros (False in a mask) before a shorter one."""
    short = count - x.shape[1]
    if short <= 0:
        return x[:, -count:]
    return torch.cat([x.new_zeros(x.shape[0], short, *x.shape[2:]), x], dim=1)


def windows_of(x: Shaped[Tensor, "Q *rest"], place: Int64[Tensor, " K"], context: int) -> Shaped[Tensor, "K C *rest"]:
    """Windows of so many steps of a series, each from its place on."""
    at = place.unsqueeze(1) + torch.arange(context, device=x.device)
    return x.index_select(0, at.flatten()).unflatten(0, at.shape)
