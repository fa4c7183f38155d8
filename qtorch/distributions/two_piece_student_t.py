"""Two halves of Student's t with scales of their own, of which the symmetric and the skewed laws are special cases."""

import math
from abc import abstractmethod

import torch
from jaxtyping import Float64
from torch import Tensor

from qtorch.distributions.student_t_functions import (
    t_entropy,
    t_icdf,
    t_log_cdf,
    t_mean_abs,
    t_partial_mean,
)
from qtorch.distributions.student_t_tail import log_density
from qtorch.distributions.tails import register_tail_mean
from qtorch.distributions.univariate import Univariate

Double = Float64[Tensor, "..."]
LOG_2 = math.log(2)


class TwoPieceStudentT(Univariate):
    """The law of loc + Y with density 2 / (l + r) t(y / l) for y < 0 and 2 / (l + r) t(y / r) for y >= 0.

    t is the density of Student's t, l and r are the scales of the two sides. The mass on the left is l / (l + r); loc
    is the mode. Subclasses map their parameters to these by `_pieces`. Everything is a closed form in Student's.

    References:
        Fernandez and Steel (1998), On Bayesian modeling of fat tails and skewness, Journal of the American
        Statistical Association 93, equations 1 to 5, for such laws.
    """

    @abstractmethod
    def _pieces(self) -> tuple[Double, Double, Double, Double]:
        """The df, loc, l and r of the law."""

    def entropy(self) -> Tensor:
        """Differential entropy: Student's plus log((l + r)/2)."""
        df, _, left, right = self._pieces()
        return (t_entropy(df) + torch.log((left + right) / 2)).to(self._dtype)

    def _log_prob(self, x: Double) -> Double:
        df, loc, left, right = self._pieces()
        y = x - loc
        return log_density(y / torch.where(y < 0, left, right), df) - torch.log((left + right) / 2)

    def _side(self, x: Double) -> tuple[Tensor, Double, Double]:
        """Whether x is left of the mode, the mass of its side, and the log of the tail beyond x as a share of it."""
        df, loc, left, right = self._pieces()
        y = x - loc
        below = y < 0
        mass = torch.where(below, left, right) / (left + right)
        tail = t_log_cdf(torch.where(below, y / left, -y / right), df) + LOG_2
        return below, mass, tail

    def _cdf(self, x: Double) -> Double:
        below, mass, tail = self._side(x)
        tail = mass * torch.exp(tail)
        return torch.where(below, tail, 1 - tail)

    def _log_cdf(self, x: Double) -> Double:
        return self._log_tails(x)[0]

    def _log_sf(self, x: Double) -> Double:
        return self._log_tails(x)[1]

    def _log_tails(self, x: Double) -> tuple[Double, Double]:
        below, mass, tail = self._side(x)
        tail = torch.log(mass) + tail
        rest = torch.log1p(-torch.exp(tail))
        return torch.where(below, tail, rest), torch.where(below, rest, tail)

    def _icdf(self, p: Double) -> Double:
        df, loc, left, right = self._pieces()
        mass = left / (left + right)
        below = p < mass
        half = t_icdf(torch.where(below, 0.5 * p / mass, 0.5 * (1 - p) / (1 - mass)), df)
        return loc + torch.where(below, left, -right) * half

    def _partial_mean(self, x: Double) -> Double:
        return self._partial_mean_from_mode(x) + self._pieces()[1] * self._cdf(x)

    def _partial_mean_from_mode(self, x: Double) -> Double:
        """E[(X - loc) 1{X <= x}]."""
        df, loc, left, right = self._pieces()
        y = x - loc
        below = y < 0
        scale = torch.where(below, left, right)
        # Both halves have mean 0 beyond infinity, so that what is right of x is minus what is left of it.
        nearer = 2 * scale**2 / (left + right) * t_partial_mean(y / scale, df)
        return torch.where(below, nearer, t_mean_abs(df) * (right - left) + nearer)

    def _mean(self) -> Double:
        df, loc, left, right = self._pieces()
        return loc + t_mean_abs(df) * (right - left)

    def _variance(self) -> Double:
        df, _, left, right = self._pieces()
        second = torch.where(df > 2, df / (df - 2), torch.inf) * (left**2 - left * right + right**2)
        return second - (t_mean_abs(df) * (right - left)) ** 2


@register_tail_mean(TwoPieceStudentT)  # type: ignore[type-abstract]
def _tail_mean(distribution: TwoPieceStudentT, p: Tensor) -> Tensor:
    df, loc, *_ = distribution._pieces()
    p = p.to(loc.device)
    mean = loc + distribution._partial_mean_from_mode(distribution._icdf(p)) / p
    return torch.where(df > 1, mean, -torch.inf).to(distribution._dtype)
