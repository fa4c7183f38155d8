"""A law with generalised Pareto tails spliced on, as extreme value theory has it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.types import _size

from qtorch.distributions.cumulative import cdf, icdf
from qtorch.distributions.indexing import take
from qtorch.distributions.log_tails import log_cdf, log_sf
from qtorch.distributions.parameters import broadcast, tensor_of
from qtorch.distributions.pareto_tail import ParetoTail
from qtorch.distributions.quadrature import between, lower_mean
from qtorch.distributions.tails import partial_mean
from qtorch.distributions.two_piece_student_t import TwoPieceStudentT
from qtorch.distributions.univariate import Double, Univariate
from qtorch.errors import ArgumentError


class SplicedTails(Univariate):
    """A body between its quantiles u_l at mass p_l and u_u at mass 1 - p_u, with generalised Pareto tails beyond.

        P(X <= x) = p_l (1 + xi_l (u_l - x) / s_l)^(-1 / xi_l)   for x < u_l,
        P(X > x)  = p_u (1 + xi_u (x - u_u) / s_u)^(-1 / xi_u)   for x > u_u,

    and the body's between, so that the splice keeps its masses. A scale that is not given makes the density continuous
    at the threshold: s = p / f(u), f the body's density. All functions are closed forms in the body's, except for
    variance and entropy, which integrate over the body's part, to 1e-12 where its density is smooth (or has the kink of
    a two-piece law).

    Args:
        body: a law with `log_prob`, `cdf` and `icdf`, of batch shape `[...]`; where it keeps its upper tail moments
            need its `mean` and `variance` too.
        lower_mass: p_l in [0, 1/2), broadcast against the batch shape, as all that follow; 0 or None keeps the body's
            lower tail.
        lower_concentration: xi_l; the mean exists below 1, the variance below 1/2, and below 0 the tail ends at
            u_l + s_l / xi_l. Given if and only if the mass is.
        upper_mass: p_u, likewise.
        upper_concentration: xi_u, likewise.
        lower_scale: s_l, positive; by default of a continuous density.
        upper_scale: s_u, likewise.
        validate_args: False skips the check of the parameters.

    Raises:
        ValueError: a parameter is outside its domain or not finite, or a mass comes without concentration or a
            concentration or scale without mass.

    References:
        McNeil and Frey (2000), Estimation of tail-related risk measures for heteroscedastic financial time series: an
        extreme value approach, Journal of Empirical Finance 7; Carreau and Bengio (2009), A hybrid Pareto model for
        asymmetric fat-tailed data: the univariate case, Extremes 12, for the continuous density.

    Example:
        >>> body = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 0.01)
        >>> d = SplicedTails(body, lower_mass=0.05, lower_concentration=0.25)
        >>> p = torch.tensor([0.001, 0.05, 0.5, 0.99], dtype=torch.float64)
        >>> d.icdf(p)
        tensor([-0.0486, -0.0164,  0.0000,  0.0233], dtype=torch.float64)
        >>> body.icdf(p)
        tensor([-0.0309, -0.0164,  0.0000,  0.0233], dtype=torch.float64)
    """

    lower_mass: Tensor
    lower_concentration: Tensor
    upper_mass: Tensor
    upper_concentration: Tensor
    lower_scale: Tensor | None = None
    upper_scale: Tensor | None = None
    arg_constraints = {
        "lower_mass": constraints.half_open_interval(0.0, 0.5),
        "lower_concentration": constraints.real,
        "upper_mass": constraints.half_open_interval(0.0, 0.5),
        "upper_concentration": constraints.real,
        "lower_scale": constraints.positive,
        "upper_scale": constraints.positive,
    }

    def __init__(
        self,
        body: Distribution,
        lower_mass: Tensor | float | None = None,
        lower_concentration: Tensor | float | None = None,
        upper_mass: Tensor | float | None = None,
        upper_concentration: Tensor | float | None = None,
        lower_scale: Tensor | float | None = None,
        upper_scale: Tensor | float | None = None,
        *,
        validate_args: bool | None = None,
    ) -> None:
        parameters = _parameters("lower", lower_mass, lower_concentration, lower_scale)
        parameters |= _parameters("upper", upper_mass, upper_concentration, upper_scale)
        # Only a scale that is given is a parameter.
        self.arg_constraints = {name: self.arg_constraints[name] for name in parameters}
        like = tensor_of(body).new_empty(()).expand(body.batch_shape)
        _, *tensors = broadcast(like, *parameters.values())
        shape = tensors[0].shape
        self.body = body if body.batch_shape == shape else body.expand(shape)
        super().__init__(**dict(zip(parameters, tensors, strict=True)), validate_args=validate_args)

    def expand(self, batch_shape: _size, _instance: object = None) -> "SplicedTails":
        """The distribution expanded to a batch shape."""
        parameters = {name: getattr(self, name).expand(batch_shape) for name in self.arg_constraints}
        return SplicedTails(self.body.expand(batch_shape), **parameters, validate_args=False)

    def entropy(self) -> Tensor:
        """Differential entropy: the tails' in closed form, the body's part by quadrature."""
        lower, upper = self._tails()
        low, high = self._replaced(lower, upper)
        log_density = self._within(lambda u: self.body.log_prob(icdf(self.body, u.clamp(min=1e-16))), low, high)
        return (lower.entropy() + upper.entropy() - log_density).to(self._dtype)

    def _log_prob(self, x: Double) -> Double:
        lower, upper, within = self._parts(x)
        middle = torch.where(upper.holds(x), upper.log_density(x), self.body.log_prob(within))
        return torch.where(lower.holds(x), lower.log_density(x), middle)

    def _log_cdf(self, x: Double) -> Double:
        lower, upper, within = self._parts(x)
        above = torch.log1p(-torch.exp(upper.log_mass(x)))
        middle = torch.where(upper.holds(x), above, log_cdf(self.body, within))
        return torch.where(lower.holds(x), lower.log_mass(x), middle)

    def _log_sf(self, x: Double) -> Double:
        lower, upper, within = self._parts(x)
        below = torch.log1p(-torch.exp(lower.log_mass(x)))
        middle = torch.where(lower.holds(x), below, log_sf(self.body, within))
        return torch.where(upper.holds(x), upper.log_mass(x), middle)

    def _cdf(self, x: Double) -> Double:
        lower, upper, within = self._parts(x)
        middle = torch.where(upper.holds(x), 1 - torch.exp(upper.log_mass(x)), cdf(self.body, within))
        return torch.where(lower.holds(x), torch.exp(lower.log_mass(x)), middle)

    def _icdf(self, p: Double) -> Double:
        lower, upper = self._tails()
        q = 1 - p
        low, high = lower.there & (p < lower.mass), upper.there & (q < upper.mass)
        middle = icdf(self.body, torch.where(low, lower.mass, torch.where(high, 1 - upper.mass, p)))
        x = torch.where(low, lower.quantile(p), torch.where(high, upper.quantile(q), middle))
        return torch.where((p >= 0) & (q >= 0), x, torch.nan)

    def _partial_mean(self, x: Double) -> Double:
        lower, upper, within = self._parts(x)
        high = torch.where(upper.holds(x), upper.mean(upper.threshold) - upper.mean(x), 0.0)
        below = lower.mean(lower.threshold) - self._below(lower) + partial_mean(self.body, within) + high
        return torch.where(lower.holds(x), lower.mean(x), below)

    def _mean(self) -> Double:
        lower, upper = self._tails()
        middle = self._below(upper) - self._below(lower)
        return lower.mean(lower.threshold) + middle + upper.mean(upper.threshold)

    def _variance(self) -> Double:
        lower, upper = self._tails()
        exists = lower.has_moment(2) & upper.has_moment(2)
        mean = torch.where(exists, self._mean(), 0.0)

        def square(u: Double) -> Double:
            return (icdf(self.body, u) - mean) ** 2

        low, _ = self._replaced(lower, upper)
        middle = self._within(square, low, upper.mass)
        if _kept_somewhere(upper):
            # Masses near 1 have too few digits for heavy tails: all of the body less what is below the lower threshold.
            whole = self.body.variance + (self.body.mean - mean) ** 2
            below = low * lower_mean(square, lower.mass, len(self.batch_shape), 24)
            middle = torch.where(upper.there, middle, whole - below)
        total = lower.second_moment(mean) + middle + upper.second_moment(mean)
        return torch.where(exists, total, torch.inf)

    def _half_difference(self) -> Double:
        """E|X - X'| / 2, X' an independent draw: int F (1 - F), for the body's part by parts about its centre m."""
        lower, upper = self._tails()
        low, high = self._replaced(lower, upper)
        center = self._center()
        m = icdf(self.body, center)
        edges = low * (1 - low) * (m - lower.threshold) + high * (1 - high) * (upper.threshold - m)
        # int |Q(u) - m| du has a closed form, where tails are heaviest; what is left, quadrature.
        distance = self._below(upper) + self._below(lower) - 2 * partial_mean(self.body, m)
        distance = distance + (high - low + 2 * center - 1) * m
        inner = self._within(lambda u: torch.where(u < center, u, 1 - u) * (icdf(self.body, u) - m).abs(), low, high)
        return lower.spread() + edges + distance - 2 * inner + upper.spread()

    def _within(self, function: Callable[[Double], Double], low: Double, high: Double) -> Double:
        """The integral of a function of left-tail mass from low to 1 - high."""
        return between(function, low, high, len(self.batch_shape), self._center())

    def _center(self) -> Double:
        """The mass at which to split integrals: that of a two-piece body's mode, where its density is not smooth."""
        if isinstance(self.body, TwoPieceStudentT):
            _, _, left, right = self.body._pieces()
            return left / (left + right)
        return torch.full_like(self.lower_mass, 0.5, dtype=torch.float64)

    def _below(self, tail: ParetoTail) -> Double:
        """The body's E[X 1{X <= u}]; where the body keeps its tail, at the infinity of that side."""
        end = self.body.mean if tail.sign > 0 and _kept_somewhere(tail) else 0.0
        return torch.where(tail.there, partial_mean(self.body, tail.threshold), end)

    def _parts(self, x: Double) -> tuple[ParetoTail, ParetoTail, Double]:
        """The tails, and x moved into the body's part."""
        lower, upper = self._tails()
        within = torch.where(lower.holds(x), lower.threshold, torch.where(upper.holds(x), upper.threshold, x))
        return lower, upper, within

    def _tails(self) -> tuple[ParetoTail, ParetoTail]:
        return self._tail(-1, "lower"), self._tail(1, "upper")

    def _tail(self, sign: int, side: str) -> ParetoTail:
        mass, xi = getattr(self, f"{side}_mass").double(), getattr(self, f"{side}_concentration").double()
        there = mass > 0
        mass = torch.where(there, mass, 0.25)  # any, where the body keeps its tail
        threshold = icdf(self.body, mass if sign < 0 else 1 - mass)
        scale = getattr(self, f"{side}_scale")
        scale = mass * torch.exp(-self.body.log_prob(threshold)) if scale is None else scale.double()
        return ParetoTail(sign, there, mass, threshold, scale, xi)

    def _replaced(self, *tails: ParetoTail) -> tuple[Double, ...]:
        """The masses of the body's tails that are not its own."""
        return tuple(torch.where(tail.there, tail.mass, 0.0) for tail in tails)


def _kept_somewhere(tail: ParetoTail) -> bool:
    """Whether the body may keep its tail in some elements; its mean may not exist and is asked for only then."""
    return torch.compiler.is_compiling() or not bool(tail.there.all())


def _parameters(
    side: str, mass: Tensor | float | None, xi: Tensor | float | None, scale: Tensor | float | None
) -> dict[str, Tensor | float]:
    """The parameters of a side by their names, a mass of 0 for none.

    Raises:
        ValueError: a mass without concentration, or a concentration or scale without mass.
    """
    if mass is None and (xi is not None or scale is not None):
        raise ArgumentError(f"SplicedTails needs {side}_mass with {side}_concentration or {side}_scale, such as 0.05.")
    if mass is not None and xi is None:
        raise ArgumentError(f"SplicedTails needs {side}_concentration with {side}_mass, such as 0.2.")
    both = {f"{side}_mass": 0.0 if mass is None else mass, f"{side}_concentration": 0.0 if xi is None else xi}
    return both if scale is None else {**both, f"{side}_scale": scale}


@take.register
def _spliced_tails(distribution: SplicedTails, index: Any) -> SplicedTails:
    parameters = {name: getattr(distribution, name)[index] for name in distribution.arg_constraints}
    return SplicedTails(take(distribution.body, index), **parameters, validate_args=False)
