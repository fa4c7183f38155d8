"""Reordering of a vector's coordinates."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from qtorch.distributions.transforms.bijection import Bijection, promoted
from qtorch.errors import ArgumentError


class Permutation(Bijection):
    """y_i = x_order(i).

    Args:
        order: of the coordinates, a tensor `[D]` or numbers.
        back: the inverse order, which spares the check.

    Raises:
        ValueError: a coordinate is missing or comes twice.
    """

    event_dim = 1

    def __init__(self, order: Int64[Tensor, " D"] | Sequence[int], back: Int64[Tensor, " D"] | None = None) -> None:
        super().__init__()
        self.order = torch.as_tensor(order)
        self.back = torch.argsort(self.order) if back is None else back
        if back is None and self.order[self.back].tolist() != list(range(len(self.order))):
            raise ArgumentError(f"order={self.order.tolist()} must hold each of 0 to {len(self.order) - 1} once.")

    def call_and_ladj(self, x: Float[Tensor, "... D"]) -> tuple[Float[Tensor, "... D"], Float[Tensor, "..."]]:
        """The reordered vector and 0."""
        x = promoted(x)
        return take_features(x, self.order), x.new_zeros(x.shape[:-1])

    def inv_and_ladj(self, y: Float[Tensor, "... D"]) -> tuple[Float[Tensor, "... D"], Float[Tensor, "..."]]:
        """The vector in its first order and 0."""
        y = promoted(y)
        return take_features(y, self.back), y.new_zeros(y.shape[:-1])


def take_features(x: Float[Tensor, "... D"], index: Int64[Tensor, " d"]) -> Float[Tensor, "... d"]:
    """Coordinates of vectors, laid out in memory with the coordinates first."""
    return x.movedim(-1, 0).index_select(0, index.to(x.device)).movedim(0, -1)
