"""One generalised Pareto end of a law."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from qtorch.distributions.generalized_pareto import GeneralizedPareto, excess
from qtorch.distributions.univariate import Double


@dataclass(frozen=True)
class ParetoTail:
    """The part of a law beyond a threshold u, of mass p: excesses outwards are generalised Pareto.

    P(beyond x) = p (1 + xi e / s)^(-1 / xi) with e = sign (x - u) >= 0. Of an x that is not beyond u the functions take
    e = 0, so that they and their gradients are finite. Where `there` is false there is no such tail: it holds no x, and
    its moments are 0.

    Args:
        sign: 1 of an upper tail, -1 of a lower.
        there: which elements have the tail.
        mass: p, positive.
        threshold: u.
        scale: s, positive.
        xi: tail index.
    """

    sign: int
    there: Bool[Tensor, "..."]
    mass: Double
    threshold: Double
    scale: Double
    xi: Double

    def holds(self, x: Double) -> Tensor:
        """Whether x is in the tail."""
        return self.there & (self.sign * (x - self.threshold) > 0)

    def log_density(self, x: Double) -> Double:
        """Log density at x."""
        return torch.log(self.mass) + self._excesses._log_prob(self._excess(x))

    def log_mass(self, x: Double) -> Double:
        """Log of the mass beyond x."""
        return torch.log(self.mass) + self._excesses._log_sf(self._excess(x))

    def quantile(self, mass: Double) -> Double:
        """The x with a mass beyond it, of 0 to p."""
        share = torch.where(mass > 0, mass, self.mass) / self.mass
        hazard = torch.where(mass == 0, torch.inf, -torch.log(share.clamp(max=1)))
        return self.threshold + self.sign * self.scale * excess(hazard, self.xi)

    def mean(self, x: Double) -> Double:
        """E[X; beyond x]: the excess over any x has mean (s + xi e) / (1 - xi)."""
        e = self._excess(x)
        e = torch.where(e < torch.inf, e, 0.0)
        exists = self.has_moment(1)
        over = (self.scale + self.xi * e) / (1 - torch.where(exists, self.xi, 0.0))
        mean = torch.where(exists, self.threshold + self.sign * (e + over), self.sign * torch.inf)
        mass = torch.exp(self.log_mass(x))
        return torch.where(self.there & (mass > 0), mass * mean, 0.0)

    def second_moment(self, center: Double) -> Double:
        """E[(X - center)^2; beyond u]."""
        xi = torch.where(self.has_moment(2), self.xi, 0.0)
        a, first = self.sign * (self.threshold - center), self.scale / (1 - xi)
        second = 2 * self.scale**2 / ((1 - xi) * (1 - 2 * xi))
        return torch.where(self.there, self.mass * (a * a + 2 * a * first + second), 0.0)

    def entropy(self) -> Double:
        """-int f log f beyond u."""
        return torch.where(self.there, self.mass * (torch.log(self.scale / self.mass) + self.xi + 1), 0.0)

    def spread(self) -> Double:
        """Int F (1 - F) beyond u."""
        exists = self.has_moment(1)
        xi = torch.where(exists, self.xi, 0.0)
        value = self.mass * self.scale * (1 / (1 - xi) - self.mass / (2 - xi))
        return torch.where(self.there, torch.where(exists, value, torch.inf), 0.0)

    def has_moment(self, order: int) -> Tensor:
        """Whether the tail has a moment; true where it is not there."""
        return (self.xi * order < 1) | ~self.there

    @property
    def _excesses(self) -> GeneralizedPareto:
        return GeneralizedPareto(0.0, self.scale, self.xi, validate_args=False)

    def _excess(self, x: Double) -> Double:
        return torch.where(self.holds(x), self.sign * (x - self.threshold), 0.0)
