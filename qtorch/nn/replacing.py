"""Parts of a module, replaced by others in place."""

from collections.abc import Callable
from typing import Any

from torch import nn


def replace_parts(module: nn.Module, kind: type[nn.Module], other: Callable[[Any], nn.Module]) -> int:
    """Puts another module in the place of each part of exactly one class; of a shared one the same in each place.

    Args:
        module: it stays itself, whatever its class.
        kind: the class; subclasses count as others.
        other: the module for a part, which may be the part itself.

    Returns:
        How many parts were replaced.
    """
    made: dict[int, nn.Module] = {}
    for parent in list(module.modules()):
        for name, part in list(parent._modules.items()):
            if type(part) is kind:
                if id(part) not in made:
                    made[id(part)] = other(part)
                setattr(parent, name, made[id(part)])
    return len(made)
