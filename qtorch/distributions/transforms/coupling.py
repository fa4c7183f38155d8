"""Coupling: some coordinates are transformed by what the others say."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from qtorch.distributions.transforms.bijection import Bijection, promoted

Conditioner = Callable[[Float[Tensor, "a ..."]], Float[Tensor, "P b ..."]]
Elementwise = Callable[[Float[Tensor, "P ..."]], Bijection]


class Coupling(Bijection):
    """The first coordinates stay; each other one goes through an elementwise map whose parameters depend on them.

    Within, coordinates stand first and the batch last, so that arithmetic runs along the batch.

    Args:
        conditioner: maps the first coordinates `[a, ...]` to parameters `[P, D - a, ...]`.
        elementwise: the map with given parameters, such as `RationalQuadratic`.
        kept: how many coordinates stay, `a`.

    References:
        Dinh, Krueger and Bengio (2015), NICE, ICLR workshop, section 3.2.
    """

    event_dim = 1

    def __init__(self, conditioner: Conditioner, elementwise: Elementwise, kept: int) -> None:
        super().__init__()
        self.conditioner, self.elementwise, self.kept = conditioner, elementwise, kept

    def call_and_ladj(self, x: Float[Tensor, "... D"]) -> tuple[Float[Tensor, "... D"], Float[Tensor, "..."]]:
        """The value y(x) and log |det dy/dx|."""
        return self._pass(x, inverse=False)

    def inv_and_ladj(self, y: Float[Tensor, "... D"]) -> tuple[Float[Tensor, "... D"], Float[Tensor, "..."]]:
        """The x with y(x) = y and log |det dx/dy|."""
        return self._pass(y, inverse=True)

    def _pass(self, x: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        first = promoted(x).movedim(-1, 0)
        kept, rest = first[: self.kept], first[self.kept :]
        part = self.elementwise(self.conditioner(kept))
        rest, ladj = part.inv_and_ladj(rest) if inverse else part.call_and_ladj(rest)
        return torch.cat((kept.expand(-1, *rest.shape[1:]), rest)).movedim(0, -1), ladj.sum(0)
