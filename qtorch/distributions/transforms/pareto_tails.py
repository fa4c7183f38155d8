"""Pareto tails made Gaussian, and Gaussian tails made Pareto."""

import math

import torch
from jaxtyping import Float64
from torch import Tensor

from qtorch.distributions.generalized_pareto import excess, log1p_ratio
from qtorch.distributions.transforms.bijection import Bijection, Values, promoted

Double = Float64[Tensor, "..."]

_LOG_2, _LOG_2PI = math.log(2), math.log(2 * math.pi)


class ParetoTails(Bijection):
    """Each side of a law whose tails fall like |x|^(-1/xi) becomes a side of a law whose tails are the normal's.

    With t = |x - loc| / scale, y has the sign of x - loc and the size at which

        P(|N(0, 1)| > |y|) = (1 + xi t)^(-1 / xi),

    the survival function of a generalised Pareto law with the index of that side. The map is continuously
    differentiable; at xi = 0 it is that of exponential tails. Backwards it is the tail transform flow's last layer.

    Computed in float64, so that a float32 result is right to its last digit however far out. Backwards |x| ends at
    about 1e34 scales in float32, so that no y gives an infinite x.

    Args:
        loc: where the sides meet, broadcasts against the values.
        scale: positive.
        lower: xi of the left side, at least 0.
        upper: xi of the right side, at least 0.

    References:
        Hickling and Prangle (2024), Flexible tails for normalizing flows, section 3.

    Example:
        >>> law = ParetoTails(torch.tensor(0.0), torch.tensor(1.0), torch.tensor(0.3), torch.tensor(0.3))
        >>> law(torch.tensor([-50.0, 1.0]))
        tensor([-3.8983,  0.8115])
    """

    def __init__(self, loc: Values, scale: Values, lower: Values, upper: Values) -> None:
        super().__init__()
        self.loc, self.scale, self.lower, self.upper = loc, scale, lower, upper

    def call_and_ladj(self, x: Values) -> tuple[Values, Values]:
        """The value y(x), Gaussian in the tails, and log dy/dx."""
        x = promoted(x)
        loc, scale = self.loc.double(), self.scale.double()
        d = (x.double() - loc) / scale
        left = d < 0
        t, xi = torch.where(left, -d, d), self._index(left)
        u = t * log1p_ratio(xi * t)
        z = _normal_size(u)
        ladj = 0.5 * (z * z + _LOG_2PI) - _LOG_2 - u - torch.log1p(xi * t) - torch.log(scale)
        return torch.where(left, -z, z).to(x.dtype), ladj.to(x.dtype)

    def inv_and_ladj(self, y: Values) -> tuple[Values, Values]:
        """The x with y(x) = y, of Pareto tails, and log dx/dy."""
        y = promoted(y)
        left, scale = y < 0, self.scale.double()
        z, xi = torch.where(left, -y, y).double(), self._index(left)
        u = -torch.special.log_ndtr(-z) - _LOG_2
        u = torch.minimum(u, 0.9 * math.log(torch.finfo(y.dtype).max) / (xi + 1e-3))
        t = excess(u, xi)
        ladj = u + xi * u - 0.5 * (z * z + _LOG_2PI) + _LOG_2 + torch.log(scale)
        x = self.loc.double() + scale * torch.where(left, -t, t)
        return x.to(y.dtype), ladj.to(y.dtype)

    def _index(self, left: Tensor) -> Double:
        return torch.where(left, self.lower.double(), self.upper.double())


class _NormalSize(torch.autograd.Function):
    """The z >= 0 with log P(|N(0, 1)| > z) = -u."""

    generate_vmap_rule = True

    @staticmethod
    def forward(u: Double) -> Double:
        near = -torch.special.ndtri(0.5 * torch.exp(-u.clamp(max=600.0)))
        # Far out z^2 = 2 (u + log 2) - log 2 pi - log z^2 + 2 log(1 - 1 / z^2 + 3 / z^4), by iteration.
        far = u.clamp(min=600.0)
        square = 2 * far
        for _ in range(5):
            square = 2 * (far + _LOG_2) - _LOG_2PI - torch.log(square) + 2 * torch.log1p((3 / square - 1) / square)
        return torch.where(u < 600.0, near, torch.sqrt(square))

    @staticmethod
    def setup_context(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Double], output: Double) -> None:
        ctx.save_for_backward(*inputs, output)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Double) -> Double:
        u, z = ctx.saved_tensors  # type: ignore[attr-defined]
        return grad * torch.exp(0.5 * (z * z + _LOG_2PI) - _LOG_2 - u)


def _normal_size(u: Double) -> Double:
    return _NormalSize.apply(u)
