"""Allocators as plain values and back."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from qtorch.data.window import WindowSpec
from qtorch.deploy.allowed import check_function, check_modules
from qtorch.errors import ArgumentError
from qtorch.nn import build, describe
from qtorch.portfolio import Costs
from qtorch.portfolio.graphs import GraphBuilder
from qtorch.training import Allocator

SETTINGS = ("every", "length", "min_history", "stale", "groups")


def allocator_parts(model: Allocator) -> dict[str, Any]:
    """All that the weights of an allocator depend on, but for its network's weights and windows.

    Raises:
        TypeError: the network or the allocation layer cannot be described in plain values.
    """
    return {
        "kind": Allocator.__name__,
        "network": describe(model.network),
        "allocation": describe(model.allocation),
        "half_lives": list(model.half_lives),
        "graphs": model.graphs.plain(),
        "costs": asdict(model.costs),
        "settings": {name: getattr(model, name) for name in SETTINGS},
    }


def built_allocator(parts: dict[str, Any], spec: WindowSpec, allow: Sequence[str]) -> Allocator:
    """A fresh allocator of what `allocator_parts` says.

    Raises:
        ValueError: a class or a function of the graphs is not allowed or does not fit, or a setting is out of bounds.
    """
    for name in ("every", "length", "min_history", "stale"):
        if type(parts["settings"][name]) is not int:
            raise ArgumentError(f"{name}={parts['settings'][name]!r} is no whole number")
    for part in ("network", "allocation"):
        check_modules(parts[part], allow)
    for name in ("correlation", "shrinkage", "sparsifier"):
        if (step := parts["graphs"][name]) is not None:
            check_function(step, allow)
    graphs = GraphBuilder(**parts["graphs"] | {"allow": allow})  # by what the reader allows, not what the file says
    return Allocator(
        build(parts["network"], allow=allow),
        build(parts["allocation"], allow=allow),
        spec,
        half_lives=parts["half_lives"],
        graphs=graphs,
        costs=Costs(**parts["costs"]),
        **parts["settings"],
    )
