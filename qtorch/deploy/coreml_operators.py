"""Operators that coremltools does not know, or not at free sizes, by others that it does."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from qtorch.deploy.edge_program import rewritten

aten = torch.ops.aten


def operators() -> dict[Any, Callable[..., Any]]:
    """What each is written by, as `ExportedProgram.run_decompositions` takes it."""
    table = dict(torch.export.default_decompositions())
    table.pop(aten.roll.default, None)  # known to it, while the remainder that it would become is not
    return (
        table
        | rewritten()
        | {
            aten.alias.default: torch.clone,
            aten.diagonal.default: _diagonal,
            aten.gather.default: _gather,
            aten.index_select.default: _index_select,
            aten.lerp.Tensor: _lerp,
            aten.scatter.src: _scatter,
            aten.scatter_add.default: _scatter_add,
            aten.select_scatter.default: _select_scatter,
            aten.slice_scatter.default: _slice_scatter,
            aten.trunc.default: _trunc,
        }
    )


def _gather(values: Tensor, dim: int, index: Tensor, sparse_grad: bool = False) -> Tensor:
    """Its own wants sizes that it knows to be equal."""
    return values.flatten().index_select(0, _places(index, dim, values)).view(index.shape)


def _index_select(values: Tensor, dim: int, index: Tensor) -> Any:
    """Its own is of numbers alone; NotImplemented leaves these to it."""
    if values.dtype != torch.bool:
        return NotImplemented
    return values.to(torch.int32).index_select(dim, index) != 0


def _scatter(values: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    return _put(values, dim, index, source, accumulate=False)


def _scatter_add(values: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    return _put(values, dim, index, source, accumulate=True)


def _put(values: Tensor, dim: int, index: Tensor, source: Tensor, accumulate: bool) -> Tensor:
    places = _places(index, dim, values)
    return values.flatten().index_put((places,), source.flatten(), accumulate=accumulate).view(values.shape)


def _places(index: Tensor, dim: int, values: Tensor) -> Tensor:
    """Where in the flattened values an index along a dimension points, flattened too."""
    index = index.to(torch.int32)  # a clamped index is of floats there, which places beyond 2**24 would be rounded in
    places: Tensor | None = None
    for d, size in enumerate(values.shape):
        steps = torch.arange(index.shape[d], dtype=index.dtype, device=index.device)
        own = index if d == dim % values.ndim else steps.view(-1, *(1,) * (index.ndim - d - 1))
        places = own if places is None else places * size + own
    assert places is not None
    return places.flatten()


def _diagonal(values: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    """Its own leaves the matrix, with zeros beside the diagonal."""
    matrices = values.movedim((dim1, dim2), (-2, -1))
    if offset != 0 or matrices.shape[-2] != matrices.shape[-1]:
        return NotImplemented
    places = torch.arange(matrices.shape[-1], device=values.device)
    return torch.where(places == places.unsqueeze(-1), matrices, 0).sum(-1)


def _trunc(values: Tensor) -> Tensor:
    return torch.where(values < 0, values.ceil(), values.floor())


def _select_scatter(values: Tensor, source: Tensor, dim: int, index: int) -> Any:
    return _slice_scatter(values, source.unsqueeze(dim), dim, index, None if index == -1 else index + 1)


def _slice_scatter(
    values: Tensor, source: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Any:
    if step != 1 or not isinstance(values.shape[dim], int):  # its own does for free sizes
        return NotImplemented
    start, end, _ = slice(start, end).indices(values.shape[dim])
    sides = (values.narrow(dim, 0, start), source, values.narrow(dim, end, values.shape[dim] - end))
    return torch.cat([side for side in sides if side.shape[dim] != 0], dim)


def _lerp(start: Tensor, end: Tensor, weight: Tensor) -> Tensor:
    """As torch's, exact at the weights 0 and 1, without a copy of a given layout."""
    step = end - start
    return torch.where(weight < 0.5, start + weight * step, end - step * (1 - weight))
