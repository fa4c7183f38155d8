"""Transforms one after another."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from qtorch.distributions.transforms.bijection import Bijection, promoted


class Composed(Bijection):
    """y = f_n(... f_1(x)), on vectors `[..., D]`; the ladj of elementwise parts is summed over the coordinates.

    Unlike torch's ComposeTransform it gives value and ladj in one pass.

    Args:
        parts: f_1 to f_n.
    """

    event_dim = 1

    def __init__(self, parts: Sequence[Bijection]) -> None:
        super().__init__()
        self.parts = list(parts)

    def call_and_ladj(self, x: Float[Tensor, "... D"]) -> tuple[Float[Tensor, "... D"], Float[Tensor, "..."]]:
        """The value y(x) and log |det dy/dx|."""
        x, total = promoted(x), torch.zeros((), device=x.device)
        for part in self.parts:
            x, ladj = part.call_and_ladj(x)
            total = total + (ladj if part.event_dim else ladj.sum(-1))
        return x, total.to(x.dtype).expand(x.shape[:-1])

    def inv_and_ladj(self, y: Float[Tensor, "... D"]) -> tuple[Float[Tensor, "... D"], Float[Tensor, "..."]]:
        """The x with y(x) = y and log |det dx/dy|."""
        y, total = promoted(y), torch.zeros((), device=y.device)
        for part in reversed(self.parts):
            y, ladj = part.inv_and_ladj(y)
            total = total + (ladj if part.event_dim else ladj.sum(-1))
        return y, total.to(y.dtype).expand(y.shape[:-1])
