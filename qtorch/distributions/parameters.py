"""Parameters of laws: brought to one shape and dtype, and checked."""

from functools import reduce

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from qtorch.errors import ArgumentError


def broadcast(*values: Tensor | float) -> tuple[Tensor, ...]:
    """Numbers and tensors as tensors of one shape and floating dtype, on the tensors' device."""
    tensors = [value for value in values if isinstance(value, Tensor)]
    dtype = reduce(torch.promote_types, (tensor.dtype for tensor in tensors), torch.get_default_dtype())
    if tensors and all(tensor.dtype == tensors[0].dtype for tensor in tensors) and tensors[0].is_floating_point():
        dtype = tensors[0].dtype
    device = tensors[0].device if tensors else None
    return torch.broadcast_tensors(
        *(
            value.to(dtype) if isinstance(value, Tensor) else torch.tensor(value, dtype=dtype, device=device)
            for value in values
        )
    )


def tensor_of(distribution: Distribution) -> Tensor:
    """A tensor of the dtype and device of a law: its first, or that of a law it is made from.

    Raises:
        ValueError: it has none.
    """
    for value in vars(distribution).values():
        if isinstance(value, Tensor) and value.is_floating_point():
            return value
        if isinstance(value, Distribution):
            return tensor_of(value)
    raise ArgumentError(f"{type(distribution).__name__} has no tensors for parameters, hence neither dtype nor device.")


def check(distribution: Distribution, name: str, constraint: constraints.Constraint) -> None:
    """Refuses a parameter that does not meet its constraint or is not finite.

    Raises:
        ValueError: it does not; the message names the parameter, how many elements are bad and the first of them.
    """
    value = getattr(distribution, name)
    bad = ~(constraint.check(value) & torch.isfinite(value))
    if bad.any():
        low, high = (getattr(constraint, side, None) for side in ("lower_bound", "upper_bound"))
        domain = "" if low is None else f" above {low}" if high is None else f" between {low} and {high}"
        raise ArgumentError(
            f"{type(distribution).__name__} needs a finite {name}{domain}; {int(bad.sum())} of {bad.numel()} are not, "
            f"the first is {value[bad].flatten()[0].item()}."
        )
