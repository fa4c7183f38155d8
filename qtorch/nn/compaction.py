"""Usable steps moved to the front of a window, so that causality alone hides the masked ones.

Whatever is causal along a sequence - attention, a recurrent net - and is fed the usable steps first in their order,
then the masked ones, gives at each usable step what it gives without the masked ones. So no mask goes into the layers:
attention keeps the fused kernels that take none, and a recurrent net its fused loop.
"""

import torch
from jaxtyping import Bool, Int64, Shaped
from torch import Tensor


def usable_first(mask: Bool[Tensor, "B C"]) -> tuple[Int64[Tensor, "B C"], Int64[Tensor, "B C"]]:
    """An order of the steps, usable ones first and each kind in its own order, and its inverse.

    Returns:
        order: which step comes i-th. place: where each step comes. `take(take(x, order), place)` is x.
    """
    B, C = mask.shape
    usable = mask.long()
    behind = usable.sum(1, keepdim=True) + (1 - usable).cumsum(1)
    place = torch.where(mask, usable.cumsum(1), behind) - 1
    steps = torch.arange(C, device=mask.device).expand(B, C)
    return torch.zeros_like(place).scatter(1, place, steps), place


def last_usable(mask: Bool[Tensor, "B C"]) -> Int64[Tensor, "B C"]:
    """The last usable step up to each step, -1 before the first.

    A running maximum would say the same, but is no operation of ONNX and other runtimes.
    """
    order, seen = usable_first(mask)[0], mask.long().cumsum(1)
    return torch.where(seen > 0, order.gather(1, (seen - 1).clamp(min=0)), -1)


def take(x: Shaped[Tensor, "B C *rest"], index: Int64[Tensor, "B K"]) -> Shaped[Tensor, "B K *rest"]:
    """The steps of each window that an index names: `x[b, index[b, k]]`.

    Rows of memory are copied whole, which `torch.gather` with an index for each channel does not do.
    """
    B, C = x.shape[:2]
    first = torch.arange(B, device=x.device)[:, None] * C
    return x.flatten(0, 1).index_select(0, (first + index).flatten()).unflatten(0, index.shape)
