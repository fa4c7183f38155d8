"""Scaled modified Bessel functions of the second kind with the gradients that torch's lack."""

from typing import Any

import torch
from torch import Tensor


def scaled_k0(x: Tensor) -> Tensor:
    """exp(x) K_0(x) for x > 0, differentiable any number of times."""
    return _ScaledK0.apply(x)


def scaled_k1(x: Tensor) -> Tensor:
    """exp(x) K_1(x) for x > 0, differentiable any number of times."""
    return _ScaledK1.apply(x)


class _ScaledK0(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.special.scaled_modified_bessel_k0(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * (scaled_k0(x) - scaled_k1(x))


class _ScaledK1(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.special.scaled_modified_bessel_k1(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * (scaled_k1(x) * (1 - 1 / x) - scaled_k0(x))
