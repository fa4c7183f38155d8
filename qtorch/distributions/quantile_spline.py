"""Laws given by some of their quantiles, with a smooth curve between and the tails of a familiar law beyond."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, Normal, constraints
from torch.types import _size

from qtorch.distributions.cumulative import cdf, icdf
from qtorch.distributions.indexing import keep_last, take
from qtorch.distributions.log_tails import log_cdf, log_sf
from qtorch.distributions.quadrature import along, between, legendre, lower_mean
from qtorch.distributions.rational_quadratic import inverse, mean_slopes, segment, spline
from qtorch.distributions.tails import partial_mean
from qtorch.distributions.univariate import Double, Univariate
from qtorch.errors import ArgumentError

_EVEN, _EVEN_WEIGHTS = legendre(32)
# Crowded at both ends of a bin, next to which steep slopes have poles.
NODES, WEIGHTS = _EVEN**2 * (3 - 2 * _EVEN), 6 * _EVEN * (1 - _EVEN) * _EVEN_WEIGHTS


class QuantileSpline(Univariate):
    """The law of X = g(Z) with g a monotone rational-quadratic spline and Z of a base law.

    The quantile function is g(Q(p)), Q the base's: at the knots it takes the values, with the slopes; beyond the outer
    knots g is a straight line, so that there X has the base's tails, shifted and scaled. A normal base gives normal
    tails, Student's t tails of its index. Density, distribution function and quantiles are closed forms in the base's.
    Moments, partial means and entropy add Gauss-Legendre integrals over the bins, of 32 nodes each, to 1e-11 where
    slopes are within a factor of 20 of the secants beside them, to 1e-8 within 100; the base's density should be smooth
    inside bins (let a two-piece law's mode be a knot).

    Args:
        knots: increasing scores z, `[..., K + 1]`.
        values: increasing quantiles g(z) at the knots, `[..., K + 1]`, in the unit of X.
        slopes: dg/dz at the knots, positive, `[..., K + 1]`.
        base: law of Z on the real line, with `log_prob`, `cdf` and `icdf` (for moments `mean` and `variance`), whose
            batch shape broadcasts against `[...]`; standard normal by default.
        validate_args: False skips the check of the parameters.

    Raises:
        ValueError: knots or values do not increase or are not finite, or a slope is not positive and finite.

    References:
        Gregory and Delbourgo (1982), Piecewise rational quadratic interpolation to monotonic data, IMA Journal of
        Numerical Analysis 2; Durkan, Bekasov, Murray and Papamakarios (2019), Neural spline flows, NeurIPS.

    Example:
        >>> masses = torch.tensor([0.01, 0.05, 0.5, 0.95, 0.99])
        >>> d = QuantileSpline.from_quantiles(masses, torch.tensor([-0.04, -0.02, 0.001, 0.017, 0.03]))
        >>> round(d.icdf(torch.tensor(0.05)).item(), 4), round(d.icdf(torch.tensor(0.001)).item(), 4)
        (-0.02, -0.0624)
    """

    knots: Tensor
    values: Tensor
    slopes: Tensor
    arg_constraints = {"knots": constraints.real, "values": constraints.real, "slopes": constraints.positive}

    def __init__(
        self,
        knots: Float[Tensor, "... J"],
        values: Float[Tensor, "... J"],
        slopes: Float[Tensor, "... J"],
        base: Distribution | None = None,
        *,
        validate_args: bool | None = None,
    ) -> None:
        super().__init__(knots=knots, values=values, slopes=slopes, validate_args=validate_args)
        if base is None:
            base = Normal(torch.zeros_like(self.knots[..., 0]), 1.0, validate_args=False)
        shape = torch.broadcast_shapes(self.knots.shape[:-1], base.batch_shape)
        for name in self.arg_constraints:
            setattr(self, name, getattr(self, name).expand(*shape, -1))
        self.base = base if base.batch_shape == shape else base.expand(shape)
        Distribution.__init__(self, shape, validate_args=False)

    @classmethod
    def from_quantiles(
        cls,
        probabilities: Float[Tensor, " J"] | Sequence[float],
        quantiles: Float[Tensor, "... J"],
        base: Distribution | None = None,
        *,
        validate_args: bool | None = None,
    ) -> "QuantileSpline":
        """The law with given quantiles; beyond them the base's tails, on the straight lines through the outer two.

        Args:
            probabilities: increasing left-tail masses in (0, 1), two or more.
            quantiles: increasing, `[..., K + 1]`, in the unit of X.
            base: as for the class.
            validate_args: False skips the check of the arguments.

        Raises:
            ValueError: masses are not inside (0, 1), or masses or quantiles do not increase; the message says where.
        """
        masses = torch.as_tensor(probabilities, dtype=torch.float64, device=quantiles.device)
        if validate_args is not False and not torch.compiler.is_compiling():
            if len(masses) < 2 or not ((masses > 0) & (masses < 1)).all():
                raise ArgumentError(f"QuantileSpline needs two or more masses inside (0, 1), not {masses.tolist()}.")
            _require_increasing("probabilities", masses, masses)
            _require_increasing("quantiles", quantiles, masses)
        base = base if base is not None else Normal(torch.zeros_like(masses[0]), 1.0, validate_args=False)
        knots = icdf(base, masses.reshape(-1, *[1] * len(base.batch_shape))).movedim(0, -1)
        slopes = mean_slopes(knots, quantiles.double())
        knots, slopes = knots.to(quantiles.dtype), slopes.to(quantiles.dtype)
        return cls(knots, quantiles, slopes, base, validate_args=validate_args)

    def _check(self) -> None:
        super()._check()
        for name in ("knots", "values"):
            _require_increasing(name, getattr(self, name))

    def expand(self, batch_shape: _size, _instance: object = None) -> "QuantileSpline":
        """The distribution expanded to a batch shape."""
        points = {name: getattr(self, name).expand(*batch_shape, -1) for name in self.arg_constraints}
        return QuantileSpline(**points, base=self.base.expand(batch_shape), validate_args=False)

    def entropy(self) -> Tensor:
        """Differential entropy: the base's plus E[log g'(Z)]."""
        _, _, slopes = self._doubles()
        within = self._over_bins(lambda z, x, log_slope: log_slope * torch.exp(self.base.log_prob(z)))
        (_, left), (_, right) = self._ends()
        outside = torch.log(slopes[..., 0]) * left + torch.log(slopes[..., -1]) * right
        return (self.base.entropy() + within + outside).to(self._dtype)

    def _log_prob(self, x: Double) -> Double:
        z, log_slope = self._score(x)
        return self.base.log_prob(z) - log_slope

    def _log_cdf(self, x: Double) -> Double:
        return log_cdf(self.base, self._score(x)[0])

    def _log_sf(self, x: Double) -> Double:
        return log_sf(self.base, self._score(x)[0])

    def _cdf(self, x: Double) -> Double:
        return cdf(self.base, self._score(x)[0])

    def _icdf(self, p: Double) -> Double:
        p = p.expand(torch.broadcast_shapes(p.shape, self.batch_shape))
        return spline(icdf(self.base, p), *self._doubles())[0]

    def _partial_mean(self, x: Double) -> Double:
        return self._first_moment(self._score(x)[0])

    def _mean(self) -> Double:
        return self._first_moment(None)

    def _first_moment(self, stop: Double | None) -> Double:
        """E[g(Z) 1{Z <= stop}], of all Z if none is given."""
        _, values, slopes = self._doubles()
        (first, _), (last, beyond) = self._ends()
        lowest = first if stop is None else torch.minimum(stop, first)
        left = slopes[..., 0] * partial_mean(self.base, lowest)
        left = left + (values[..., 0] - slopes[..., 0] * first) * cdf(self.base, lowest)
        if stop is None:
            upper, mass = self.base.mean, beyond
        else:
            highest = torch.maximum(stop, last.expand(stop.shape))
            upper, mass = partial_mean(self.base, highest), beyond - torch.exp(log_sf(self.base, highest))
        right = slopes[..., -1] * (upper - partial_mean(self.base, last))
        right = right + (values[..., -1] - slopes[..., -1] * last) * mass
        return left + self._over_bins(lambda z, x, _: x * torch.exp(self.base.log_prob(z)), stop) + right

    def _variance(self) -> Double:
        _, values, slopes = self._doubles()
        (first, below), (last, above) = self._ends()
        mean, ndim = self._mean(), len(self.batch_shape)

        def line(z: Double, k: int, knot: Double) -> Double:
            return values[..., k] - mean + slopes[..., k] * (z - knot)

        left = below * lower_mean(lambda u: line(icdf(self.base, u), 0, first) ** 2, below, ndim, 24)
        whole = line(self.base.mean.double(), -1, last) ** 2 + slopes[..., -1] ** 2 * self.base.variance.double()
        right = whole - between(lambda u: line(icdf(self.base, u), -1, last) ** 2, torch.zeros_like(above), above, ndim)
        within = self._over_bins(lambda z, x, _: (x - mean) ** 2 * torch.exp(self.base.log_prob(z)))
        return left + within + right

    def _half_difference(self) -> Double:
        """E|X - X'| / 2, X' an independent draw: int F (1 - F)."""
        _, _, slopes = self._doubles()
        (first, p), (last, q) = self._ends()
        base, ndim = self.base, len(self.batch_shape)
        # On a tail, int F and int F^2 by parts.
        below = first * p * (1 - p) - partial_mean(base, first)
        below = below + 2 * p * lower_mean(lambda u: u * icdf(base, u), p, ndim)
        above = base.mean - partial_mean(base, last) - last * q * (1 - q)
        above = above - 2 * q * lower_mean(lambda u: u * icdf(base, (1 - u).clamp(max=1 - 2**-53)), q, ndim)
        within = self._over_bins(lambda z, x, log_slope: torch.exp(log_cdf(base, z) + log_sf(base, z) + log_slope))
        return slopes[..., 0] * below + within + slopes[..., -1] * above

    def _score(self, x: Double) -> tuple[Double, Double]:
        """The z that x comes from, and log g'(z)."""
        return inverse(x, *self._doubles())

    def _ends(self) -> tuple[tuple[Double, Double], tuple[Double, Double]]:
        """The outer knots and the base's masses beyond them."""
        knots, _, _ = self._doubles()
        first, last = knots[..., 0], knots[..., -1]
        return (first, cdf(self.base, first)), (last, torch.exp(log_sf(self.base, last)))

    def _over_bins(self, integrand: Callable[[Double, Double, Double], Double], stop: Double | None = None) -> Double:
        """The integral of a function of z, g(z) and log g'(z) between the outer knots, or up to `stop`."""
        shape = self.batch_shape if stop is None else stop.shape
        knots, values, slopes = (points.expand(*shape, -1).movedim(-1, 0) for points in self._doubles())
        start, width, height = knots[:-1], knots.diff(dim=0), values.diff(dim=0)
        share = torch.ones_like(width) if stop is None else ((stop - start) / width).clamp(0, 1)
        xi = along(NODES, width) * share
        eta, log_slope = segment(xi, height / width, slopes[:-1], slopes[1:])
        values_within = integrand(start + width * xi, values[:-1] + height * eta, log_slope)
        return (along(WEIGHTS, width) * share * width * values_within).sum((0, 1))


def _require_increasing(name: str, points: Tensor, masses: Tensor | None = None) -> None:
    """Refuses points that do not increase along the last dimension.

    Raises:
        ValueError: they do not; the message says how many, and where the first is.
    """
    bad = ~(points.diff(dim=-1) > 0)
    if bad.any():
        *element, k = bad.nonzero()[0].tolist()
        low, high = points[*element, k].item(), points[*element, k + 1].item()
        place = f"between points {k} and {k + 1}"
        if masses is not None and name != "probabilities":
            place = f"between masses {masses[k].item():g} and {masses[k + 1].item():g}"
        where = f" in element {tuple(element)} of the batch" if element else ""
        raise ArgumentError(
            f"QuantileSpline needs increasing {name}; {int(bad.sum())} of {bad.numel()} steps do not rise, the first "
            f"{place}{where}, from {low:g} to {high:g}. Sort them, or predict positive steps."
        )


@take.register
def _quantile_spline(distribution: QuantileSpline, index: Any) -> QuantileSpline:
    points = {name: getattr(distribution, name)[keep_last(index)] for name in distribution.arg_constraints}
    return QuantileSpline(**points, base=take(distribution.base, index), validate_args=False)
