"""The monotone rational-quadratic spline of neural spline flows, from unconstrained parameters."""

import math
from typing import Any

import torch
import torch.nn.functional as F
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
        if x.dtype != parameters.dtype:
            dtype = torch.promote_types(x.dtype, parameters.dtype)
            x, parameters = x.to(dtype), parameters.to(dtype)
        if x.shape != parameters.shape[1:]:
            shape = torch.broadcast_shapes(x.shape, parameters.shape[1:])
            x, parameters = x.expand(shape), expand_first(parameters, shape)
        if torch.is_grad_enabled():
            return _Spline.apply(x, parameters, self.bound, inverse)
        y, ladj, _ = _evaluate(x, parameters, self.bound, inverse)
        return y, ladj


class _Spline(torch.autograd.Function):
    """Value and ladj of the spline or its inverse, with gradients by formula.

    What a CPU spends its time on in a flow is memory that no cache holds and no page of which is there yet, and a chain
    of small operations. Here every pass over all bins writes where the last one did, and by formula there are half as
    many small operations as torch's autograd makes. Masks are numbers, because torch multiplies several times as fast
    as it selects.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, parameters: Tensor, bound: float, inverse: bool) -> tuple[Tensor, Tensor]:
        y, ladj, more = _evaluate(x, parameters, bound, inverse)
        ctx.bound, ctx.inverse = bound, inverse
        ctx.second_major = parameters.ndim > 1 and parameters.stride(1) > parameters.stride(0)
        ctx.second_major &= not torch.compiler.is_compiling()  # which would walk the bins in the order of that memory
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, *more)
        return y, ladj

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        x, xi, below, own, d, p, beyond = ctx.saved_tensors
        bound, (d_0, d_1) = ctx.bound, d
        g_y, g_l = (torch.zeros_like(x) if grad is None else grad for grad in grads)
        g_l = g_l * (x.abs() < bound)
        share, floor = _shares(len(beyond), bound)
        width, height = own * share + floor
        s, rest = height / width, 1 - xi
        xi_2, rest_2, q, twist = xi * xi, rest * rest, xi * rest, rest - xi
        bend = torch.add(d_0 + d_1, s, alpha=-2)
        over_D = torch.addcmul(s, bend, q).reciprocal_()  # D is the denominator, A the slope's numerator
        A = torch.addcmul(d_1 * xi_2, d_0, rest_2).addcmul_(s, q, value=2)
        eta = torch.addcmul(s * xi_2, d_0, q).mul_(over_D)
        rise = (over_D * over_D).mul_(s).mul_(A).mul_(height)  # dy / d xi
        u, v = (g_l * over_D).mul_(2), g_l / A
        # Of ladj by xi.
        g_bend = torch.addcmul(d_1 * xi, d_0, rest, value=-1).addcmul_(s, twist).mul_(v).mul_(2)
        g_bend.addcmul_(u, bend.mul_(twist), value=-1)
        if ctx.inverse:
            # x(y) moves with the parameters as -dy / (dy/dx), and its ladj is minus that of y(x) at x(y).
            along = (g_y * width).sub_(g_bend).div_(rise)
            g_x = torch.where(x.abs() <= bound, along, g_y)
            g_y, g_l, u, v, g_bend = -along, -g_l, -u, -v, -g_bend
            g_xi = g_bend.addcmul_(g_y, rise)
        else:
            g_xi = g_bend.addcmul_(g_y, rise)
            g_x = torch.where(x.abs() <= bound, g_xi / width, g_y)
        g_eta = (g_y * height).mul_(over_D)
        both = torch.addcmul(u, g_eta, eta)
        middle = both * q
        g_s = (g_eta * xi_2).sub_(both).add_(torch.addcmul(middle, v, q), alpha=2).add_(g_l / s, alpha=2)
        g_0 = torch.addcmul(g_eta * q, v, rest_2).sub_(middle)
        g_1 = (v * xi_2).sub_(middle)
        g_left = torch.stack((-g_xi / width, g_y))
        g_mine = torch.stack((-torch.addcmul(g_xi * xi, g_s, s) / width, torch.addcdiv(g_y * eta, g_s, width)))
        # The share of a knot that is clipped: exp(softclip) has the slope d (1 - |log d| / bound)^2.
        g_d = torch.stack((g_0, g_1)) * d * (1 - torch.log(d).abs() / MAX_LOG_SLOPE).square()
        grad = _empty(3 * len(beyond) - 1, x, ctx.second_major)
        _bin_backward(grad, g_left.mul_(share), g_mine.mul_(share), g_d, below, own, p, beyond)
        return g_x, grad, None, None


def _evaluate(x: Tensor, parameters: Tensor, bound: float, inverse: bool) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """Value, ladj, and what their gradients need."""
    inside = x.clamp(-bound, bound)
    K = (len(parameters) + 1) // 3
    share, floor = _shares(K, bound)
    p = _softmax(parameters[: 2 * K].unflatten(0, (2, K)))
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
        xi = (inside - x_0).div_(width).clamp_(0, 1)  # rounding may go past an end, where a slope may not be positive
        eta, ladj = segment(xi, s, d_0, d_1)
        y = torch.addcmul(y_0, height, eta)
    return y.add_(x - inside), ladj.mul_(x.abs() < bound), (xi, below, own, d, p, beyond)


def _shares(K: int, bound: float) -> tuple[float, float]:
    """Of K bins: their sizes are share p + floor, p a softmax."""
    return 2 * bound * (1 - K * FLOOR), 2 * bound * FLOOR


def _softmax(x: Tensor) -> Tensor:
    """Over the second dimension, in memory as x is; torch's own makes a copy first of what is not contiguous."""
    p = (x - x.amax(1, keepdim=True)).exp_()
    return p.div_(p.sum(1, keepdim=True))


def _empty(P: int, x: Tensor, second_major: bool) -> Tensor:
    """Room for `[P, ...]`, in memory with P second or first."""
    if second_major:
        return x.new_empty(x.shape[0], P, *x.shape[1:]).transpose(0, 1)
    return x.new_empty(P, *x.shape)


def _beyond(at: Tensor, p: Tensor, floor: float) -> Tensor:
    """1 where a value is beyond the left end of a bin, `[K, ...]`; ends are sums of p + floor."""
    beyond = at.new_ones(p.shape)
    beyond[1:] = at >= torch.cumsum(p[:-1] + floor, 0)
    return beyond


def _select(p: Tensor, beyond: Tensor) -> tuple[Tensor, Tensor]:
    """Of widths and heights, `[2, ...]`: the sum of p over the bins before that of a value, and its own p."""
    if torch.compiler.is_compiling():
        return (beyond[1:] * p[:, :-1]).sum(1), (_only(beyond) * p).sum(1)
    each = p.unbind(1)
    below, own = torch.zeros_like(each[0]), each[0].clone()
    for before, mine, is_beyond in zip(each, each[1:], beyond[1:].unbind(), strict=False):
        below.addcmul_(is_beyond, before)
        own.lerp_(mine, is_beyond)  # weights of 0 and 1 are exact
    return below, own


def _only(beyond: Tensor) -> Tensor:
    """1 in a value's bin, `[K, ...]`.

    Sums with it are what a compiler makes one loop of. A chain of passes that write in place, which is fast without
    one, grows in its hands with each: four layers took it minutes.
    """
    return torch.cat((beyond[:-1] - beyond[1:], beyond[-1:]))


def _slopes(raw: Tensor, beyond: Tensor) -> Tensor:
    """The slopes at the ends of a value's bin, `[2, ...]`."""
    if torch.compiler.is_compiling():
        at_knots = F.pad(raw, (0, 0) * (raw.ndim - 1) + (1, 1))
        d = (_only(beyond) * torch.stack((at_knots[:-1], at_knots[1:]))).sum(1)
        return soft_clip(d, MAX_LOG_SLOPE).exp()
    d = raw.new_zeros(2, *raw.shape[1:])
    d[1] = raw[0]
    masks = beyond[1:].unbind()
    for k, is_beyond in enumerate(masks[:-1]):
        d.lerp_(raw[k : k + 2], is_beyond)
    d[0].lerp_(raw[-1], masks[-1])
    d[1].mul_(1 - masks[-1])
    return soft_clip(d, MAX_LOG_SLOPE).exp_()


def _box(below: Tensor, own: Tensor, beyond: Tensor, bound: float, share: float, floor: float) -> tuple[Tensor, Tensor]:
    """The left end and the size of a value's bin, of widths and heights `[2, ...]`."""
    before = beyond.sum(0).sub_(1).mul_(floor).sub_(bound)
    return torch.add(before, below, alpha=share), own * share + floor


def _bin_backward(
    grad: Tensor, g_left: Tensor, g_mine: Tensor, g_d: Tensor, below: Tensor, own: Tensor, p: Tensor, beyond: Tensor
) -> None:
    """Fills in those of the parameters from those of the bin's left ends, sizes (in p) and unclipped log-slopes."""
    K = len(beyond)
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
