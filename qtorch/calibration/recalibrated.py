"""Laws whose distribution function is put right by a monotone map of the probability integral transform."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.types import _size

from qtorch.distributions.cumulative import cdf, icdf
from qtorch.distributions.indexing import keep_last, take
from qtorch.distributions.joining import Join, _bases, joined
from qtorch.distributions.log_tails import log_cdf, log_sf
from qtorch.distributions.quadrature import along, between, legendre, lower_mean
from qtorch.distributions.rational_quadratic import inverse, mean_slopes, spline
from qtorch.distributions.tails import partial_mean
from qtorch.distributions.univariate import Double, Univariate
from qtorch.errors import ArgumentError

_NODES, _WEIGHTS = legendre(32)


@dataclass(frozen=True, eq=False)
class PitMap:
    """A monotone map R of [0, 1] onto itself: a rational-quadratic spline, a straight line in its outer bins.

    Attributes:
        knots: increasing, from 0 to 1, `[..., K + 1]`, three bins or more.
        values: R at the knots, increasing, from 0 to 1, `[..., K + 1]`.

    Raises:
        ValueError: they are not so.
    """

    knots: Float[Tensor, "... J"]
    values: Float[Tensor, "... J"]

    def __post_init__(self) -> None:
        """Checks the points, but not in compiled code, which can't stop on a value."""
        if torch.compiler.is_compiling():
            return
        for name in ("knots", "values"):
            points = getattr(self, name)
            ends = (points[..., 0] == 0).all() and (points[..., -1] == 1).all()
            if points.shape[-1] < 4 or not ends or not (points.diff(dim=-1) > 0).all():
                raise ArgumentError(
                    f"{name} of a PitMap increase from 0 to 1 in three bins or more; they are {points}."
                )

    @property
    def slopes(self) -> Float[Tensor, "... J"]:
        """R' at the knots, that of the outer bins' straight lines at both of their ends."""
        slopes = mean_slopes(self.knots, self.values)
        outer = (slopes[..., :1], slopes[..., -1:])
        return torch.cat([outer[0], outer[0], slopes[..., 2:-2], outer[1], outer[1]], dim=-1)

    def __call__(self, u: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """R(u)."""
        return spline(u, self.knots, self.values, self.slopes)[0]

    def inverse(self, p: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The u with R(u) = p."""
        return inverse(p, self.knots, self.values, self.slopes)[0]

    @classmethod
    def identity(cls, knots: Float[Tensor, "... J"]) -> "PitMap":
        """The map that changes nothing."""
        return cls(knots, knots)


class Recalibrated(Univariate):
    """The law with distribution function R(F(x)), F a base law's and R a monotone map of [0, 1].

    Density f(x) R'(F(x)), quantiles F^-1(R^-1(p)). Where F is below the first inner knot, R is a straight line through
    0, so that the tail is the base's times a factor and keeps its index; so too on the right. Log density, distribution
    function and quantiles are closed forms in the base's, of full relative accuracy in both tails by `log_cdf` and
    `log_sf`. Moments, partial means and entropy take the outer bins from the base's and add Gauss-Legendre integrals
    over the others, of 32 nodes each, good to 1e-9 where the base's quantile function is smooth in them.

    Args:
        base: law with `cdf`, `icdf` and, for densities, `log_prob`; its batch shape broadcasts against the map's.
        map: R, of batch shape `[...]`.

    Example:
        >>> from torch.distributions import Normal
        >>> knots = torch.tensor([0.0, 0.05, 0.5, 0.95, 1.0])
        >>> wide = Recalibrated(Normal(0.0, 1.0), PitMap(knots, torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0])))
        >>> round(wide.cdf(torch.tensor(-1.6449)).item(), 4), round(wide.icdf(torch.tensor(0.05)).item(), 4)
        (0.1, -1.96)
    """

    knots: Tensor
    values: Tensor
    slopes: Tensor
    arg_constraints = {"knots": constraints.real, "values": constraints.real, "slopes": constraints.positive}

    def __init__(self, base: Distribution, map: PitMap, *, validate_args: bool | None = None) -> None:
        shape = torch.broadcast_shapes(base.batch_shape, map.knots.shape[:-1], map.values.shape[:-1])
        super().__init__(knots=map.knots, values=map.values, slopes=map.slopes, validate_args=validate_args)
        for name in self.arg_constraints:
            setattr(self, name, getattr(self, name).expand(*shape, -1))
        self.map = map
        self.base = base if base.batch_shape == shape else base.expand(shape)
        Distribution.__init__(self, shape, validate_args=False)

    def expand(self, batch_shape: _size, _instance: object = None) -> "Recalibrated":
        """The distribution expanded to a batch shape."""
        return Recalibrated(self.base.expand(batch_shape), self.map, validate_args=False)

    def entropy(self) -> Tensor:
        """Differential entropy, by quadrature."""
        ndim = len(self.batch_shape)
        knots, _, slopes = self._doubles()

        def surprise(u: Double) -> Double:
            return -self.base.log_prob(icdf(self.base, u))

        first, last = knots[..., 1], 1 - knots[..., -2]
        left = lower_mean(lambda u: surprise(u.clamp(min=1e-16)), first, ndim)
        right = lower_mean(lambda u: surprise(1 - u.clamp(min=1e-16)), last, ndim)
        outer = slopes[..., 0] * first * (left - slopes[..., 0].log())
        outer = outer + slopes[..., -1] * last * (right - slopes[..., -1].log())
        return (outer + self._inside(lambda u, log_slope: surprise(u) - log_slope)).to(self._dtype)

    def _log_prob(self, x: Double) -> Double:
        return self.base.log_prob(x) + self._mapped(x)[1]

    def _log_cdf(self, x: Double) -> Double:
        knots, _, slopes = self._doubles()
        u, far = cdf(self.base, x), log_cdf(self.base, x) + slopes[..., 0].log()
        left = u < knots[..., 1]
        inner = spline(torch.where(left, knots[..., 1], u), *self._doubles())[0]
        return torch.where(left, far, inner.log())

    def _log_sf(self, x: Double) -> Double:
        knots, _, slopes = self._doubles()
        u, far = cdf(self.base, x), log_sf(self.base, x) + slopes[..., -1].log()
        right = u > knots[..., -2]
        inner = spline(torch.where(right, knots[..., -2], u), *self._doubles())[0]
        return torch.where(right, far, torch.log1p(-inner))

    def _cdf(self, x: Double) -> Double:
        return self._mapped(x)[0]

    def _icdf(self, p: Double) -> Double:
        inside = (p >= 0) & (p <= 1)
        shape = torch.broadcast_shapes(p.shape, self.batch_shape)
        u = inverse(torch.where(inside, p, 0.5).expand(shape), *self._doubles())[0]
        return torch.where(inside, icdf(self.base, u.clamp(0, 1)).double(), torch.nan)

    def _partial_mean(self, x: Double) -> Double:
        return self._first_moment(x)

    def _mean(self) -> Double:
        return self._first_moment(None)

    def _first_moment(self, stop: Double | None) -> Double:
        """E[X 1{X <= stop}], of all X if none is given."""
        _, _, slopes = self._doubles()
        first, last = self._ends()
        low = first if stop is None else torch.minimum(stop, first)
        left = slopes[..., 0] * partial_mean(self.base, low)
        upper = self.base.mean if stop is None else partial_mean(self.base, torch.maximum(stop, last))
        right = slopes[..., -1] * (upper - partial_mean(self.base, last))
        limit = None if stop is None else cdf(self.base, stop)
        return (left + self._inside(lambda u, _: icdf(self.base, u), limit) + right).double()

    def _variance(self) -> Double:
        knots, _, slopes = self._doubles()
        mean, ndim = self._mean(), len(self.batch_shape)

        def squared(u: Double) -> Double:
            return (icdf(self.base, u) - mean) ** 2

        below, above = knots[..., 1], 1 - knots[..., -2]
        left = below * lower_mean(squared, below, ndim, 24)
        whole = self.base.variance.double() + (self.base.mean.double() - mean) ** 2
        right = whole - between(squared, torch.zeros_like(above), above, ndim)
        return slopes[..., 0] * left + self._inside(lambda u, _: squared(u)) + slopes[..., -1] * right

    def _mapped(self, x: Double) -> tuple[Double, Double]:
        """R(F(x)) and log R'(F(x))."""
        u = cdf(self.base, x)
        return spline(u.expand(torch.broadcast_shapes(u.shape, self.batch_shape)), *self._doubles())

    def _ends(self) -> tuple[Double, Double]:
        """The base's quantiles at the first and last inner knots."""
        knots, _, _ = self._doubles()
        return icdf(self.base, knots[..., 1]).double(), icdf(self.base, knots[..., -2]).double()

    def _inside(self, function: Callable[[Double, Double], Double], stop: Double | None = None) -> Double:
        """The integral of g(u, log R'(u)) R'(u) over the inner bins, up to a mass if one is given."""
        knots, values, slopes = self._doubles()
        total = torch.zeros((), dtype=torch.float64, device=knots.device)
        for k in range(1, knots.shape[-1] - 2):
            low, high = knots[..., k], knots[..., k + 1]
            high = high if stop is None else torch.minimum(torch.maximum(stop, low), high)
            ndim = max(high.ndim, len(self.batch_shape))
            u = low + along(_NODES, high, ndim) * (high - low)
            log_slope = spline(u, knots, values, slopes)[1]
            each = function(u, log_slope) * torch.exp(log_slope)
            total = total + (high - low) * (along(_WEIGHTS, high, ndim) * each).sum(0)
        return total


@take.register
def _take(distribution: Recalibrated, index: Any) -> Recalibrated:
    part = keep_last(index)
    points = PitMap(distribution.knots[part], distribution.values[part])
    return Recalibrated(take(distribution.base, index), points, validate_args=False)


@joined.register
def _join(first: Recalibrated, distributions: Sequence[Any], join: Join) -> Recalibrated:
    points = PitMap(*(join([getattr(d, name) for d in distributions]) for name in ("knots", "values")))
    return Recalibrated(_bases(distributions, "base", join), points, validate_args=False)
