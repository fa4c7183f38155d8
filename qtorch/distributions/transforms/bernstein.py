"""Monotone Bernstein polynomials."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from qtorch.distributions.checks import require
from qtorch.distributions.transforms.affine import MAX_LOG_SCALE
from qtorch.distributions.transforms.bijection import Bijection, Values, expand_first, promoted, soft_clip
from qtorch.distributions.transforms.numeric_inverse import continued, continued_bracket, solve


class Bernstein(Bijection):
    """An increasing Bernstein polynomial on [-bound, bound], and its tangents beyond.

    y = sum_k a_k C(M, k) s^k (1 - s)^(M - k) with s = (x + bound) / (2 bound). The steps a_(k + 1) - a_k are
    2 bound exp(p_k) / M, their logs clipped softly to +-5, as then is the log of the slope. With parameters of 0 it is
    the identity.

    Args:
        parameters: `[M + 1, ...]`: where the middle of the a_k lies, then the logs p of the M steps.
        bound: half the side of the box.

    Raises:
        ValueError: there are fewer than two parameters.

    References:
        Sick, Hothorn and Duerr (2021), Deep transformation models, ICPR.
        Ramasinghe, Fernando, Khan and Barnes (2022), Robust normalizing flows using Bernstein-type polynomials, BMVC.

    Example:
        >>> Bernstein(torch.zeros(9, 2))(torch.tensor([0.3, 50.0]))
        tensor([ 0.3000, 50.0000])
    """

    def __init__(self, parameters: Float[Tensor, "P ..."], bound: float = 5.0) -> None:
        super().__init__()
        require(parameters.shape[0] >= 2, "parameters.shape[0]", parameters.shape[0], "an offset and a step are needed")
        self.parameters, self.bound = promoted(parameters), bound

    @staticmethod
    def size(degree: int) -> int:
        """Parameters of one polynomial."""
        return degree + 1

    def call_and_ladj(self, x: Values) -> tuple[Values, Values]:
        """The value y(x) and log dy/dx."""
        x = promoted(x)
        return continued(self._polynomial, x.expand(self._shape(x)), self.bound)

    def inv_and_ladj(self, y: Values) -> tuple[Values, Values]:
        """The x with y(x) = y and log dx/dy."""
        y = promoted(y)
        y = y.expand(self._shape(y))
        bracket = continued_bracket(self._polynomial, y, self.bound)
        return solve(lambda x: continued(self._polynomial, x, self.bound), y, *bracket)

    def _shape(self, x: Tensor) -> torch.Size:
        return torch.broadcast_shapes(x.shape, self.parameters.shape[1:])

    def _polynomial(self, x: Values) -> tuple[Values, Values]:
        parameters = expand_first(self.parameters, x.shape)
        M = parameters.shape[0] - 1
        slopes = torch.exp(soft_clip(parameters[1:], MAX_LOG_SCALE))
        steps = slopes * (2 * self.bound / M)
        total = steps.sum(0)
        above = steps.cumsum(0)  # a_(k + 1) - a_0
        s = (x + self.bound) / (2 * self.bound)
        k = torch.arange(M, dtype=x.dtype, device=x.device).reshape(-1, *[1] * x.ndim)
        binomial = torch.tensor([math.comb(M - 1, i) for i in range(M)], dtype=x.dtype, device=x.device)
        basis = binomial.reshape(k.shape) * s**k * (1 - s) ** (M - 1 - k)  # of degree M - 1
        y = (basis * (above - (1 - s) * steps)).sum(0) - 0.5 * total + parameters[0]
        return y, torch.log((basis * slopes).sum(0))
