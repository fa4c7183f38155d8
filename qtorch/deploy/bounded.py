"""A bound on what modules allocate while they are made."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from qtorch.errors import ArgumentError

_CALL = 1 << 15  # bytes that any operation counts for, so that many small modules end too
_FREE = 1 << 29  # bytes in all that are always granted
_SHARE = 8  # times the weights: initial values, copies of an ensemble's members


class Bounded(TorchDispatchMode):
    """Refuses, in this thread, tensors out of all proportion to the weights that a file holds, before they are made.

    What an operation would give is first computed on the meta device, which has shapes alone.

    Args:
        weights: bytes of the file.

    Raises:
        ValueError: where an operation asks for too much.

    Example:
        >>> with Bounded(1_000):
        ...     torch.nn.Linear(10**9, 10**9)
        Traceback (most recent call last):
        qtorch.errors.ArgumentError: it asks for 4,000,000,000,000,032,768 bytes, but its weights take 1,000...
    """

    def __init__(self, weights: int) -> None:
        super().__init__()
        self.weights, self.spent = weights, 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """An operation, if there is room for it."""
        given = dict(kwargs or {})
        self.spent += _CALL + _bytes_of(func, args, given)
        if self.spent > _FREE + _SHARE * self.weights:
            raise ArgumentError(f"it asks for {self.spent:,} bytes, but its weights take {self.weights:,}")
        return func(*args, **given)


def _bytes_of(func: Any, args: Sequence[Any], given: Mapping[str, Any]) -> int:
    """What an operation allocates."""
    schema = func._schema
    if any(out.alias_info is not None for out in schema.returns):
        return 0  # it changes a tensor in place, or gives a view
    moved: dict[str, Any] = tree_map_only(Tensor, _shape_alone, dict(given))
    if any(argument.name == "device" for argument in schema.arguments):
        moved["device"] = torch.device("meta")
    if "generator" in moved:
        moved["generator"] = None  # those of a CPU make nothing on meta
    try:
        made = func(*tree_map_only(Tensor, _shape_alone, tuple(args)), **moved)
    except RuntimeError:
        if not any(isinstance(leaf, Tensor) for leaf in tree_leaves((args, given))):
            raise
        return 0  # a value or a size that depends on tensors' values, and those have been paid for
    return sum(leaf.nbytes for leaf in tree_leaves(made) if isinstance(leaf, Tensor))


def _shape_alone(tensor: Tensor) -> Tensor:
    return tensor.to("meta")
