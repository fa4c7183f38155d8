"""Parts of a batch of distributions."""

from functools import singledispatch
from typing import Any

from torch import Tensor
from torch.distributions import Distribution
from torch.types import _size

from qtorch.distributions.affine import Affine
from qtorch.distributions.empirical import Empirical


@singledispatch
def take(distribution: Distribution, index: Any) -> Distribution:
    """The distributions at some places of a batch: their parameters indexed as a tensor of the batch shape would be.

    Works for classes whose parameters, named in `arg_constraints`, have the batch shape; others register their own way
    with `take.register`.

    Args:
        distribution: of batch shape `[...]` and no event dimension.
        index: anything that indexes a tensor of that shape.

    Example:
        >>> import torch
        >>> d = torch.distributions.Normal(torch.zeros(3), torch.tensor([1.0, 2.0, 3.0]))
        >>> take(d, slice(1, None)).scale
        tensor([2., 3.])
    """
    names = distribution.arg_constraints
    parameters = {name: getattr(distribution, name).expand(distribution.batch_shape)[index] for name in names}
    return type(distribution)(**parameters, validate_args=False)


def keep_last(index: Any) -> tuple[Any, ...]:
    """An index of the batch dimensions as one of a tensor that has a dimension more at its end."""
    index = index if isinstance(index, tuple) else (index,)
    return (*index, slice(None)) if any(part is Ellipsis for part in index) else (*index, ..., slice(None))


def part_of(value: Tensor, ndim: int, batch_shape: _size, index: Any) -> Tensor:
    """The part, at some places of a batch, of a parameter of `ndim` event dimensions.

    One without batch dimensions is shared by the whole batch and stays where it is; others are expanded to it first.

    Args:
        value: of a shape that broadcasts to batch and event.
        ndim: event dimensions, at the end.
        batch_shape: of the law.
        index: anything that indexes a tensor of the batch shape.
    """
    if value.ndim == ndim > 0:
        return value
    places = index if isinstance(index, tuple) else (index,)
    dots = any(place is Ellipsis for place in places)
    event = value.shape[value.ndim - ndim :]
    return value.expand(*batch_shape, *event)[(*places, *[slice(None)] * (ndim if dots else 0))]


@take.register
def _affine(distribution: Affine, index: Any) -> Affine:
    return Affine(take(distribution.base, index), distribution.loc[index], distribution.scale[index])


@take.register
def _empirical(distribution: Empirical, index: Any) -> Empirical:
    weights, index = distribution.weights, keep_last(index)
    return Empirical(distribution.values[index], None if weights is None else weights[index])
