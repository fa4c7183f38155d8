"""Monotone rational-quadratic splines with linear tails: value, inverse, log-derivative, and slopes through points.

On a bin from (x_0, y_0) to (x_1, y_1) with slopes d_0, d_1 at its ends and secant slope s, in
xi = (x - x_0) / (x_1 - x_0),

    (y - y_0) / (y_1 - y_0) = (s xi^2 + d_0 xi (1 - xi)) / (s + t xi (1 - xi)),   t = d_0 + d_1 - 2 s,

which rises for any positive slopes; beyond the outer knots the spline is a straight line. Everything differentiates in
knots, values, slopes and the argument, borders of bins included. Bins are found by comparing and summing, and the
formula of the inverse's root is chosen elementwise, so that all of it exports.

References:
    Gregory and Delbourgo (1982), Piecewise rational quadratic interpolation to monotonic data, IMA Journal of Numerical
    Analysis 2; Durkan, Bekasov, Murray and Papamakarios (2019), Neural spline flows, NeurIPS.
"""

import torch
from jaxtyping import Float
from torch import Tensor

Points = Float[Tensor, "... J"]  # J = K + 1 knots of K bins


def spline(
    x: Float[Tensor, "..."], knots: Points, values: Points, slopes: Points
) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
    """The spline y(x) and log dy/dx.

    Args:
        x: any numbers; their shape broadcasts against the leading dimensions of the points.
        knots: increasing, `[..., K + 1]`.
        values: at the knots, increasing, `[..., K + 1]`.
        slopes: at the knots, positive, `[..., K + 1]`.

    Example:
        >>> points = torch.tensor([[-1.0, 0.0, 2.0], [-2.0, 0.0, 1.0], [3.0, 1.0, 0.5]])
        >>> y, log_slope = spline(torch.tensor([-2.0, 0.0, 1.0]), *points)
        >>> y
        tensor([-5.0000,  0.0000,  0.6000])
    """
    x_0, x_1, y_0, y_1, d_0, d_1 = _bin(x, knots, knots, values, slopes)
    inside = torch.clamp(x, x_0, x_1)
    width, height = x_1 - x_0, y_1 - y_0
    eta, log_slope = segment((inside - x_0) / width, height / width, d_0, d_1)
    return y_0 + height * eta + torch.where(x < x_0, d_0, d_1) * (x - inside), log_slope


def inverse(
    y: Float[Tensor, "..."], knots: Points, values: Points, slopes: Points
) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
    """The x with y(x) = y, and log dy/dx there; arguments as those of `spline`."""
    x_0, x_1, y_0, y_1, d_0, d_1 = _bin(y, values, knots, values, slopes)
    inside = torch.clamp(y, y_0, y_1)
    width, height = x_1 - x_0, y_1 - y_0
    s = height / width
    xi = inverse_segment((inside - y_0) / height, s, d_0, d_1)
    _, log_slope = segment(xi, s, d_0, d_1)
    return x_0 + width * xi + (y - inside) / torch.where(y < y_0, d_0, d_1), log_slope


def segment(
    xi: Float[Tensor, "..."], s: Float[Tensor, "..."], d_0: Float[Tensor, "..."], d_1: Float[Tensor, "..."]
) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
    """Within one bin: the share of its height at the share xi of its width, and the log of the spline's slope."""
    rest = 1 - xi
    denominator = torch.addcmul(s, torch.add(d_0 + d_1, s, alpha=-2), xi * rest)
    rise = torch.addcmul(s * xi, d_0, rest)
    slope = torch.addcmul(rest * rise, xi, torch.addcmul(s * rest, d_1, xi))
    ratio = s / denominator
    return xi * rise / denominator, torch.log(slope * ratio * ratio)


def inverse_segment(
    eta: Float[Tensor, "..."], s: Float[Tensor, "..."], d_0: Float[Tensor, "..."], d_1: Float[Tensor, "..."]
) -> Float[Tensor, "..."]:
    """Within one bin: the share xi of its width at which the spline reaches the share eta of its height."""
    # a xi^2 + b xi + c = 0 with a = s - b and c = -s eta. Where b < 0, b + root would cancel.
    b = d_0 - eta * (d_0 + d_1 - 2 * s)
    size = torch.where(b < 0, -b, b)
    discriminant = b * b + 4 * s * eta * (s - b)  # the square of a positive slope, but for rounding
    q = size + torch.sqrt(discriminant.clamp(min=torch.finfo(eta.dtype).tiny))
    xi = torch.where(b < 0, q / (2 * (s + size)), 2 * s * eta / q)
    return xi - (xi - xi.clamp(0, 1)).detach()  # rounding may go past an end, whose gradient counts


def mean_slopes(knots: Points, values: Points) -> Points:
    """Slopes for a spline through given points: at inner knots a mean of the two secants', at outer knots the secant's.

    The mean is geometric, each secant weighted by the other's width: positive and of second order. The outer secants
    make the straight tails run through the last two points.

    References:
        Delbourgo and Gregory (1985), The determination of derivative parameters for a monotonic rational quadratic
        interpolant, IMA Journal of Numerical Analysis 5.
    """
    width = knots.diff(dim=-1)
    secant = values.diff(dim=-1) / width
    log_secant = torch.log(secant)
    left, right = width[..., :-1], width[..., 1:]
    inner = torch.exp((right * log_secant[..., :-1] + left * log_secant[..., 1:]) / (left + right))
    return torch.cat((secant[..., :1], inner, secant[..., -1:]), dim=-1)


def _bin(at: Tensor, edges: Tensor, *points: Tensor) -> list[Tensor]:
    """Left and right ends, of each of the points, of the bin between whose edges `at` lies, or of the nearest."""
    number = (at.unsqueeze(-1) >= edges[..., 1:-1]).sum(-1)
    inside = number.unsqueeze(-1) == torch.arange(edges.shape[-1] - 1, device=at.device)
    # By gather gradients would be scattered: in no fixed order on CUDA, and torch 2.13's compiler reads them too early.
    return [torch.where(inside, end, 0.0).sum(-1) for y in points for end in (y[..., :-1], y[..., 1:])]
