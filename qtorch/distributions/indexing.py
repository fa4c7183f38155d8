"""Parts of a batch of distributions."""

from functools import singledispatch
from typing import Any

from torch.distributions import Distribution

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


@take.register
def _affine(distribution: Affine, index: Any) -> Affine:
    return Affine(take(distribution.base, index), distribution.loc[index], distribution.scale[index])


@take.register
def _empirical(distribution: Empirical, index: Any) -> Empirical:
    weights, index = distribution.weights, keep_last(index)
    return Empirical(distribution.values[index], None if weights is None else weights[index])
