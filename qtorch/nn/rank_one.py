"""Linear maps that share a matrix and differ by factors of rank one."""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn


class RankOneLinear(nn.Module):
    """K linear maps y = s (W (r x)) + b, which share W; the matrix of each is W times the outer product of s and r.

    As it is it can't be called: `each_of` puts the vectors of one map after another, or of all under vmap, in place.
    W sees the batches of all maps as one.

    Args:
        linear: whose matrix is shared, and whose bias each map begins with.
        members: K. Their vectors r and s begin as random signs from torch's generator, which makes their gradients
            differ from the first step on.

    References:
        Wen, Tran and Ba (2020), BatchEnsemble: an alternative approach to efficient ensemble and lifelong learning,
        ICLR, equations 1 and 5.
    """

    def __init__(self, linear: nn.Linear, members: int) -> None:
        super().__init__()
        self.weight = linear.weight
        self.own = _Vectors(linear, members)

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """What the map gives whose vectors are in place."""
        y = nn.functional.linear(x * self.own.r, self.weight)
        return y * self.own.s if self.own.bias is None else torch.addcmul(self.own.bias, y, self.own.s)

    def member(self, index: int) -> nn.Linear:
        """One of the maps, by itself."""
        out, width = self.weight.shape
        linear = nn.Linear(width, out, bias=self.own.bias is not None, device=self.weight.device)
        with torch.no_grad():
            linear.weight.copy_(self.weight * torch.outer(self.own.s[index], self.own.r[index]))
            if self.own.bias is not None:
                linear.bias.copy_(self.own.bias[index])
        return linear


class _Vectors(nn.Module):
    """What each map has of its own: `[K, in]`, `[K, out]` and `[K, out]`."""

    stacked: ClassVar[bool] = True
    bias: nn.Parameter | None

    def __init__(self, linear: nn.Linear, members: int) -> None:
        super().__init__()
        self.r = nn.Parameter(_signs(linear.weight, members, linear.in_features))
        self.s = nn.Parameter(_signs(linear.weight, members, linear.out_features))
        bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().repeat(members, 1))
        self.register_parameter("bias", bias)


def _signs(like: Tensor, *shape: int) -> Tensor:
    return torch.randint(2, shape, device=like.device).to(like.dtype) * 2 - 1
