"""Log-likelihoods of GARCH models with their scores: a recursion forwards, its adjoint backwards, sums over time."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from qtorch.models.garch.recursion import fold, scan, scan_back
from qtorch.models.garch.specification import Errors, Parameters

Folded = Float64[Tensor, "L J N"]
Each = Float64[Tensor, " N"]

_BACKCAST, _DECAY = 75, 0.94


@dataclass(frozen=True, eq=False)
class Sample:
    """Series in blocks, as of `qtorch.models.garch.recursion`, from their first session on.

    Attributes:
        returns: 0 after the last.
        inside: 1 where there is a return, 0 after the last; None where all series have as many as there are places.
        count: returns of each series.
        mean: of each series.
        variance: mean squared deviation from it.
        backcast: what squared residual and variance are taken to have been before the first session.
    """

    returns: Folded
    inside: Folded | None
    count: Int64[Tensor, " N"]
    mean: Each
    variance: Each
    backcast: Each

    @classmethod
    def of(cls, returns: Float64[Tensor, "T N"], count: Int64[Tensor, " N"]) -> "Sample":
        """The sample of series whose first `count` places hold returns; what lies after them does not matter."""
        t = torch.arange(len(returns), device=returns.device).unsqueeze(1)
        there = t < count
        held = torch.where(there, returns, 0.0)
        mean = held.sum(0) / count
        squares = torch.where(there, held - mean, 0.0) ** 2
        folded = fold(held)
        full = bool((count == folded.shape[0] * folded.shape[1]).all())
        return cls(
            folded,
            None if full else fold(there.to(returns.dtype)),
            count,
            mean,
            squares.sum(0) / count,
            backcast(squares, count),
        )

    def take(self, index: Int64[Tensor, " M"]) -> "Sample":
        """The sample of some of the series."""
        inside = None if self.inside is None else self.inside[..., index]
        each = (value[index] for value in (self.count, self.mean, self.variance, self.backcast))
        return Sample(self.returns[..., index], inside, *each)


def backcast(squares: Float64[Tensor, "T N"], count: Int64[Tensor, " N"]) -> Each:
    """The mean of the first 75 squared residuals about the sample mean with weights .94^t, as `arch` has it."""
    first = squares[:_BACKCAST]
    t = torch.arange(len(first), dtype=squares.dtype, device=squares.device).unsqueeze(1)
    weight = torch.where(t < count, _DECAY**t, 0.0)
    return (weight * first).sum(0) / weight.sum(0)


class Variance(NamedTuple):
    """Residuals and their conditional variances.

    Attributes:
        residual: return minus mu.
        negative: its negative part, 0 where it is positive. Minima and maxima vectorise, choices by a mask don't.
        path: variances in L + 1 places a block: `[:-1]` of the residual, `[1:]` of the one after.
    """

    residual: Folded
    negative: Folded
    path: Float64[Tensor, "M J N"]


def conditional_variance(returns: Folded, backcast: Each, theta: Parameters) -> Variance:
    """sigma_t^2 = omega + alpha e_{t-1}^2 + gamma e_{t-1}^2 1{e_{t-1} < 0} + beta sigma_{t-1}^2.

    Before the first session e^2 and sigma^2 are the backcast, half of it from a negative residual.

    References:
        Bollerslev (1986), equation 2; Glosten, Jagannathan and Runkle (1993).
    """
    e = returns - theta.mu
    negative = e.clamp(max=0.0)
    news = torch.addcmul(theta.omega.expand_as(e), e * e, theta.alpha)
    news = torch.addcmul(news, negative * negative, theta.gamma)
    return Variance(e, negative, scan(news, theta.beta, theta.omega + theta.persistence * backcast))


class Terms(NamedTuple):
    """Pieces of each session's log density, from which it and its derivatives are made.

    With Hansen's a and b, y = (b z + a) / d, d = 1 - lambda left of the mode and 1 + lambda right of it, and
    q = 1 + y^2 / (nu - 2), the log density is c + log b - log(sigma^2) / 2 - (nu + 1) / 2 log q. Student's t is the
    case a = 0, b = 1, d = 1; of the normal law all but root and z lack.

    Attributes:
        root: 1 / sigma.
        z: standardised residual.
        v: y / (d q); b (nu + 1) / (nu - 2) times it is minus the derivative in z of the log density. z for the normal.
        y: (b z + a) / d.
        q: 1 + y^2 / (nu - 2).
        constants: of Hansen's law.
    """

    root: Folded
    z: Folded
    v: Folded
    y: Folded | None
    q: Folded | None
    constants: "Constants | None"

    @property
    def factor(self) -> Each | float:
        """What makes v the negative slope of the log density in z."""
        return 1.0 if self.constants is None else self.constants.factor


class Constants(NamedTuple):
    """Hansen's a, b and c with their derivatives in nu and lambda, and b (nu + 1) / (nu - 2).

    References:
        Hansen (1994), equations 10 to 13.
    """

    a: Each
    b: Each
    c: Each
    a_nu: Each
    a_skew: Each
    b_nu: Each
    b_skew: Each
    c_nu: Each
    factor: Each

    @classmethod
    def of(cls, nu: Each, skew: Each) -> "Constants":
        """The constants at some shapes."""
        c = torch.lgamma((nu + 1) / 2) - torch.lgamma(nu / 2) - torch.log(math.pi * (nu - 2)) / 2
        c_nu = (torch.digamma((nu + 1) / 2) - torch.digamma(nu / 2) - 1 / (nu - 2)) / 2
        a_skew = 4 * torch.exp(c) * (nu - 2) / (nu - 1)
        a = a_skew * skew
        a_nu = a * (c_nu + 1 / (nu - 2) - 1 / (nu - 1))
        b = torch.sqrt(1 + 3 * skew**2 - a**2)
        factor = b * (nu + 1) / (nu - 2)
        return cls(a, b, c, a_nu, a_skew, -a * a_nu / b, (3 * skew - a * a_skew) / b, c_nu, factor)


def _terms(variance: Variance, theta: Parameters, errors: Errors) -> Terms:
    root = torch.rsqrt(variance.path[:-1])
    z = variance.residual * root
    if errors == "normal":
        return Terms(root, z, z, None, None, None)
    constants = Constants.of(theta.nu, theta.skew)
    y = v = z
    if errors == "skewed_t":
        from_mode = torch.addcmul(constants.a.expand_as(z), z, constants.b)
        left, right = from_mode.clamp(max=0.0), from_mode.clamp(min=0.0)
        below, above = 1 / (1 - theta.skew), 1 / (1 + theta.skew)
        y = torch.addcmul(left * below, right, above)
        v = torch.addcmul(left * below**2, right, above**2)
    q = torch.addcmul(torch.ones_like(theta.nu).expand_as(z), y * y, 1 / (theta.nu - 2))
    return Terms(root, z, v / q, y, q, constants)


def log_likelihood(sample: Sample, theta: Parameters, errors: Errors) -> Each:
    """The log-likelihood of each series."""
    variance = conditional_variance(sample.returns, sample.backcast, theta)
    return _value(sample, variance, _terms(variance, theta, errors), theta)


def log_likelihood_and_gradient(
    sample: Sample, theta: Parameters, errors: Errors
) -> tuple[Each, Float64[Tensor, "N P"]]:
    """The log-likelihood of each series and its gradient in all `P` = 7 parameters.

    The derivative in a session's variance reaches all later ones through beta; summed backwards by `scan_back` it needs
    one recursion, whatever the number of parameters.
    """
    variance = conditional_variance(sample.returns, sample.backcast, theta)
    terms = _terms(variance, theta, errors)
    value = _value(sample, variance, terms, theta)
    zv = _inside(terms.z * terms.v, sample)
    total = scan_back(_inside(_variance_slope(terms, zv), sample), theta.beta)
    first, later = total[0, 0], total[1:]
    by_residual, by_negative = later * variance.residual, later * variance.negative
    in_mean = _sum(_inside(terms.v * terms.root, sample)) * terms.factor
    mean = in_mean - 2 * (theta.alpha * _sum(by_residual) + theta.gamma * _sum(by_negative))
    alpha = _sum(by_residual * variance.residual) + first * sample.backcast
    gamma = _sum(by_negative * variance.negative) + first * sample.backcast / 2
    beta = _sum(later * variance.path[:-1]) + first * sample.backcast
    nu, skew = _shape_sums(sample, terms, theta, zv)
    return value, torch.stack([mean, _sum(total[:-1]), alpha, gamma, beta, nu, skew], dim=-1)


def scores(sample: Sample, theta: Parameters, errors: Errors) -> Float64[Tensor, "P L J N"]:
    """The derivative of each session's log density in all `P` = 7 parameters, 0 after the last session.

    The derivatives of sigma^2 obey its own recursion with other inputs: 1, e^2, e^2 1{e < 0}, sigma^2, and for mu
    -2 (alpha + gamma 1{e < 0}) e.
    """
    variance = conditional_variance(sample.returns, sample.backcast, theta)
    terms = _terms(variance, theta, errors)
    e, negative, zero = variance.residual, variance.negative, torch.zeros_like(sample.backcast)
    own = _inside(_variance_slope(terms, terms.z * terms.v), sample)
    inputs = (
        (-2 * (theta.alpha * e + theta.gamma * negative), zero),
        (torch.ones_like(e), zero + 1),
        (e * e, sample.backcast),
        (negative * negative, sample.backcast / 2),
        (variance.path[:-1], sample.backcast),
    )
    out = e.new_zeros(7, *e.shape)
    for k, (series, first) in enumerate(inputs):
        torch.mul(scan(series, theta.beta, first)[:-1], own, out=out[k])
    out[0] += _inside(terms.factor * terms.v * terms.root, sample)
    if errors != "normal":
        for k, series in zip((5, 6), _shape_terms(terms, theta), strict=True):
            out[k] = _inside(series, sample)
    return out


def _variance_slope(terms: Terms, zv: Folded) -> Folded:
    """The derivative of a session's log density in its own variance, (factor z v - 1) / (2 sigma^2)."""
    return (zv * terms.factor - 1) * (0.5 * terms.root * terms.root)


def _value(sample: Sample, variance: Variance, terms: Terms, theta: Parameters) -> Each:
    """The log-likelihood."""
    n, log_variance = sample.count.to(theta.mu.dtype), _log_sum(variance.path[:-1], sample)
    if terms.constants is None or terms.q is None:
        return -0.5 * (n * math.log(2 * math.pi) + log_variance + _sum(_inside(terms.z * terms.z, sample)))
    constant = terms.constants.c + torch.log(terms.constants.b)
    return n * constant - 0.5 * (log_variance + (theta.nu + 1) * _log_sum(terms.q, sample))


def _shape_terms(terms: Terms, theta: Parameters) -> tuple[Folded, Folded]:
    """The derivatives of a session's log density in nu and lambda."""
    zero = torch.zeros_like(terms.z)
    if terms.constants is None or terms.q is None or terms.y is None:
        return zero, zero
    nu, c = theta.nu, terms.constants
    v = terms.v * (nu + 1) / (nu - 2)
    by_b = 1 / c.b - v * terms.z
    by_nu = c.c_nu - 0.5 * torch.log(terms.q) + (nu + 1) / (2 * (nu - 2)) * (1 - 1 / terms.q)
    if terms.y is terms.z:  # no skew
        return by_nu, zero
    return by_nu + by_b * c.b_nu - v * c.a_nu, by_b * c.b_skew - v * c.a_skew + v * terms.y.abs()


def _shape_sums(sample: Sample, terms: Terms, theta: Parameters, zv: Folded) -> tuple[Each, Each]:
    """The sums over time of `_shape_terms`, made of few sums."""
    zero = torch.zeros_like(theta.nu)
    if terms.constants is None or terms.q is None or terms.y is None:
        return zero, zero
    n, nu, c = sample.count.to(theta.mu.dtype), theta.nu, terms.constants
    each = (nu + 1) / (nu - 2)
    inverse_q = _sum(_inside(terms.q.reciprocal(), sample))
    by_nu = n * c.c_nu - 0.5 * _log_sum(terms.q, sample) + each / 2 * (n - inverse_q)
    if terms.y is terms.z:  # no skew
        return by_nu, zero
    v = _inside(terms.v, sample)
    v_sum, by_b = each * _sum(v), n / c.b - each * _sum(zv)
    side = each * _sum(v * terms.y.abs())
    return by_nu + by_b * c.b_nu - v_sum * c.a_nu, by_b * c.b_skew - v_sum * c.a_skew + side


def _inside(values: Folded, sample: Sample) -> Folded:
    return values if sample.inside is None else values * sample.inside


def _sum(values: Folded) -> Each:
    return values.flatten(0, 1).sum(0)


def _log_sum(values: Folded, sample: Sample) -> Each:
    """The sum over time of logs of positive numbers, as that of logs of products of eight: logs are slow.

    Squared returns and variances within 1e-38 to 1e38 keep the product in float64's range.
    """
    if sample.inside is not None:
        values = torch.addcmul(torch.ones_like(values), values - 1, sample.inside)
    for _ in range(3):
        half = len(values) // 2
        values = values[:half] * values[half:]
    return _sum(torch.log(values))
