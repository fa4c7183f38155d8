"""The continuous ranked probability score: closed forms where they exist, quadrature of pinball losses where not."""

import math
from collections.abc import Callable
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, Exponential, Laplace, MixtureSameFamily, Normal
from torch.distributions import StudentT as TorchStudentT

from qtorch.distributions import (
    Affine,
    Empirical,
    GeneralizedPareto,
    Mixture,
    QuantileSpline,
    SplicedTails,
    StudentT,
    partial_mean,
)
from qtorch.distributions.student_t_functions import t_mean_abs
from qtorch.distributions.two_piece_student_t import TwoPieceStudentT
from qtorch.risk.quadrature import integrate, unit_rule
from qtorch.risk.scores.observed import observed

ClosedForm = Callable[[Any, Tensor], Tensor]
_EDGE = 2**-52  # quantiles are asked for this far inside (0, 1), where those of torch's classes are finite


def crps(distribution: Distribution, outcomes: Tensor, mask: Tensor | None = None) -> Tensor:
    """Continuous ranked probability score: int (F(x) - 1{y <= x})^2 dx = E|X - y| - E|X - X'| / 2.

    Closed forms for the normal, mixtures of normals, Student's t and its skewed ones, the Laplace, exponential,
    generalised Pareto and empirical laws and affine maps of them; of spliced tails and quantile splines too, but for
    quadrature between their kinks, to 1e-11; others by quadrature as `quantile_weighted_crps` with weight one. A closed
    form for another class is registered with `register_crps`.

    Args:
        distribution: forecast, batch shape `[...]`, without event dimension, of finite mean.
        outcomes: realised, in the unit of the forecast; they broadcast against the batch shape.
        mask: which outcomes count; all by default.

    Returns:
        A loss for each element in the unit of the outcomes; NaN where an outcome or forecast is, and outside the mask.

    References:
        Gneiting and Raftery (2007), Strictly proper scoring rules, prediction, and estimation, JASA 102, equation 21.
        Jordan, Krüger and Lerch (2019), Evaluating probabilistic forecasts with scoringRules, Journal of Statistical
        Software 90, appendix A, for the closed forms; Friederichs and Thorarinsdottir (2012), Forecast verification for
        extreme value distributions, Environmetrics 23.

    Example:
        >>> normal = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 1.0)
        >>> round(crps(normal, torch.zeros(())).item(), 6)  # (sqrt(2) - 1) / sqrt(pi)
        0.233695
    """
    there, (y,) = observed(mask, outcomes)
    return torch.where(there, _crps(distribution, y), torch.nan)


def quantile_weighted_crps(
    distribution: Distribution, outcomes: Tensor, weight: Callable[[Tensor], Tensor], mask: Tensor | None = None
) -> Tensor:
    """CRPS with an emphasis: int_0^1 weight(p) 2 (1{y <= Q(p)} - p)(Q(p) - y) dp.

    Double exponential quadrature on each side of the outcome. Measured at weight one against closed forms, relative:
    1e-14 for smooth densities (Student's t of 1.5 and more degrees of freedom, normal, generalised Pareto), 1e-7 for a
    skewed t's jump of curvature at the mode, 6e-6 for the Laplace law's kink.

    Args:
        distribution: forecast, batch shape `[...]`, with `cdf` and `icdf`.
        outcomes: realised, in the unit of the forecast; they broadcast against the batch shape.
        weight: not negative, of left-tail mass: `lambda p: (1 - p) ** 2` for the left tail, `p ** 2` for the right,
            `(2 * p - 1) ** 2` for both.
        mask: which outcomes count; all by default.

    Returns:
        A loss for each element in the unit of the outcomes; NaN where an outcome or forecast is, and outside the mask.

    References:
        Gneiting and Ranjan (2011), Comparing density forecasts using threshold- and quantile-weighted scoring rules,
        Journal of Business and Economic Statistics 29, equation 17 and table 4.
    """
    there, (y,) = observed(mask, outcomes)
    return torch.where(there, _by_quadrature(distribution, y, weight), torch.nan)


def register_crps(kind: type[Distribution]) -> Callable[[ClosedForm], ClosedForm]:
    """Registers a closed form of `crps`, of a distribution and outcomes without NaN, for a class of distributions."""
    return _crps.register(kind)


def _by_quadrature(distribution: Distribution, y: Tensor, weight: Callable[[Tensor], Tensor]) -> Tensor:
    """Twice the pinball losses over left-tail masses below and above that of the outcome."""
    y = y.double()
    # The integrand vanishes at the outcome's mass, which may be taken as a constant.
    below = distribution.cdf(y).detach().double()
    above = 1 - below

    def losses(s: Tensor) -> Tensor:
        # What lies beyond the clamps does not count, being of the order of mass times quantile.
        p, rest = (below * s).clamp(min=_EDGE), above * s
        q = (1 - rest).clamp(max=1 - _EDGE)
        left = below * weight(p) * p * (y - distribution.icdf(p))
        return 2 * left + 2 * above * weight(q) * rest * (distribution.icdf(q) - y)

    nodes, weights = (x.to(y.device) for x in unit_rule())
    return integrate(losses, nodes, weights, below.shape)


@singledispatch
def _crps(distribution: Distribution, y: Tensor) -> Tensor:
    return _by_quadrature(distribution, y, torch.ones_like)


@_crps.register
def _normal(distribution: Normal, y: Tensor) -> Tensor:
    z = (y - distribution.loc) / distribution.scale
    return distribution.scale * (_absolute_normal(z, torch.ones_like(z)) - 1 / math.sqrt(math.pi))


@_crps.register
def _laplace(distribution: Laplace, y: Tensor) -> Tensor:
    z = ((y - distribution.loc) / distribution.scale).abs()
    return distribution.scale * (z + torch.exp(-z) - 0.75)


@_crps.register
def _exponential(distribution: Exponential, y: Tensor) -> Tensor:
    z = y * distribution.rate
    return (z.abs() + 2 * torch.expm1(-z.clamp(min=0)) + 0.5) / distribution.rate


@_crps.register
def _torch_student_t(distribution: TorchStudentT, y: Tensor) -> Tensor:
    return _crps(StudentT(distribution.df, distribution.loc, distribution.scale, validate_args=False), y)


@_crps.register
def _student_t(distribution: TwoPieceStudentT, y: Tensor) -> Tensor:
    """E|X - X'| / 2 = int F (1 - F) from the two halves, each Student's t of another scale and mass."""
    nu, _, a, b = distribution._pieces()  # a and b the scales of the sides
    once = t_mean_abs(nu) / 2  # int_-inf^0 F of the t
    twice = once - _t_half_difference(nu) / 2  # int_-inf^0 F^2
    left, right = a / (a + b), b / (a + b)
    half = a * (2 * left * once - 4 * left**2 * twice) + b * (2 * right * once - 4 * right**2 * twice)
    return _absolute(distribution, y) - half


@_crps.register
def _generalized_pareto(distribution: GeneralizedPareto, y: Tensor) -> Tensor:
    """Friederichs and Thorarinsdottir (2012), equation 10; for a concentration below 1."""
    xi = distribution.concentration.double()
    return _absolute(distribution, y) - distribution.scale.double() / ((1 - xi) * (2 - xi))


@_crps.register(QuantileSpline)
@_crps.register(SplicedTails)
def _piecewise(distribution: QuantileSpline | SplicedTails, y: Tensor) -> Tensor:
    return _absolute(distribution, y) - distribution._half_difference()


@_crps.register
def _torch_mixture(distribution: MixtureSameFamily, y: Tensor) -> Tensor:
    parts, mixing = distribution.component_distribution, distribution.mixture_distribution
    if isinstance(parts, Normal) and isinstance(mixing, Categorical):
        return _normal_mixture(mixing.probs, parts, y)
    return _by_quadrature(distribution, y, torch.ones_like)


@_crps.register
def _mixture(distribution: Mixture, y: Tensor) -> Tensor:
    if isinstance(distribution.components, Normal):
        return _normal_mixture(distribution.weights, distribution.components, y)
    return _by_quadrature(distribution, y, torch.ones_like)


def _normal_mixture(w: Tensor, parts: Normal, y: Tensor) -> Tensor:
    """Grimit, Gneiting, Berrocal and Johnson (2006), equation 5."""
    m, s = parts.loc, parts.scale
    first = (w * _absolute_normal(y.unsqueeze(-1) - m, s)).sum(-1)
    spread = torch.sqrt(s.unsqueeze(-1) ** 2 + s.unsqueeze(-2) ** 2)
    pair = _absolute_normal(m.unsqueeze(-1) - m.unsqueeze(-2), spread)
    return first - 0.5 * (w.unsqueeze(-1) * w.unsqueeze(-2) * pair).sum((-2, -1))


@_crps.register
def _affine(distribution: Affine, y: Tensor) -> Tensor:
    return distribution.scale * _crps(distribution.base, (y - distribution.loc) / distribution.scale)


@_crps.register
def _empirical(distribution: Empirical, y: Tensor) -> Tensor:
    x, w = distribution.values.nan_to_num(), distribution.weights
    if w is None:
        w = ~distribution.values.isnan() / distribution.count.unsqueeze(-1)
    return (w * (x - y.unsqueeze(-1)).abs()).sum(-1) - half_difference(x, w)


def half_difference(x: Tensor, w: Tensor) -> Tensor:
    """E|X - X'| / 2 of the law with masses w at the ascending values x, in the last dimension, in one pass."""
    return (w * x * (2 * w.cumsum(-1) - w - 1)).sum(-1)


def _absolute(distribution: Distribution, y: Tensor) -> Tensor:
    """E|X - y| by the partial mean."""
    y = y.double()
    below = y * distribution.cdf(y) - partial_mean(distribution, y)  # E(y - X)+
    return 2 * below + distribution.mean.double() - y


def _absolute_normal(m: Tensor, s: Tensor) -> Tensor:
    """E|X| of a normal of mean m and standard deviation s."""
    z = m / s
    return 2 * s * torch.exp(-0.5 * z * z) / math.sqrt(2 * math.pi) + m * torch.erf(z / math.sqrt(2))


def _t_half_difference(nu: Tensor) -> Tensor:
    """E|T - T'| / 2 of the standard Student-t: 2 sqrt(nu) / (nu - 1) B(1/2, nu - 1/2) / B(1/2, nu/2)^2."""

    def log_beta(b: Tensor) -> Tensor:
        return math.lgamma(0.5) + torch.lgamma(b) - torch.lgamma(b + 0.5)

    return 2 * torch.sqrt(nu) / (nu - 1) * torch.exp(log_beta(nu - 0.5) - 2 * log_beta(nu / 2))
