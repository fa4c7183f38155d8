"""Programs of torch.export for devices, whose runtimes want bounds on every axis and know fewer operators."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from qtorch.deploy.program import Program
from qtorch.errors import ArgumentError

MOST = {"B": 64, "C": 256, "N": 64, "K": 16}


def bounds_of(program: Program, most: Mapping[str, int] | None) -> dict[str, int]:
    """The largest size of each axis that varies.

    Args:
        program: whose axes.
        most: of some of them; others have those of `MOST`.

    Raises:
        ValueError: there is no such axis, or a bound below 2.
    """
    if unknown := (most or {}).keys() - set(program.letters):
        raise ArgumentError(f"there is no axis {sorted(unknown)[0]!r}; those that vary are {program.letters}.")
    bounds = {letter: (MOST | dict(most or {}))[letter] for letter in program.letters}
    if low := [letter for letter, bound in bounds.items() if bound < 2]:
        raise ArgumentError(f"the bound of the axis {low[0]!r} is {bounds[low[0]]}, but must be 2 or more.")
    return bounds


def edge_program(
    program: Program,
    bounds: Mapping[str, int],
    function: nn.Module | None = None,
    example: tuple[Tensor, ...] | None = None,
) -> ExportedProgram:
    """A program with each axis free up to its bound.

    Args:
        program: what is exported.
        bounds: the largest size of each axis.
        function: of the same inputs, in its place.
        example: inputs of the function, if of other types.

    Raises:
        ValueError: an axis is not free in this program.
    """
    example = program.example(**sizes_within(program, bounds)) if example is None else example
    free = {letter: Dim(letter, min=1, max=bound) for letter, bound in bounds.items()}
    shapes = tuple(
        {axis: free[letter] for axis, letter in enumerate(spec.axes) if isinstance(letter, str)}
        for spec in program.signature.inputs
    )
    try:
        with torch.no_grad():
            return torch.export.export(function or program, example, dynamic_shapes=(shapes,))
    except torch._dynamo.exc.UserError as error:
        raise ArgumentError(
            f"not every axis of this model is free up to its bound ({str(error).strip()[:300]}). Use deploy.export or "
            "deploy.to_onnx."
        ) from error


def sizes_within(program: Program, bounds: Mapping[str, int]) -> dict[str, int]:
    """Small sizes that differ where their bounds let them, above 1, which torch.export takes for fixed."""
    return {letter: min(bounds[letter], size) for letter, size in zip(program.letters, (3, 5, 7, 9), strict=False)}


def rewritten() -> dict[Any, Callable[..., Any]]:
    """Operators that a device has not, or not for all sizes, by others: for `ExportedProgram.run_decompositions`."""
    aten = torch.ops.aten
    return {
        aten.add.Tensor: _add,
        aten.copysign.Tensor: _copysign,
        aten.sub.Tensor: _subtract,
        aten.unfold.default: _unfold,
    }


def _add(one: Any, other: Any, *, alpha: float | int = 1) -> Any:
    """Where the second has more axes but no more numbers, ExecuTorch's multiplies the first; others are left to it."""
    return NotImplemented if alpha == 1 else one + alpha * other


def _subtract(one: Any, other: Any, *, alpha: float | int = 1) -> Any:
    return NotImplemented if alpha == 1 else one - alpha * other


def _copysign(size: Tensor, sign: Tensor) -> Tensor:
    """Of a negative zero's sign nothing is left."""
    return torch.where(sign < 0, -size.abs(), size.abs())


def _unfold(values: Tensor, dim: int, size: int, step: int) -> Tensor:
    last = values.shape[dim] - size
    parts = [torch.ops.aten.slice(values, dim, first, first + last + 1, step) for first in range(size)]
    return torch.stack(parts, -1)
