"""The scores of GATv2's additive attention, edge by edge, with gradients by formula."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from qtorch.nn.graph.links import Links
from qtorch.nn.graph.messages import blocks, of_sources, pieces


def additive_scores(
    targets: Float[Tensor, "R D"],
    sources: Float[Tensor, "R D"],
    attention: Float[Tensor, "heads width"],
    links: Links,
    slope: float,
    features: Float[Tensor, "RK E"] | None = None,
    edge_weight: Float[Tensor, "D E"] | None = None,
) -> Float[Tensor, "heads R K"]:
    """The scores a_h . leaky_relu(z)_h, with z = targets[r] + sources[source(r, k)] + W features[r, k].

    First derivatives only: a second backward pass raises.

    Args:
        targets: of each row.
        sources: of each row.
        attention: the vectors a_h; D is heads x width.
        links: of the graph.
        slope: of the leaky ReLU below 0; positive.
        features: of each edge.
        edge_weight: W.
    """
    if torch.compiler.is_exporting():
        z = targets.unsqueeze(1) + of_sources(sources, links)
        if features is not None and edge_weight is not None:
            z = z + torch.nn.functional.linear(features, edge_weight).view(z.shape)
        bent = torch.nn.functional.leaky_relu(z, slope).unflatten(-1, attention.shape)
        return (bent * attention).sum(-1).permute(2, 0, 1)
    return _Scores.apply(targets, sources, attention, features, edge_weight, links, slope)


class _Scores(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        targets: Tensor,
        sources: Tensor,
        attention: Tensor,
        features: Tensor | None,
        edge_weight: Tensor | None,
        links: Links,
        slope: float,
    ) -> Tensor:
        ctx.slope, ctx.nodes = slope, links.nodes
        ctx.save_for_backward(targets, sources, attention, features, edge_weight, *links[:3])
        return torch.ops.qtorch.additive_scores(targets, sources, attention, features, edge_weight, links.source, slope)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, source, order, starts = ctx.saved_tensors
        grads = torch.ops.qtorch.additive_scores_backward(
            grad.contiguous(), *tensors, source, order, starts, ctx.slope, ctx.nodes
        )
        of_features, of_weight = grads[3:] if tensors[3] is not None else (None, None)
        return *grads[:3], of_features, of_weight, None, None


def _scores(
    targets: Tensor,
    sources: Tensor,
    attention: Tensor,
    features: Tensor | None,
    edge_weight: Tensor | None,
    source: Tensor,
    slope: float,
) -> Tensor:
    (R, D), H = targets.shape, len(attention)
    K = len(source) // R
    out, a = targets.new_empty(H, R, K), blocks(attention)
    room = None
    for rows in pieces(R, K * D, targets.device):
        edges = slice(rows.start * K, rows.stop * K)
        n = edges.stop - edges.start
        room = targets.new_empty(n, D) if room is None else room[:n]
        z = _sums(room, targets, sources, features, edge_weight, source, rows, edges)
        torch.nn.functional.leaky_relu_(z, slope)
        out[:, rows] = torch.mm(a, z.T, out=targets.new_empty(H, n)).view(H, -1, K)
    return out


def _backward(
    grad: Tensor,
    targets: Tensor,
    sources: Tensor,
    attention: Tensor,
    features: Tensor | None,
    edge_weight: Tensor | None,
    source: Tensor,
    order: Tensor,
    starts: Tensor,
    slope: float,
    nodes: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients; the last two are empty where edges have no features.

    A piece is made of whole graphs, since then the edges of its sources are the piece's own.
    """
    (R, D), (H, width) = targets.shape, attention.shape
    K, a = len(source) // R, blocks(attention)
    of_targets, of_sources, of_a = torch.empty_like(targets), torch.empty_like(sources), torch.zeros_like(a)
    of_features = targets.new_empty(0) if features is None else torch.empty_like(features)
    of_weight = targets.new_empty(0) if edge_weight is None else torch.zeros_like(edge_weight)
    room, other = None, None
    for rows in pieces(R, K * D, targets.device, nodes):
        edges = slice(rows.start * K, rows.stop * K)
        n = edges.stop - edges.start
        room = targets.new_empty(n, D) if room is None else room[:n]
        other = torch.empty_like(room) if other is None else other[:n]
        y = _sums(room, targets, sources, features, edge_weight, source, rows, edges)
        torch.nn.functional.leaky_relu_(y, slope)
        g = grad[:, rows].reshape(H, n)
        of_a += torch.mm(g, y, out=torch.empty_like(a))
        by_y = torch.mm(g.T, a, out=other)
        # Of z: the slope's sign is that of y, because it is positive. It may overwrite y.
        by_z = torch.ops.aten.leaky_relu_backward.grad_input(by_y, y, slope, True, grad_input=room)
        torch.sum(by_z.view(-1, K, D), 1, out=of_targets[rows])
        own = order[edges] - edges.start
        of_sources[rows] = torch.embedding_bag(by_z, own, starts[rows] - edges.start)[0]
        if features is not None and edge_weight is not None:
            torch.mm(by_z, edge_weight, out=of_features[edges])
            of_weight += torch.mm(by_z.T, features[edges], out=torch.empty_like(of_weight))
    of_attention = of_a.view(H, H, width).diagonal(dim1=0, dim2=1).T.contiguous()
    return of_targets, of_sources, of_attention, of_features, of_weight


def _sums(
    room: Tensor,
    targets: Tensor,
    sources: Tensor,
    features: Tensor | None,
    edge_weight: Tensor | None,
    source: Tensor,
    rows: slice,
    edges: slice,
) -> Tensor:
    """The sums z of some rows, in the room given."""
    D = targets.shape[1]
    z = torch.index_select(sources, 0, source[edges], out=room)
    z.view(rows.stop - rows.start, -1, D).add_(targets[rows].unsqueeze(1))
    if features is not None and edge_weight is not None:
        torch.addmm(z, features[edges], edge_weight.T, out=z)
    return z


def _shape(targets, sources, attention, features, edge_weight, source, slope):  # type: ignore[no-untyped-def]
    return targets.new_empty(attention.shape[0], targets.shape[0], source.shape[0] // targets.shape[0])


def _shapes(grad, targets, sources, attention, features, edge_weight, *more):  # type: ignore[no-untyped-def]
    def like(tensor):  # type: ignore[no-untyped-def]
        return targets.new_empty(0 if tensor is None else tensor.shape)

    return tuple(like(tensor) for tensor in (targets, sources, attention, features, edge_weight))


# By schemas, because `torch.library.custom_op` and `register_fake` read source files, which would slow the import.
_GIVEN = "Tensor targets, Tensor sources, Tensor attention, Tensor? features, Tensor? edge_weight, Tensor source"
for _name, _schema, _function, _meta in (
    ("additive_scores", f"({_GIVEN}, float slope) -> Tensor", _scores, _shape),
    (
        "additive_scores_backward",
        f"(Tensor grad, {_GIVEN}, Tensor order, Tensor starts, float slope, int nodes)"
        " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
        _backward,
        _shapes,
    ),
):
    torch.library.define(f"qtorch::{_name}", _schema)
    torch.library.impl(f"qtorch::{_name}", "CompositeExplicitAutograd", _function)
    torch.library.impl(f"qtorch::{_name}", "Meta", _meta)
