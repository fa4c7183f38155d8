"""An elementwise map of some elements."""

import torch
from jaxtyping import Bool
from torch import Tensor

from qtorch.distributions.transforms.bijection import Bijection, Values, promoted


class Masked(Bijection):
    """An elementwise map where it is active; elsewhere exactly the identity, with a ladj of exactly 0.

    Args:
        part: elementwise, finite in value and parameters wherever it is not active.
        active: broadcasts with the values.

    Example:
        >>> from qtorch.distributions.transforms import Affine
        >>> part = Masked(Affine(torch.tensor([1.0, 0.0])), torch.tensor([True, False]))
        >>> part(torch.tensor([2.0, 2.0]))
        tensor([3., 2.])
    """

    def __init__(self, part: Bijection, active: Bool[Tensor, "..."]) -> None:
        super().__init__()
        self.part, self.active = part, active

    def call_and_ladj(self, x: Values) -> tuple[Values, Values]:
        """The value y(x) and log dy/dx."""
        x = promoted(x)
        return self._chosen(x, *self.part.call_and_ladj(x))

    def inv_and_ladj(self, y: Values) -> tuple[Values, Values]:
        """The x with y(x) = y and log dx/dy."""
        y = promoted(y)
        return self._chosen(y, *self.part.inv_and_ladj(y))

    def _chosen(self, same: Tensor, other: Tensor, ladj: Tensor) -> tuple[Tensor, Tensor]:
        return torch.where(self.active, other, same), torch.where(self.active, ladj, 0.0)
