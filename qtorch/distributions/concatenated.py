"""Joint laws of any kind as one batch, one after the other."""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.types import _size

from qtorch.distributions import coordinates
from qtorch.distributions.indexing import take
from qtorch.errors import ArgumentError


class Concatenated(Distribution):
    """Joint laws along the first dimension of their batches, each evaluated by itself.

    For laws that can't be one of their own class, such as those of several networks: the forecasts of a walk of refits.

    Args:
        laws: at least one, of batch shapes `[..]` that differ in the first dimension alone and one event shape `[N]`.
        join: makes one of the laws' marginals.

    Raises:
        ValueError: there is none, or the shapes do not fit.
    """

    arg_constraints = {}
    support = constraints.real_vector

    def __init__(self, laws: Sequence[Distribution], join: Callable[[Sequence[Distribution]], Distribution]) -> None:
        shapes = [(tuple(law.batch_shape), tuple(law.event_shape)) for law in laws]
        if not shapes or any(len(e) != 1 or not b or (b[1:], e) != (shapes[0][0][1:], shapes[0][1]) for b, e in shapes):
            raise ArgumentError(f"joint laws [D, ...] of one event shape [N] are concatenated, not of {shapes}.")
        self.laws, self.join = tuple(laws), join
        self._lengths = [batch[0] for batch, _ in shapes]
        super().__init__(
            torch.Size((sum(self._lengths), *shapes[0][0][1:])), torch.Size(shapes[0][1]), validate_args=False
        )

    @property
    def marginals(self) -> Distribution | None:
        """The coordinates' laws, batch shape `[..., N]`; None if a part's have no closed form."""
        parts = [law.marginals for law in self._parts]
        shapes = [torch.Size((*law.batch_shape, *law.event_shape)) for law in self.laws]
        if any(part is None for part in parts):
            return None
        return self.join([part.expand(shape) for part, shape in zip(parts, shapes, strict=True)])

    def log_prob(
        self, value: Float[Tensor, "... N"], mask: Bool[Tensor, "... N"] | None = None
    ) -> Float[Tensor, "..."]:
        """Log density of the coordinates that are there; arguments as of the laws' own, which broadcast.

        Raises:
            ValueError: the last dimension of value or mask is not N.
        """
        N = self.event_shape[0]
        coordinates.require_event(value, "value", N)
        there = coordinates.there(mask, N, value.device)
        shape = torch.broadcast_shapes(value.shape, there.shape, (*self.batch_shape, N))
        axis = len(shape) - 1 - len(self.batch_shape)
        pieces = zip(
            self._parts,
            value.expand(shape).split(self._lengths, axis),
            there.expand(shape).split(self._lengths, axis),
            strict=True,
        )
        return torch.cat([law.log_prob(x, some) for law, x, some in pieces], dim=axis)

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:
        """Draws without gradients."""
        shape = torch.Size(sample_shape)
        return torch.cat([law.sample(shape) for law in self.laws], dim=len(shape))

    @property
    def _parts(self) -> Sequence[Any]:
        return self.laws


@take.register
def _concatenated(distribution: Concatenated, index: Any) -> Distribution:
    """Of the parts in which the places are, in their order."""
    first, *rest = index if isinstance(index, tuple) else (index,)
    lengths = torch.tensor(distribution._lengths)
    if first is Ellipsis or first is None:
        raise ArgumentError(
            "a concatenated law is indexed along its first dimension: give a position, a slice or a mask."
        )
    places = torch.arange(distribution.batch_shape[0])[first.cpu() if isinstance(first, Tensor) else first]
    ends = lengths.cumsum(0)
    if places.ndim == 0:
        k = int(torch.searchsorted(ends, places, right=True))
        return take(distribution.laws[k], (int(places - ends[k] + lengths[k]), *rest))
    part = torch.searchsorted(ends, places, right=True).tolist()
    found, start = [], 0
    for k, run in groupby(part):
        stop = start + len(list(run))
        found.append(take(distribution.laws[k], (places[start:stop] - (ends[k] - lengths[k]), *rest)))
        start = stop
    if not found:
        return take(distribution.laws[0], (slice(0), *rest))
    return found[0] if len(found) == 1 else Concatenated(found, distribution.join)
