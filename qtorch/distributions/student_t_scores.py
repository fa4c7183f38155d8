"""Normal scores as Student-t scores of the same probability, and back, from a table where all have one df.

A cross-section's history has millions of scores, and a quantile takes microseconds. The map is odd; in asinh(z / 3) it
is smooth for every df, and both ways follow Hermite's cubics through 1,025 points with exact slopes: to 2e-11 relative
there and, for df from 2 to 1e12, to 2e-8 back. Gradients are those of the cubics. Scores are kept within 8.2, next to
which a float64 mass is 1.
"""

import math

import torch
from jaxtyping import Float64
from torch import Tensor

from qtorch.distributions.cumulative import ndtr
from qtorch.distributions.student_t_functions import t_cdf, t_icdf, t_log_prob

Double = Float64[Tensor, "..."]

FARTHEST = 8.2
_BINS, _SCALE = 1024, 3.0


def to_student_t(s: Double, df: Double) -> Double:
    """The z with T_df(z) = Phi(s)."""
    size = s.abs().clamp(max=FARTHEST)
    if df.numel() == 1:
        nodes = torch.linspace(0, FARTHEST, _BINS + 1, dtype=torch.float64, device=s.device)
        z = -t_icdf(ndtr(-nodes), df.reshape(1))
        slope = torch.exp(_log_normal(nodes) - t_log_prob(z, df.reshape(1))) / torch.sqrt(_SCALE**2 + z * z)
        z = _SCALE * torch.sinh(_interpolate(size * (_BINS / FARTHEST), torch.asinh(z / _SCALE), slope, FARTHEST))
    else:
        z = -t_icdf(ndtr(-size), df)
    return torch.where(s < 0, -z, z)


def to_normal(z: Double, df: Double) -> Double:
    """The s with Phi(s) = T_df(z)."""
    if df.numel() == 1:
        last = torch.asinh(-t_icdf(ndtr(torch.full_like(df.reshape(1), -FARTHEST)), df.reshape(1)) / _SCALE)
        a = last * torch.linspace(0, 1, _BINS + 1, dtype=torch.float64, device=z.device)
        node = _SCALE * torch.sinh(a)
        s = -torch.special.ndtri(t_cdf(-node, df.reshape(1)))
        slope = torch.exp(t_log_prob(node, df.reshape(1)) - _log_normal(s)) * torch.sqrt(_SCALE**2 + node * node)
        place = (torch.asinh(z.abs() / _SCALE) * (_BINS / last)).clamp(max=float(_BINS))
        s = _interpolate(place, s, slope, last)
    else:
        s = -torch.special.ndtri(t_cdf(-z.abs(), df)).clamp(min=-FARTHEST)
    return torch.where(z < 0, -s, s)


def _interpolate(place: Double, values: Double, slopes: Double, length: Double | float) -> Double:
    """Hermite's cubic at places counted in bins, through even nodes of values and slopes over a length."""
    low = place.detach().floor().clamp(max=_BINS - 1).long()
    u, step = place - low, length / _BINS
    rise, s0, s1 = values.diff(), step * slopes[:-1], step * slopes[1:]
    # Coefficients before places: four numbers of each are gathered, where the cubic's own would be six operations more.
    cubic = torch.stack((values[:-1], s0, 3 * rise - 2 * s0 - s1, s0 + s1 - 2 * rise), dim=-1)
    c0, c1, c2, c3 = cubic[low].unbind(-1)
    return c0 + u * (c1 + u * (c2 + u * c3))


def _log_normal(s: Double) -> Double:
    return -0.5 * s * s - 0.5 * math.log(2 * math.pi)
