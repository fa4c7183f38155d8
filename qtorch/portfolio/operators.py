"""Solvers as torch operators: eager inside a compiled graph, so that they may loop on the data and refuse it."""

from collections.abc import Callable

import torch
from torch import Tensor


def operator(
    name: str, schema: str, solve: Callable[..., Tensor], shape: Callable[..., Tensor]
) -> Callable[..., Tensor]:
    """Defines ``qtorch::name`` of a schema, which has no gradient of its own; `shape` gives an empty result.

    By a schema, because `torch.library.custom_op` reads source files, which would slow the import.
    """
    torch.library.define(f"qtorch::{name}", schema)
    torch.library.impl(f"qtorch::{name}", "CompositeExplicitAutograd", solve)
    torch.library.impl(f"qtorch::{name}", "Meta", shape)
    return getattr(torch.ops.qtorch, name).default
