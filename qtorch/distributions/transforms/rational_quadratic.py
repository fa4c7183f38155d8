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

    What a CPU spends its time on in a flow is memory that no cache holds and no page of which is there yet, and a chain
    of small operations. Here every pass over all bins writes where the last one did, and by formula there are half as
    many small operations as torch's autograd makes. Masks are numbers, because torch multiplies several times as fast
    as it selects.
    """

    @staticmethod
    def forward(x: Tensor, parameters: Tensor, bound: float, inverse: bool) -> tuple[Tensor, ...]:
        inside = x.clamp(-bound, bound)
        K = (len(parameters) + 1) // 3
        share, floor = _shares(K, bound)
        p = torch.softmax(parameters[: 2 * K].unflatten(0, (2, K)), 1)
        beyond = _beyond((inside + bound).mul_(1 / share), p[int(inverse)], floor / share)
        below, own = _select(p, beyond)
        d = _slopes(parameters[2 * K :], beyond)
        (x_0, y_0), (width, height) = _box(below, own, beyond, bound, share, floor)
        d_0, d_1 = d
        s = height / width
        if inverse:
            xi = inverse_segment((inside - y_0).div_(height), s, d_0, d_1)
            y = torch.addcmul(x_0, width, xi)
            ladj = segment(xi, s, d_0, d_1)[1].neg_()
        else:
            xi = (inside - x_0).div_(width)
            eta, ladj = segment(xi, s, d_0, d_1)
            y = torch.addcmul(y_0, height, eta)
        return y.add_(x - inside), ladj, xi, below, own, d, p, beyond

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, float, bool], output: tuple[Tensor, ...]) -> None:
        x, _, ctx.bound, ctx.inverse = inputs
        ctx.mark_non_differentiable(*output[2:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, *output[2:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        x, xi, below, own, d, p, beyond = ctx.saved_tensors
        g_y, g_l = (torch.zeros_like(x) if grad is None else grad for grad in grads[:2])
        bound, (d_0, d_1) = ctx.bound, d
        share, floor = _shares(len(beyond), bound)
        width, height = own * share + floor
        s, rest = height / width, 1 - xi
        xi_2, q = xi * xi, xi * rest
        twist = rest - xi
        bend = d_0 + d_1 - 2 * s
        D = torch.addcmul(s, bend, q)  # the denominator; A is the slope's numerator
        over_D = torch.reciprocal(D)
        eta = torch.addcmul(s * xi_2, d_0, q).mul_(over_D)
        A = torch.addcmul(d_1 * xi_2, d_0, rest * rest).addcmul_(s, q, value=2)
        over_A = torch.reciprocal(A)
        rise = height * s * A * over_D * over_D  # dy / d xi
        l_xi = (d_1 * xi).addcmul_(d_0, rest, value=-1).addcmul_(s, twist).mul_(over_A)
        l_xi = l_xi.addcmul_(bend * twist, over_D, value=-1).mul_(2)
        if ctx.inverse:
            # x(y) moves with the parameters as -dy / (dy/dx), and its ladj is minus that of y(x) at x(y).
            along = (g_y * width - g_l * l_xi) / rise
            g_x = torch.where(x.abs() <= bound, along, g_y)
            g_y, g_l = -along, -g_l
            g_xi = torch.addcmul(g_y * rise, g_l, l_xi)
        else:
            g_xi = torch.addcmul(g_y * rise, g_l, l_xi)
            g_x = torch.where(x.abs() <= bound, g_xi / width, g_y)
        g_eta, two_q = g_y * height * over_D, 2 * q * over_D
        flat = 1 - 2 * q
        g_s = g_eta * (xi_2 - eta * flat) + 2 * g_l * (q * over_A + 1 / s - flat * over_D)
        g_0 = g_eta * q * (1 - eta) + g_l * (rest * rest * over_A - two_q)
        g_1 = g_l * (xi_2 * over_A - two_q) - g_eta * q * eta
        g_left = torch.stack((-g_xi / width, g_y))
        g_mine = torch.stack((-(g_xi * xi + g_s * s) / width, torch.addcdiv(g_y * eta, g_s, width)))
        # The share of a knot that is clipped: exp(softclip) has the slope d (1 - |log d| / bound)^2.
        g_d = torch.stack((g_0, g_1)) * d * (1 - torch.log(d).abs() / MAX_LOG_SLOPE).square()
        return g_x, _bin_backward(g_left.mul_(share), g_mine.mul_(share), g_d, below, own, p, beyond), None, None


def _shares(K: int, bound: float) -> tuple[float, float]:
    """Of K bins: their sizes are share p + floor, p a softmax."""
    return 2 * bound * (1 - K * FLOOR), 2 * bound * FLOOR


def _beyond(at: Tensor, p: Tensor, floor: float) -> Tensor:
    """1 where a value is beyond the left end of a bin, `[K, ...]`; ends are sums of p + floor."""
    beyond = at.new_ones(p.shape)
    end = torch.zeros_like(at)
    for k in range(1, len(p)):
        end = end.add_(p[k - 1])
        at = at.sub_(floor)
        beyond[k] = at >= end
    return beyond


def _select(p: Tensor, beyond: Tensor) -> tuple[Tensor, Tensor]:
    """Of widths and heights, `[2, ...]`: the sum of p over the bins before that of a value, and its own p."""
    below, own = torch.zeros_like(p[:, 0]), p[:, 0].clone()
    for k in range(1, p.shape[1]):
        below.addcmul_(beyond[k], p[:, k - 1])
        own.lerp_(p[:, k], beyond[k])  # weights of 0 and 1 are exact
    return below, own


def _slopes(parameters: Tensor, beyond: Tensor) -> Tensor:
    """The slopes at the ends of a value's bin, `[2, ...]`."""
    d = parameters.new_zeros(2, *parameters.shape[1:])
    d[1] = parameters[0]
    for k in range(1, len(beyond)):
        d[0].lerp_(parameters[k - 1], beyond[k])
    for k in range(1, len(parameters)):
        d[1].lerp_(parameters[k], beyond[k])
    d[1].addcmul_(d[1], beyond[-1], value=-1)
    return soft_clip(d, MAX_LOG_SLOPE).exp_()


def _box(
    below: Tensor, own: Tensor, beyond: Tensor, bound: float, share: float, floor: float
) -> tuple[Tensor, Tensor]:
    """The left end and the size of a value's bin, of widths and heights `[2, ...]`."""
    before = beyond.sum(0).sub_(1).mul_(floor).sub_(bound)
    return torch.add(before, below, alpha=share), own * share + floor


def _bin_backward(
    g_left: Tensor, g_mine: Tensor, g_d: Tensor, below: Tensor, own: Tensor, p: Tensor, beyond: Tensor
) -> Tensor:
    """Gradients of the parameters from those of the bin's left ends, sizes (in units of p) and unclipped log-slopes."""
    K = len(beyond)
    grad = torch.empty(3 * K - 1, *beyond.shape[1:], dtype=p.dtype, device=p.device)
    sizes, slopes = grad[: 2 * K].unflatten(0, (2, K)), grad[2 * K :]
    # Of a softmax p the gradient is p (g - sum(p g)), here with g = g_left, g_mine, 0 before, at and after the bin.
    dot = torch.addcmul(g_left * below, g_mine, own)
    sizes.copy_(dot.neg_().unsqueeze(1).expand_as(sizes))
    sizes.addcmul_(beyond, g_mine.unsqueeze(1))
    sizes[:, :-1].addcmul_(beyond[1:], (g_left - g_mine).unsqueeze(1))
    sizes.mul_(p)
    # The slope at knot k is right of bin k - 1 and left of bin k.
    slopes.copy_(g_d[1].expand_as(slopes)).mul_(beyond[:-1])
    slopes.addcmul_(beyond[1:], g_d[0] - g_d[1])
    slopes[:-1].addcmul_(beyond[2:], g_d[0], value=-1)
    return grad
