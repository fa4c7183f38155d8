"""Sums and products over the edges of a graph, with gradients that never hold a row for each edge.

On CPUs most of the time of a graph layer goes into memory: one row of 64 numbers for each of 336,000 edges is 86 MB,
which no cache holds, and autograd keeps several of them. Here edges are visited in pieces that stay in the cache, and
what backward needs of them is computed again. Gradients of sources are sums in the order of sources, so that nothing
is scattered.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from qtorch.nn.graph.links import Links

CPU_PIECE, PIECE = 2**20, 2**26  # numbers in a piece on CPUs, where it should fit a cache, and elsewhere


def weighted_sum(
    values: Float[Tensor, "R heads width"], weights: Float[Tensor, "heads R K"], links: Links
) -> Float[Tensor, "R heads width"]:
    """The sum over k of weights[h, r, k] values[source(r, k), h].

    First derivatives only: a second backward pass raises.
    """
    if torch.compiler.is_exporting():
        return (of_sources(values, links) * weights.permute(1, 2, 0).unsqueeze(-1)).sum(1)
    return _WeightedSum.apply(values, weights, *links[:3])


def edge_products(
    targets: Float[Tensor, "R heads width"], sources: Float[Tensor, "R heads width"], links: Links
) -> Float[Tensor, "heads R K"]:
    """The inner products of targets[r, h] and sources[source(r, k), h].

    First derivatives only: a second backward pass raises.
    """
    if torch.compiler.is_exporting():
        return (of_sources(sources, links) * targets.unsqueeze(1)).sum(-1).permute(2, 0, 1)
    return _EdgeProducts.apply(targets, sources, *links[:3])


def of_sources(values: Float[Tensor, "R *rest"], links: Links) -> Float[Tensor, "R K *rest"]:
    """A row for each edge, as an exported graph has it: our operations below are known to torch alone."""
    return values.index_select(0, links.source).view(values.shape[0], -1, *values.shape[1:])


class _WeightedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weights: Tensor, source: Tensor, order: Tensor, starts: Tensor) -> Tensor:
        values, weights = values.contiguous(), weights.contiguous()
        ctx.save_for_backward(values, weights, source, order, starts)
        return torch.ops.qtorch.edge_sum(values, weights, source)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        values, weights, source, order, starts = ctx.saved_tensors
        grad, of_values, of_weights = grad.contiguous(), None, None
        if ctx.needs_input_grad[0]:
            of_values = torch.ops.qtorch.edge_spread(grad, weights, order, starts)
        if ctx.needs_input_grad[1]:
            of_weights = torch.ops.qtorch.edge_dot(grad, values, source)
        return of_values, of_weights, None, None, None


class _EdgeProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, targets: Tensor, sources: Tensor, source: Tensor, order: Tensor, starts: Tensor) -> Tensor:
        targets, sources = targets.contiguous(), sources.contiguous()
        ctx.save_for_backward(targets, sources, source, order, starts)
        return torch.ops.qtorch.edge_dot(targets, sources, source)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        targets, sources, source, order, starts = ctx.saved_tensors
        grad = grad.contiguous()
        of_targets = torch.ops.qtorch.edge_sum(sources, grad, source)
        return of_targets, torch.ops.qtorch.edge_spread(targets, grad, order, starts), None, None, None


def pieces(rows: int, numbers: int, device: torch.device, multiple: int = 1) -> Iterator[slice]:
    """Rows in pieces, each a multiple of so many rows, that hold no more numbers than is good for a device.

    Args:
        rows: all of them.
        numbers: of a row.
        device: of the tensors.
        multiple: a piece has at least that many rows.
    """
    limit = CPU_PIECE if device.type == "cpu" else PIECE
    step = max(limit // max(numbers * multiple, 1), 1) * multiple
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def blocks(vectors: Float[Tensor, "heads width"]) -> Float[Tensor, "heads D"]:
    """A matrix whose row h has vector h in the columns of head h, and 0 elsewhere."""
    return torch.block_diag(*vectors.unbind())


def _sum(values: Tensor, weights: Tensor, source: Tensor) -> Tensor:
    """`[R, heads, width]`."""
    (R, H, _), K = values.shape, weights.shape[2]
    starts = torch.arange(0, H * R * K, K, device=source.device)
    return _bags(values, source, starts, weights)


def _spread(values: Tensor, weights: Tensor, order: Tensor, starts: Tensor) -> Tensor:
    """The sum over the edges (r, k) from each source of weights[h, r, k] values[r, h], `[R, heads, width]`."""
    H, _, K = weights.shape
    starts = starts + torch.arange(0, H * len(order), len(order), device=order.device)[:, None]
    return _bags(values, order // K, starts.view(-1), weights.view(H, -1).index_select(1, order))


def _bags(values: Tensor, rows: Tensor, starts: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of given rows, for each head those from each start up to the next."""
    R, H, width = values.shape
    index = rows * H + torch.arange(H, device=rows.device)[:, None]
    sums = torch.embedding_bag(
        values.view(R * H, width), index.view(-1), starts, per_sample_weights=weights.reshape(-1)
    )[0]
    return sums.view(H, R, width).transpose(0, 1).contiguous()


def _dot(targets: Tensor, sources: Tensor, source: Tensor) -> Tensor:
    """`[heads, R, K]`."""
    R, H, width = targets.shape
    K, D = len(source) // R, H * width
    out = targets.new_empty(H, R, K)
    ones = blocks(targets.new_ones(H, width))
    room = None
    for rows in pieces(R, K * D, targets.device):
        at = source[rows.start * K : rows.stop * K]
        room = targets.new_empty(len(at), D) if room is None else room[: len(at)]
        torch.index_select(sources.view(R, D), 0, at, out=room)
        room.view(-1, K, D).mul_(targets[rows].view(-1, 1, D))
        out[:, rows] = torch.mm(ones, room.T, out=targets.new_empty(H, len(at))).view(H, -1, K)
    return out


def _like_values(values, weights, *links):  # type: ignore[no-untyped-def]
    return values.new_empty(values.shape)


def _like_edges(targets, sources, source):  # type: ignore[no-untyped-def]
    return targets.new_empty(targets.shape[1], targets.shape[0], source.shape[0] // targets.shape[0])


# By schemas, because `torch.library.custom_op` and `register_fake` read source files, which would slow the import.
for _name, _schema, _function, _shape in (
    ("edge_sum", "(Tensor values, Tensor weights, Tensor source) -> Tensor", _sum, _like_values),
    ("edge_spread", "(Tensor values, Tensor weights, Tensor order, Tensor starts) -> Tensor", _spread, _like_values),
    ("edge_dot", "(Tensor targets, Tensor sources, Tensor source) -> Tensor", _dot, _like_edges),
):
    torch.library.define(f"qtorch::{_name}", _schema)
    torch.library.impl(f"qtorch::{_name}", "CompositeExplicitAutograd", _function)
    torch.library.impl(f"qtorch::{_name}", "Meta", _shape)
