"""A linear map whose matrix is zero above a staircase, features first."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

Stairs = Sequence[tuple[int, int]]


def staircase_first(
    weight: Float[Tensor, "M K"], x: Float[Tensor, "K ..."], bias: Float[Tensor, " M"], stairs: Stairs
) -> Float[Tensor, "M ..."]:
    """W x + b without the products of a block of zeros above a staircase, forward and backward.

    First derivatives only: a second backward pass raises.

    Args:
        weight: zero beyond the staircase, where its gradient is zero too.
        x: features first.
        bias: of each output.
        stairs: for each block of rows in turn the row where it ends, and how many columns it may use; neither falls,
            and the last are M and K.
    """
    flat = x.reshape(x.shape[0], -1)
    if torch.is_autocast_enabled(x.device.type):
        low = torch.get_autocast_dtype(x.device.type)
        weight, flat, bias = weight.to(low), flat.to(low), bias.to(low)
    if torch.compiler.is_compiling():  # which does by itself what is written by hand below, and can't take it in whole
        out = torch.cat([torch.addmm(bias[r].unsqueeze(1), weight[r, :c], flat[:c]) for r, c in _blocks(stairs)])
    else:
        out = _Staircase.apply(weight, flat, bias, tuple(stairs))
    return out.reshape(-1, *x.shape[1:])


class _Staircase(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, x: Tensor, bias: Tensor, stairs: Stairs) -> Tensor:
        ctx.stairs = stairs
        ctx.save_for_backward(weight, x)
        out = torch.empty(len(weight), x.shape[1], dtype=x.dtype, device=x.device)
        for rows, columns in _blocks(stairs):
            torch.addmm(bias[rows].unsqueeze(1), weight[rows, :columns], x[:columns], out=out[rows])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, x = ctx.saved_tensors
        g_weight, g_x = torch.zeros_like(weight), torch.zeros_like(x)
        for rows, columns in _blocks(ctx.stairs):
            own, g = weight[rows, :columns], grad[rows]
            torch.mm(g, x[:columns].mT, out=g_weight[rows, :columns])
            g_x[:columns].addmm_(own.mT, g)
        return g_weight, g_x, grad.sum(1), None


def _blocks(stairs: Stairs) -> list[tuple[slice, int]]:
    """Rows and number of columns of each block that has any rows."""
    starts = [0, *(end for end, _ in stairs)]
    return [(slice(start, end), columns) for start, (end, columns) in zip(starts, stairs, strict=False) if end > start]
