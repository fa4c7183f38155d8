"""Laws of several classes as one batch."""

from collections.abc import Callable, Sequence
from functools import reduce

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.types import _size

from qtorch.distributions.cumulative import cdf, has_atoms, icdf
from qtorch.distributions.log_tails import log_cdf, log_sf, log_tails
from qtorch.distributions.moment_generating import log_moment_generating
from qtorch.distributions.tails import partial_mean, register_tail_mean, tail_mean
from qtorch.errors import ArgumentError


class Stacked(Distribution):
    """Univariate laws of any classes side by side: place k of the last batch dimension holds the k-th of them.

    The components of a `Mixture` of unlike laws, such as a network's and a GARCH model's.

    Args:
        laws: `K` of them, of one batch shape `[...]`; the batch shape is `[..., K]`.

    Raises:
        ValueError: there is none, or their batch shapes differ.

    Example:
        >>> from torch.distributions import Normal
        >>> from qtorch.distributions import Mixture, StudentT
        >>> laws = Stacked([Normal(torch.zeros(2), 0.01), StudentT(torch.full((2,), 3.0), 0.0, 0.02)])
        >>> Mixture(torch.tensor([0.75, 0.25]), laws).cdf(torch.tensor(-0.03))
        tensor([0.0298, 0.0298])
    """

    arg_constraints = {}
    support = constraints.real

    def __init__(self, laws: Sequence[Distribution]) -> None:
        shapes = {tuple(law.batch_shape) for law in laws}
        if len(shapes) != 1 or any(law.event_shape for law in laws):
            raise ArgumentError(f"univariate laws of one batch shape are stacked, not of {sorted(shapes)}.")
        self.laws = tuple(laws)
        super().__init__(torch.Size((*shapes.pop(), len(self.laws))), validate_args=False)

    def expand(self, batch_shape: _size, _instance: object = None) -> "Stacked":
        """The distribution expanded to a batch shape, which ends in K."""
        if torch.Size(batch_shape)[-1:] != self.batch_shape[-1:]:
            raise ArgumentError(f"{len(self.laws)} stacked laws can't be expanded to a batch of {tuple(batch_shape)}.")
        return Stacked([law.expand(torch.Size(batch_shape)[:-1]) for law in self.laws])

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """Whether all have it."""
        return all(law.has_rsample for law in self.laws)

    @property
    def has_atoms(self) -> bool:
        """Whether any has."""
        return any(map(has_atoms, self.laws))

    @property
    def mean(self) -> Tensor:
        """Means."""
        return _stack([law.mean for law in self.laws])

    @property
    def variance(self) -> Tensor:
        """Variances."""
        return _stack([law.variance for law in self.laws])

    def log_prob(self, value: Tensor) -> Tensor:
        """Log densities at `value`, which broadcasts against the batch shape."""
        return self._each(lambda law, x: law.log_prob(x), value)

    def cdf(self, value: Tensor) -> Tensor:
        """Distribution functions."""
        return self._each(cdf, value)

    def icdf(self, value: Tensor) -> Tensor:
        """Quantiles at left-tail mass `value`."""
        return self._each(icdf, value)

    def log_cdf(self, value: Tensor) -> Tensor:
        """Logs of the distribution functions."""
        return self._each(log_cdf, value)

    def log_sf(self, value: Tensor) -> Tensor:
        """Logs of P(X > value)."""
        return self._each(log_sf, value)

    def log_tails(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """`log_cdf` and `log_sf`, which share most of their work."""
        below, above = zip(*(log_tails(law, x) for law, x in self._places(value)), strict=True)
        return _stack(below), _stack(above)

    def partial_mean(self, value: Tensor) -> Tensor:
        """E[X 1{X <= value}]."""
        return self._each(partial_mean, value)

    def log_moment_generating(self, t: Tensor) -> Tensor:
        """Logs of E[exp(t X)], of laws that have one."""
        return self._each(log_moment_generating, t)

    def entropy(self) -> Tensor:
        """Differential entropies."""
        return _stack([law.entropy() for law in self.laws])

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:
        """Draws without gradients."""
        return _stack([law.sample(torch.Size(sample_shape)) for law in self.laws])

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:
        """Draws with gradients."""
        return _stack([law.rsample(torch.Size(sample_shape)) for law in self.laws])

    def _each(self, function: Callable[[Distribution, Tensor], Tensor], value: Tensor) -> Tensor:
        return _stack([function(law, x) for law, x in self._places(value)])

    def _places(self, value: Tensor) -> list[tuple[Distribution, Tensor]]:
        """Each law with its values, from values that broadcast against the batch shape."""
        values = value.expand(torch.broadcast_shapes(value.shape, self.batch_shape[-1:]))
        return list(zip(self.laws, values.unbind(-1), strict=True))


@register_tail_mean(Stacked)
def _tail_mean(distribution: Stacked, probability: Tensor) -> Tensor:
    return distribution._each(tail_mean, probability)


def _stack(parts: Sequence[Tensor]) -> Tensor:
    """Along a new last dimension, in the widest of their dtypes."""
    dtype = reduce(torch.promote_types, (part.dtype for part in parts))
    return torch.stack(torch.broadcast_tensors(*(part.to(dtype) for part in parts)), dim=-1)
