"""Scaled modified Bessel functions of the second kind with the gradients that torch's lack."""

from typing import Any

import torch
from torch import Tensor


def scaled_k0(x: Tensor) -> Tensor:
    """exp(x) K_0(x) for x > 0, differentiable any number of times."""
    return _ScaledK.apply(x, 0)


def scaled_k1(x: Tensor) -> Tensor:
    """exp(x) K_1(x) for x > 0, differentiable any number of times."""
    return _ScaledK.apply(x, 1)


class _ScaledK(torch.autograd.Function):
    """exp(x) K_n(x) for n of 0 or 1."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, n: int) -> Tensor:
        return torch.special.scaled_modified_bessel_k1(x) if n else torch.special.scaled_modified_bessel_k0(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
        x, ctx.n = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        slope = scaled_k1(x) * (1 - 1 / x) - scaled_k0(x) if ctx.n else scaled_k0(x) - scaled_k1(x)
        return grad * slope, None
