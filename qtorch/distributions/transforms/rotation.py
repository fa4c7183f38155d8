"""Rotations and reflections."""

import torch
from jaxtyping import Float
from torch import Tensor

from qtorch.distributions.transforms.bijection import Bijection, promoted


class Rotation(Bijection):
    """y = Q' x with an orthogonal Q, the product of D Householder reflections.

    Args:
        vectors: `[D, D]`, the parts of the reflections' vectors below the diagonal, on which they are 1.

    References:
        Tomczak and Welling (2016), Improving variational auto-encoders using Householder flow.
        Meng, Song, Song and Ermon (2020), Gaussianization flows, AISTATS, section 3.2.
    """

    event_dim = 1

    def __init__(self, vectors: Float[Tensor, "D D"]) -> None:
        super().__init__()
        below = promoted(vectors).tril(-1)
        self.matrix = torch.linalg.householder_product(below, 2 / (1 + below.square().sum(0)))

    @staticmethod
    def vectors_of(matrix: Float[Tensor, "D D"]) -> Float[Tensor, "D D"]:
        """The vectors of an orthogonal matrix, up to the signs of its columns."""
        return torch.geqrf(matrix).a.tril(-1)

    def call_and_ladj(self, x: Float[Tensor, "... D"]) -> tuple[Float[Tensor, "... D"], Float[Tensor, "..."]]:
        """The rotated vector and 0."""
        return self._times(x, self.matrix)

    def inv_and_ladj(self, y: Float[Tensor, "... D"]) -> tuple[Float[Tensor, "... D"], Float[Tensor, "..."]]:
        """The vector rotated back and 0."""
        return self._times(y, self.matrix.mT)

    def _times(self, x: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
        x = promoted(x)
        with torch.autocast(x.device.type, enabled=False):
            return x @ matrix, x.new_zeros(x.shape[:-1])
