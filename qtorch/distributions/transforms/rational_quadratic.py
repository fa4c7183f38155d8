"""The monotone rational-quadratic spline of neural spline flows, from unconstrained parameters."""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from qtorch.distributions.checks import require
from qtorch.distributions.rational_quadratic import inverse_segment, segment
from qtorch.distributions.transforms.bijection import Bijection, Values, expand_first, promoted, soft_clip

FLOOR = 1e-3  # the least share of the box that a bin takes in either direction
MAX_LOG_SLOPE = math.log(1e3)


class RationalQuadratic(Bijection):
    """A monotone rational-quadratic spline on [-bound, bound], and the identity beyond.

    The widths and heights of its K bins are softmaxes, each bin having at least a thousandth of the box; the logs of
    the slopes at inner knots are clipped softly to log 1e3, those at the ends of the box are 0. With parameters of 0 it
    is the identity.

    The bin of a value is found once a call, by comparing and adding; only the two slopes that count are looked up.
    First derivatives only: a second backward pass raises.

    Args:
        parameters: `[3 K - 1, ...]`: K of widths, K of heights, K - 1 of slopes; the rest is the values' shape.
        bound: half the side of the box.

    Raises:
        ValueError: the number of parameters is not that of two bins or more.

    References:
        Durkan, Bekasov, Murray and Papamakarios (2019), Neural spline flows, NeurIPS, section 3.1.

    Example:
        >>> y, ladj = RationalQuadratic(torch.zeros(23, 2)).call_and_ladj(torch.tensor([0.3, 50.0]))
        >>> torch.allclose(y, torch.tensor([0.3, 50.0])), torch.allclose(ladj, torch.zeros(2), atol=1e-6)
        (True, True)
    """

    def __init__(self, parameters: Float[Tensor, "P ..."], bound: float = 5.0) -> None:
        super().__init__()
        require(
            parameters.shape[0] % 3 == 2 and parameters.shape[0] > 2,
            "parameters.shape[0]",
            parameters.shape[0],
            "a spline of K >= 2 bins takes 3 K - 1 parameters, in the first dimension",
        )
        self.parameters, self.bound = promoted(parameters), bound

    @staticmethod
    def size(bins: int) -> int:
        """Parameters of one spline."""
        return 3 * bins - 1

    def call_and_ladj(self, x: Values) -> tuple[Values, Values]:
        """The value y(x) and log dy/dx."""
        return self._pass(x, inverse=False)

    def inv_and_ladj(self, y: Values) -> tuple[Values, Values]:
        """The x with y(x) = y and log dx/dy."""
        return self._pass(y, inverse=True)

    def _pass(self, x: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        x, parameters = promoted(x), self.parameters
        shape = torch.broadcast_shapes(x.shape, parameters.shape[1:])
        y, ladj, *_ = _Spline.apply(x.expand(shape), expand_first(parameters, shape), self.bound, inverse)
        return y, ladj


class _Spline(torch.autograd.Function):
    """Value and ladj of the spline or its inverse, with gradients by formula.

    A chain of small operations is what a CPU spends its time on in a flow: by formula there are half as many as
    torch's autograd makes of it. Masks are numbers, because torch multiplies several times as fast as it selects.
    """

    @staticmethod
    def forward(x: Tensor, parameters: Tensor, bound: float, inverse: bool) -> tuple[Tensor, ...]:
        inside = x.clamp(-bound, bound)
        share = inside.div(2 * bound).add_(0.5)
        left, mine, d, *masks = _bin(share, parameters, inverse)
        (x_0, y_0), (width, height), (d_0, d_1) = left, mine, d
        s = height / width
        if inverse:
            xi = inverse_segment((share - y_0) / height, s, d_0, d_1)
            y = torch.addcmul(x_0, width, xi)
            ladj = -segment(xi, s, d_0, d_1)[1]
        else:
            xi = (share - x_0) / width
            eta, ladj = segment(xi, s, d_0, d_1)
            y = torch.addcmul(y_0, height, eta)
        y = y.sub_(0.5).mul_(2 * bound).add_(x - inside)
        return y, ladj, xi, left, mine, d, *masks

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, float, bool], output: tuple[Tensor, ...]) -> None:
        x, _, ctx.bound, ctx.inverse = inputs
        ctx.mark_non_differentiable(*output[2:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, *output[2:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        x, xi, left, mine, d, size, beyond, here = ctx.saved_tensors
        g_y, g_l = (torch.zeros_like(x) if grad is None else grad for grad in grads[:2])
        (width, height), (d_0, d_1) = mine, d
        side, bound = 2 * ctx.bound, ctx.bound
        s, rest = height / width, 1 - xi
        xi_2, q = xi * xi, xi * rest
        twist = 1 - 2 * xi
        bend = d_0 + d_1 - 2 * s
        D = torch.addcmul(s, bend, q)  # the denominator; A is the slope's numerator
        A = d_1 * xi_2 + 2 * s * q + d_0 * rest * rest
        over_D, over_A = 1 / D, 1 / A
        eta = torch.addcmul(s * xi_2, d_0, q) * over_D
        slope = s * A * over_D * over_D  # d eta / d xi
        l_xi = 2 * ((d_1 * xi - d_0 * rest + s * twist) * over_A - bend * twist * over_D)
        if ctx.inverse:
            # x(y) moves with the parameters as -dy / (dy/dx), and its ladj is minus that of y(x) at x(y).
            over_width = 1 / width
            along = (g_y * side - g_l * l_xi * over_width) * width / (height * slope)
            g_x = torch.where(x.abs() <= bound, along / side, g_y)
            g_y, g_l = -along, -g_l
            g_xi = g_y * height * slope + g_l * l_xi
        else:
            g_y, outer = g_y * side, g_y
            g_xi = g_y * height * slope + g_l * l_xi
            g_x = torch.where(x.abs() <= bound, g_xi / (width * side), outer)
        g_eta, two_q, flat = g_y * height * over_D, 2 * q * over_D, 1 - 2 * q
        g_s = g_eta * (xi_2 - eta * flat) + 2 * g_l * (q * over_A + 1 / s - flat * over_D)
        g_0 = g_eta * q * (1 - eta) + g_l * (rest * rest * over_A - two_q)
        g_1 = g_l * (xi_2 * over_A - two_q) - g_eta * q * eta
        g_left = torch.stack((-g_xi / width, g_y))
        g_mine = torch.stack((-(g_xi * xi + g_s * s) / width, torch.addcdiv(g_y * eta, g_s, width)))
        # The share of a knot that is clipped: exp(softclip) has the slope d (1 - |log d| / bound)^2.
        g_d = torch.stack((g_0, g_1)) * d * (1 - torch.log(d).abs() / MAX_LOG_SLOPE).square()
        return g_x, _bin_backward(g_left, g_mine, g_d, left, mine, size, beyond, here), None, None


def _bin(at: Tensor, parameters: Tensor, by_height: bool) -> tuple[Tensor, ...]:
    """Of the bin that holds a share of the box: its left ends, sizes and slopes, each `[2, ...]`; sizes and masks."""
    K = (parameters.shape[0] + 1) // 3
    size = torch.softmax(parameters[: 2 * K].unflatten(0, (2, K)), 1).mul_(1 - K * FLOOR).add_(FLOOR)
    edges = [size[int(by_height), 0]]
    for k in range(1, K - 1):
        edges.append(edges[-1] + size[int(by_height), k])
    beyond = (at - torch.stack(edges)).ge_(0)
    here = torch.cat((1 - beyond[:1], beyond[:-1] - beyond[1:], beyond[-1:]))
    left, mine = (size[:, :-1] * beyond).sum(1), (size * here).sum(1)
    slopes = parameters[2 * K :]
    d = torch.stack(((slopes * here[1:]).sum(0), (slopes * here[:-1]).sum(0)))
    return left, mine, torch.exp(soft_clip(d, MAX_LOG_SLOPE)), size, beyond, here


def _bin_backward(
    g_left: Tensor, g_mine: Tensor, g_d: Tensor, left: Tensor, mine: Tensor, size: Tensor, beyond: Tensor, here: Tensor
) -> Tensor:
    """Gradients of the parameters from those of the bin's left ends, sizes and unclipped log-slopes."""
    K = size.shape[1]
    # Of a softmax p the gradient is p (g - sum(p g)); p is (size - FLOOR) / (1 - K FLOOR).
    dot = g_left * (left - FLOOR * beyond.sum(0)) + g_mine * (mine - FLOOR)
    grad = here * g_mine.unsqueeze(1) - (dot / (1 - K * FLOOR)).unsqueeze(1)
    grad[:, :-1].addcmul_(beyond, g_left.unsqueeze(1))
    grad.mul_(size - FLOOR)
    return torch.cat((grad.flatten(0, 1), torch.addcmul(here[1:] * g_d[0], here[:-1], g_d[1])))
