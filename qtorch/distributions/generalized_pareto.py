"""The generalised Pareto distribution, smooth through concentration 0."""

import torch
from torch import Tensor
from torch.distributions import constraints

from qtorch.distributions.univariate import Double, Univariate


class GeneralizedPareto(Univariate):
    """The law of excesses: P(X > x) = (1 + xi (x - loc) / scale)^(-1 / xi) for x >= loc, exponential at xi = 0.

    For xi < 0 it ends at loc - scale / xi. Unlike torch's it works in float64, differentiates at xi = 0, and has
    neither NaN nor an error beyond its ends.

    Args:
        loc: lower end.
        scale: positive.
        concentration: xi, the tail index; the mean exists below 1, the variance below 1/2.
        validate_args: False skips the check of the parameters.

    Raises:
        ValueError: a parameter is outside its domain or not finite.

    References:
        Pickands (1975), Statistical inference using extreme order statistics, Annals of Statistics 3.

    Example:
        >>> d = GeneralizedPareto(0.0, 0.01, torch.tensor(0.25))
        >>> round(d.icdf(torch.tensor(0.99)).item(), 4)
        0.0865
    """

    loc: Tensor
    scale: Tensor
    concentration: Tensor
    arg_constraints = {"loc": constraints.real, "scale": constraints.positive, "concentration": constraints.real}

    def __init__(
        self,
        loc: Tensor | float,
        scale: Tensor | float,
        concentration: Tensor | float,
        *,
        validate_args: bool | None = None,
    ) -> None:
        super().__init__(loc=loc, scale=scale, concentration=concentration, validate_args=validate_args)

    def _log_prob(self, x: Double) -> Double:
        loc, scale, xi = self._doubles()
        inside = (x >= loc) & (x < torch.inf) & (1 + xi * (x - loc) / scale > 0)
        hazard = torch.where(inside, self._hazard(x), 0.0)
        density = torch.where(inside, -torch.log(scale) - (1 + xi) * hazard, -torch.inf)
        return torch.where(x.isnan(), x, density)

    def entropy(self) -> Tensor:
        """Differential entropy: log scale + xi + 1."""
        return torch.log(self.scale) + self.concentration + 1

    def _cdf(self, x: Double) -> Double:
        return -torch.expm1(-self._hazard(x))

    def _log_cdf(self, x: Double) -> Double:
        mass = self._cdf(x)
        outside = mass == 0
        return torch.where(outside, -torch.inf, torch.log(torch.where(outside, 1.0, mass)))

    def _log_sf(self, x: Double) -> Double:
        return torch.where(x == torch.inf, -torch.inf, -self._hazard(x))

    def _icdf(self, p: Double) -> Double:
        loc, scale, xi = self._doubles()
        x = loc + scale * excess(-torch.log1p(-p), xi)
        return torch.where((p >= 0) & (p <= 1), x, torch.nan)

    def _mean(self) -> Double:
        loc, scale, xi = self._doubles()
        return torch.where(xi < 1, loc + scale / (1 - xi), torch.inf)

    def _variance(self) -> Double:
        _, scale, xi = self._doubles()
        return torch.where(xi < 0.5, scale**2 / ((1 - xi) ** 2 * (1 - 2 * xi)), torch.inf)

    def _partial_mean(self, x: Double) -> Double:
        """Loc F(x) + int_loc^x P(X > t) dt - (x - loc) P(X > x)."""
        loc, scale, xi = self._doubles()
        hazard = self._hazard(x)
        z = excess(hazard, xi)
        return loc * -torch.expm1(-hazard) + scale * (excess(hazard, xi - 1) - z * torch.exp(-hazard))

    def _hazard(self, x: Double) -> Double:
        """-log P(X > x): log(1 + xi z) / xi; 0 below the lower end, infinite beyond the upper, NaN at NaN."""
        loc, scale, xi = self._doubles()
        z = ((x - loc) / scale).clamp(0, 1e300)  # at infinity xi z would have no log
        u = xi * z
        hazard = torch.where(u > -1, z * log1p_ratio(torch.where(u > -1, u, 0.0)), torch.inf)
        return torch.where(x.isnan(), x, hazard)


def excess(hazard: Double, xi: Double) -> Double:
    """expm1(xi hazard) / xi: the standard excess whose survival probability is exp(-hazard); at infinity its end."""
    finite = hazard < torch.inf
    h = torch.where(finite, hazard, 0.0)
    end = torch.where(xi < 0, -1 / torch.where(xi < 0, xi, -1.0), torch.inf)
    return torch.where(finite, h * expm1_ratio(xi * h), end)


def log1p_ratio(u: Double) -> Double:
    """log(1 + u) / u, differentiable at 0; by its power series for |u| < .02, to 1e-17."""
    small = u.abs() < 0.02
    near = torch.where(small, u, 0.0)
    series = torch.zeros_like(near)
    for k in range(9, -1, -1):
        series = (-1) ** k / (k + 1) + near * series
    far = torch.where(small, 1.0, u)
    return torch.where(small, series, torch.log1p(far) / far)


def expm1_ratio(u: Double) -> Double:
    """(exp(u) - 1) / u, differentiable at 0; by its power series for |u| < .02, to 1e-17."""
    small = u.abs() < 0.02
    near = torch.where(small, u, 0.0)
    series = torch.zeros_like(near)
    for k in range(8, 0, -1):
        series = (1 + near * series) / k
    far = torch.where(small, 1.0, u)
    return torch.where(small, series, torch.expm1(far) / far)
