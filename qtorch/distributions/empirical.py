"""The empirical distribution of a sample, one per element of a batch."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.types import _size

from qtorch.distributions.tails import register_tail_mean


class Empirical(Distribution):
    """Equal mass on each of `S` values; the law behind historical simulation.

    `icdf(p)` is the ceil(p S)-th smallest value (the inverse of the empirical distribution function, type 1 of
    Hyndman and Fan 1996), and the tail mean is the mean of the values up to it.

    Args:
        values: the sample, `[..., S]`; NaN marks values that are not there, which must not be all.

    Raises:
        ValueError: an element of the batch has no value.
    """

    arg_constraints = {}
    support = constraints.real

    def __init__(self, values: Float[Tensor, "... S"], *, validate_args: bool | None = None) -> None:
        self.values = torch.sort(values, dim=-1).values  # NaN sorts last
        self.count = values.isfinite().sum(-1)
        if (self.count == 0).any():
            raise ValueError("Empirical needs at least one value in every element of the batch.")
        super().__init__(values.shape[:-1], validate_args=False)

    def expand(self, batch_shape: _size, _instance: object = None) -> "Empirical":
        """The distribution expanded to a batch shape."""
        return Empirical(self.values.expand(*batch_shape, -1))

    @property
    def mean(self) -> Tensor:
        """Mean of the values."""
        return self.values.nanmean(-1)

    @property
    def variance(self) -> Tensor:
        """Mean squared deviation of the values."""
        return ((self.values - self.mean.unsqueeze(-1)) ** 2).nanmean(-1)

    def cdf(self, value: Tensor) -> Tensor:
        """Share of the values at or below `value`."""
        return (self.values <= value.unsqueeze(-1)).sum(-1) / self.count

    def icdf(self, value: Tensor) -> Tensor:
        """Quantile at left-tail mass `value`."""
        rank, batch = torch.broadcast_tensors(self._rank(value), self.count)
        return self.values.expand(*batch.shape, -1).gather(-1, rank.unsqueeze(-1) - 1).squeeze(-1)

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:
        """Draws with replacement."""
        u = torch.rand(self._extended_shape(torch.Size(sample_shape)), device=self.values.device)
        return self.icdf(u)

    def _rank(self, probability: Tensor) -> Tensor:
        # A p S within float32's rounding of a whole number means that number: 0.05 * 500 is 25, not 25.0000004.
        return torch.ceil(probability.double() * self.count * (1 - 2e-7)).clamp(min=1).long()


@register_tail_mean(Empirical)
def _tail_mean(distribution: Empirical, probability: Tensor) -> Tensor:
    rank, count = torch.broadcast_tensors(distribution._rank(probability), distribution.count)
    values = distribution.values.nan_to_num().expand(*count.shape, -1)
    return values.cumsum(-1).gather(-1, rank.unsqueeze(-1) - 1).squeeze(-1) / rank
