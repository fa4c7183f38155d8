"""Several modules of one kind as one, with stacked parameters."""

import copy
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor, nn
from torch.func import functional_call, vmap

from qtorch.errors import ArgumentError


def afresh(module: nn.Module) -> nn.Module:
    """Another module of the same class and arguments, its weights drawn anew from torch's generator.

    Args:
        module: one that keeps each of its constructor's arguments in an attribute of its name, as `describe` asks.
            Arguments that are modules are made afresh too.

    Raises:
        TypeError: an argument is not kept.
    """
    arguments: dict[str, Any] = {}
    for name in inspect.signature(type(module)).parameters:
        if not hasattr(module, name):
            raise TypeError(f"{type(module).__name__} does not keep its argument {name!r} in an attribute of its name.")
        value = getattr(module, name)
        arguments[name] = afresh(value) if isinstance(value, nn.Module) else value
    return type(module)(**arguments)


def stacked(modules: Sequence[nn.Module]) -> nn.Module:
    """A module whose parameters `[K, ...]` are those of K modules of one kind, for `torch.func.functional_call`.

    Raises:
        ValueError: the modules differ in their parameters' names or shapes, or have buffers in their state, such as
            the running statistics of a batch norm, which members would have to share.
    """
    first, *others = modules
    shapes = {name: value.shape for name, value in first.named_parameters()}
    for other in others:
        if {name: value.shape for name, value in other.named_parameters()} != shapes:
            raise ArgumentError(
                "the members' parameters differ in names or shapes. Give modules of the same arguments."
            )
    if state := first.state_dict().keys() - {name for name, _ in first.named_parameters(remove_duplicate=False)}:
        raise ArgumentError(
            f"a {type(first).__name__} has buffers {', '.join(sorted(state))} in its state, which members can't have "
            "of their own. Replace batch norms by layer norms."
        )
    together = copy.deepcopy(first)
    for name, value in together.named_parameters():
        value.data = torch.stack([module.get_parameter(name).detach() for module in modules])
    return together


def member_of(together: nn.Module, index: int) -> nn.Module:
    """One of the modules that `stacked` made one, its parameters views of the stacked ones."""
    memo: dict[int, Any] = {
        id(value): nn.Parameter(value.detach()[index], value.requires_grad) for value in together.parameters()
    }
    return copy.deepcopy(together, memo)


def each_of(
    module: nn.Module, own: Mapping[str, Tensor], inputs: tuple[Tensor, ...], chunk: int | None = None
) -> Shaped[Tensor, "*batch K D"]:
    """What a module gives with each of K values of some of its parameters and buffers, beside each other.

    Dropout and noise differ between them.

    Args:
        module: with one tensor for a result, `[*batch, D]`.
        own: the values `[K, ...]` by their names.
        inputs: of the module, the same for all.
        chunk: how many are evaluated at once; None is all.
    """

    def given(values: dict[str, Tensor]) -> Tensor:
        return functional_call(module, values, inputs)

    if chunk == 1 or torch.compiler.is_exporting():  # vmap would fix the sizes of the exported graph
        each = zip(*(value.unbind() for value in own.values()), strict=True)
        return torch.stack([given(dict(zip(own, values, strict=True))) for values in each], dim=-2)
    return vmap(given, randomness="different", chunk_size=chunk)(dict(own)).movedim(0, -2)


def run_together(module: nn.Module) -> None:
    """Makes `torch.func.vmap` run a module's recurrent and attention layers together, not net after net."""
    for part in module.modules():
        if hasattr(part, "whole"):
            part.whole = True  # type: ignore[assignment]


def stacked_parameters(module: nn.Module) -> list[nn.Parameter]:
    """A module's parameters whose first dimension is that of members: all that is in a part with `stacked = True`."""
    found: dict[int, nn.Parameter] = {}
    for part in module.modules():
        if getattr(part, "stacked", False):
            found |= {id(value): value for value in part.parameters()}
    return list(found.values())
