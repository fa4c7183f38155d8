"""The empirical distribution of a sample, one per element of a batch."""

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.types import _size

from qtorch.distributions.tails import register_tail_mean
from qtorch.errors import ArgumentError

# A p S within float32's rounding of a whole number means that number: 0.05 * 500 is 25, not 25.0000004.
_ROUNDING = 2e-7


class Empirical(Distribution):
    """Mass on each of `S` values, equal or given; the law behind historical simulation and weighted scenarios.

    `icdf(p)` is the smallest value whose cumulative mass reaches p (the inverse of the empirical distribution function,
    type 1 of Hyndman and Fan 1996; the ceil(p S)-th smallest of equal masses), and the tail mean is the mean of the
    values up to it, whole ones: that of a `Mixture` takes of the last only what p has left for it.

    Args:
        values: the sample, `[..., S]`; NaN marks values that are not there, which must not be all.
        weights: masses of the values, `[..., S]`, 0 or more; scaled to sum to 1; equal by default.
        validate_args: False skips the checks, as torch.compile does.

    Raises:
        ValueError: an element of the batch has no value, or a weight is negative, not finite or all are zero.
    """

    arg_constraints = {}
    support = constraints.real
    has_atoms = True

    def __init__(
        self,
        values: Float[Tensor, "... S"],
        weights: Float[Tensor, "... S"] | None = None,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.values, order = torch.sort(values, dim=-1)  # NaN sorts last
        there = ~self.values.isnan()
        self.count = there.sum(-1)
        checked = validate_args is not False and not torch.compiler.is_compiling()
        if checked and (self.count == 0).any():
            raise ArgumentError("Empirical needs at least one value in every element of the batch.")
        self.weights: Tensor | None = None
        self._kept: Tensor | None = None
        if weights is not None:
            if checked and not (torch.isfinite(weights) & (weights >= 0)).all():
                raise ArgumentError("Empirical needs finite weights of 0 or more.")
            mass = there.double() * weights.double().expand(values.shape).gather(-1, order)
            if checked and not (mass.sum(-1) > 0).all():
                raise ArgumentError("Empirical needs a positive weight on a value in every element of the batch.")
            self.weights = mass / mass.sum(-1, keepdim=True)
        super().__init__(values.shape[:-1], validate_args=False)

    @property
    def _mass(self) -> Tensor:
        """Of each value, in float64: equal masses are not kept, which take twice the memory of the values."""
        if self.weights is not None:
            return self.weights
        mass = (~self.values.isnan()).double()
        return mass / mass.sum(-1, keepdim=True)

    def _cumulative(self) -> Tensor:
        """Of each value and those below it. Kept by hand: a `cached_property` takes a lock, which does not compile."""
        if self._kept is None:
            self._kept = self._mass.cumsum(-1)
        return self._kept

    def expand(self, batch_shape: _size, _instance: object = None) -> "Empirical":
        """The distribution expanded to a batch shape."""
        weights = None if self.weights is None else self.weights.expand(*batch_shape, -1)
        return Empirical(self.values.expand(*batch_shape, -1), weights)

    @property
    def mean(self) -> Tensor:
        """Mean of the values."""
        return (self._mass * self.values.nan_to_num()).sum(-1).to(self.values.dtype)

    @property
    def variance(self) -> Tensor:
        """Mean squared deviation of the values."""
        squares = (self.values - self.mean.unsqueeze(-1)) ** 2
        return (self._mass * squares.nan_to_num()).sum(-1).to(self.values.dtype)

    def cdf(self, value: Tensor) -> Tensor:
        """Mass of the values at or below `value`."""
        return self._mass_of(self.values <= value.unsqueeze(-1), value)

    def log_sf(self, value: Tensor) -> Tensor:
        """Log of P(X > value), from the values above: 1 less the mass of the others has few digits, if any."""
        return torch.log(self._mass_of(self.values > value.unsqueeze(-1), value))

    def partial_mean(self, value: Tensor) -> Tensor:
        """E[X 1{X <= value}]."""
        at_most = self.values <= value.unsqueeze(-1)
        share = (torch.where(at_most, self.values, 0.0) * self._mass).sum(-1)
        share = torch.where(value.isnan(), torch.nan, share)
        return share.to(torch.promote_types(self.values.dtype, value.dtype))

    def icdf(self, value: Tensor) -> Tensor:
        """Quantile at left-tail mass `value` in [0, 1]; NaN outside."""
        value = value.to(self.values.device)
        inside = (value >= 0) & (value <= 1)
        rank, _ = torch.broadcast_tensors(self._rank(torch.where(inside, value, 0.5)), self.count)
        x = self.values.expand(*rank.shape, -1).gather(-1, rank.unsqueeze(-1) - 1).squeeze(-1)
        return torch.where(inside, x, torch.nan)

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:
        """Draws with replacement."""
        u = torch.rand(self._extended_shape(torch.Size(sample_shape)), device=self.values.device)
        return self.icdf(u)

    def _mass_of(self, chosen: Tensor, value: Tensor) -> Tensor:
        """Mass of the chosen values, NaN where `value` is."""
        share = chosen.sum(-1).double() / self.count if self.weights is None else (chosen * self._mass).sum(-1)
        share = torch.where(value.isnan(), torch.nan, share)
        return share.to(torch.promote_types(self.values.dtype, value.dtype))

    def _rank(self, probability: Tensor) -> Tensor:
        """How many of the smallest values the left tail of that mass takes."""
        if self.weights is None:
            return equal_rank(probability, self.count)
        p = _rounded(probability.to(self.count.device, torch.float64))
        # Above 0, so that values without mass before the first with one are passed over.
        p, _ = torch.broadcast_tensors(p.clamp(min=torch.finfo(torch.float64).tiny), self.count)
        cumulative = self._cumulative().expand(*p.shape, -1).contiguous()
        p = torch.minimum(p, cumulative[..., -1])  # 1, but for rounding
        rank = torch.searchsorted(cumulative, p.unsqueeze(-1).contiguous()).squeeze(-1) + 1
        # A mass of 0 has no value; the first of positive mass is the smallest.
        return torch.minimum(rank, self.count)


def equal_rank(probability: Float[Tensor, "..."], count: Int[Tensor, "..."]) -> Int64[Tensor, "..."]:
    """How many of the smallest of `count` values of equal mass the left tail of a mass takes, 1 at least."""
    p = _rounded(probability.to(count.device, torch.float64))
    return torch.ceil(p * count).clamp(min=1).long()


def _rounded(p: Tensor) -> Tensor:
    return p - torch.minimum(_ROUNDING * p, 0.5 * (1 - p))  # which leaves what is above p, however little, above it


@register_tail_mean(Empirical)
def _tail_mean(distribution: Empirical, probability: Tensor) -> Tensor:
    rank, _ = torch.broadcast_tensors(distribution._rank(probability), distribution.count)
    values = distribution.values.nan_to_num().expand(*rank.shape, -1)
    place = rank.unsqueeze(-1) - 1
    if distribution.weights is None:
        return values.cumsum(-1).gather(-1, place).squeeze(-1) / rank
    mass = distribution._mass.expand(*rank.shape, -1)
    below = (mass * values).cumsum(-1).gather(-1, place) / mass.cumsum(-1).gather(-1, place)
    return below.squeeze(-1).to(distribution.values.dtype)
