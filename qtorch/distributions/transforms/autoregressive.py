"""Autoregression: each coordinate is transformed by what those before it say."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from qtorch.distributions.transforms.bijection import Bijection, promoted
from qtorch.distributions.transforms.coupling import Elementwise


@runtime_checkable
class Steps(Protocol):
    """Parameters of one coordinate after another."""

    def next(self, before: Float[Tensor, "..."] | None) -> Float[Tensor, "P ..."]:
        """Those of coordinate i, given coordinate i - 1, which is None for the first; called for i = 0, 1, ..."""
        ...


@runtime_checkable
class MaskedConditioner(Protocol):
    """Parameters of all coordinates at once, or of one after another at the cost of all at once."""

    def __call__(self, x: Float[Tensor, "D ..."]) -> Float[Tensor, "P D ..."]:
        """Those of coordinate i depend on x_1 to x_i-1."""
        ...

    def steps(self, shape: torch.Size) -> Steps:
        """The same, step by step, for coordinates of a batch shape."""
        ...


class Autoregressive(Bijection):
    """Each coordinate goes through an elementwise map whose parameters depend on the coordinates before it.

    The inverse takes D steps. A conditioner that keeps what it has computed makes a step cost a D-th of a pass.

    Args:
        conditioner: the coordinates stand first and the batch last.
        elementwise: the map with given parameters, such as `RationalQuadratic`.

    References:
        Papamakarios, Pavlakou and Murray (2017), Masked autoregressive flow for density estimation, NeurIPS.
    """

    event_dim = 1

    def __init__(self, conditioner: MaskedConditioner, elementwise: Elementwise) -> None:
        super().__init__()
        self.conditioner, self.elementwise = conditioner, elementwise

    def call_and_ladj(self, x: Float[Tensor, "... D"]) -> tuple[Float[Tensor, "... D"], Float[Tensor, "..."]]:
        """The value y(x) and log |det dy/dx|."""
        first = promoted(x).movedim(-1, 0)
        y, ladj = self.elementwise(self.conditioner(first)).call_and_ladj(first)
        return y.movedim(0, -1), ladj.sum(0)

    def inv_and_ladj(self, y: Float[Tensor, "... D"]) -> tuple[Float[Tensor, "... D"], Float[Tensor, "..."]]:
        """The x with y(x) = y and log |det dx/dy|."""
        y = promoted(y).movedim(-1, 0).contiguous()
        steps = self.conditioner.steps(y.shape[1:])
        x: list[Tensor] = []
        total = torch.zeros((), device=y.device)
        for value in y:
            found, ladj = self.elementwise(steps.next(x[-1] if x else None)).inv_and_ladj(value)
            x.append(found)
            total = total + ladj
        return torch.stack(x).movedim(0, -1), total
