"""A linear map of tensors whose features stand first."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from qtorch.distributions.transforms.bijection import expand_first


def linear_first(
    weight: Float[Tensor, "M K"], x: Float[Tensor, "K ..."], bias: Float[Tensor, "M ..."]
) -> Float[Tensor, "M ..."]:
    """W x + b, where b broadcasts against the batch dimensions of x, or x against those of b.

    One matrix product on `[K, batch]`, whose result `[M, batch]` lies in memory as it is named.
    """
    shape = torch.broadcast_shapes(x.shape[1:], bias.shape[1:])
    flat_x = expand_first(x, shape).reshape(x.shape[0], math.prod(shape))
    flat_bias = bias if math.prod(bias.shape[1:]) == 1 else expand_first(bias, shape)
    out = torch.addmm(flat_bias.reshape(weight.shape[0], math.prod(flat_bias.shape[1:])), weight, flat_x)
    return out.unflatten(1, shape) if shape else out.squeeze(1)
