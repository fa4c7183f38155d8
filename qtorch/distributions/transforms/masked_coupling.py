"""A coupling of coordinates that a mask names, which may differ from row to row."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qtorch.distributions.transforms.bijection import Bijection, promoted
from qtorch.distributions.transforms.composed import Composed
from qtorch.distributions.transforms.masked import Masked


class MaskedCoupling(Bijection):
    """Moved coordinates go through elementwise maps whose parameters depend on the others; those stay.

    `Coupling` is the same for one split of the whole batch, by position; here shapes are fixed whatever is moved.

    Args:
        conditioner: maps vectors `[..., N]`, 0 at what is moved, to parameters `[P, ..., N]`.
        elementwise: the maps with given parameters, one after another, such as an affine map and a spline.
        moved: which coordinates are transformed.

    References:
        Dinh, Sohl-Dickstein and Bengio (2017), Density estimation using Real NVP, ICLR, equation 9.

    Example:
        >>> from qtorch.distributions.transforms import Affine
        >>> def by_sum(x):
        ...     return x.sum(-1).expand(1, len(x))
        >>> def shift(parameters):
        ...     return [Affine(torch.cat((parameters, torch.zeros_like(parameters))))]
        >>> MaskedCoupling(by_sum, shift, torch.tensor([True, False, False]))(torch.tensor([1.0, 10.0, 20.0]))
        tensor([31., 10., 20.])
    """

    event_dim = 1

    def __init__(
        self,
        conditioner: Callable[[Float[Tensor, "... N"]], Float[Tensor, "P ... N"]],
        elementwise: Callable[[Float[Tensor, "P ... N"]], Sequence[Bijection]],
        moved: Bool[Tensor, "... N"],
    ) -> None:
        super().__init__()
        self.conditioner, self.elementwise, self.moved = conditioner, elementwise, moved

    def call_and_ladj(self, x: Float[Tensor, "... N"]) -> tuple[Float[Tensor, "... N"], Float[Tensor, "..."]]:
        """The value y(x) and log |det dy/dx|."""
        x = promoted(x)
        return self._given(x).call_and_ladj(x)

    def inv_and_ladj(self, y: Float[Tensor, "... N"]) -> tuple[Float[Tensor, "... N"], Float[Tensor, "..."]]:
        """The x with y(x) = y and log |det dx/dy|."""
        y = promoted(y)
        return self._given(y).inv_and_ladj(y)

    def _given(self, x: Tensor) -> Composed:
        parameters = self.conditioner(torch.where(self.moved, 0.0, x)).to(x.dtype)
        return Composed([Masked(part, self.moved) for part in self.elementwise(parameters)])
