"""ONNX for the operations of our graphs that torch's exporter does not know. Needs onnxscript."""

from collections.abc import Callable
from typing import Any

import torch

from qtorch.deploy.extras import needed
from qtorch.nn.recurrence import loop

INT32 = needed("onnx", "onnx", "ONNX").TensorProto.INT32
op = needed("onnxscript", "onnx", "ONNX").opset20


def copysign(size: Any, sign: Any) -> Any:
    """The size with the sign, that of -0 too."""
    size = op.Abs(size)
    negative = op.Or(op.Less(sign, 0.0), op.Less(op.Reciprocal(sign), 0.0))
    return op.Where(negative, op.Neg(size), size)


def sort(values: Any, stable: bool = True, dim: int = -1, descending: bool = False) -> Any:
    """By TopK of all, of which equals keep their order in ONNX."""
    count = op.Reshape(op.Gather(op.Shape(values), [dim]), [1])
    return op.TopK(values, count, axis=dim, largest=int(descending), sorted=1)


def cholesky(matrix: Any, upper: bool = False, check_errors: bool = False) -> Any:
    """The lower root of small matrices, number by number, and 1 where there is none, which is NaN then."""
    a, size = _entries(matrix), matrix.shape[-1]
    root = [[op.Mul(a[0][0], 0.0)] * size for _ in range(size)]
    for j in range(size):
        root[j][j] = op.Sqrt(_less_products(a[j][j], root[j][:j], root[j][:j]))
        for i in range(j + 1, size):
            root[i][j] = op.Div(_less_products(a[i][j], root[i][:j], root[j][:j]), root[j][j])
    info = op.Cast(op.Squeeze(op.IsNaN(root[-1][-1]), [-2, -1]), to=INT32)
    made = _matrix(root)
    return (op.Transpose(made, perm=_swapped(matrix)) if upper else made), info


def cholesky_inverse(root: Any, upper: bool = False) -> Any:
    """The inverse of the matrix that a small root is of, by that of the root, number by number."""
    swapped = _swapped(root)
    entries, size = _entries(op.Transpose(root, perm=swapped) if upper else root), root.shape[-1]
    zero = op.Mul(entries[0][0], 0.0)
    inverse = [[zero] * size for _ in range(size)]
    for j in range(size):
        inverse[j][j] = op.Reciprocal(entries[j][j])
        for i in range(j + 1, size):
            below = _less_products(zero, entries[i][j:i], [inverse[k][j] for k in range(j, i)])
            inverse[i][j] = op.Div(below, entries[i][i])
    made = _matrix(inverse)
    return op.MatMul(op.Transpose(made, perm=swapped), made)


def _entries(matrix: Any) -> list[list[Any]]:
    size = range(matrix.shape[-1])
    return [[op.Gather(op.Gather(matrix, [i], axis=-2), [j], axis=-1) for j in size] for i in size]


def _matrix(entries: list[list[Any]]) -> Any:
    return op.Concat(*(op.Concat(*row, axis=-1) for row in entries), axis=-2)


def _less_products(start: Any, a: list[Any], b: list[Any]) -> Any:
    for x, y in zip(a, b, strict=True):
        start = op.Sub(start, op.Mul(x, y))
    return start


def _swapped(matrix: Any) -> list[int]:
    *batch, row, column = range(len(matrix.shape))
    return [*batch, column, row]


def recurrent_layer(x: Any, w_x: Any, w_h: Any, b_x: Any, b_h: Any, cell: str) -> Any:
    """A layer of GRU or LSTM, whose gates ONNX has in another order than torch."""
    kind, order = {"gru": ("GRU", (1, 0, 2)), "lstm": ("LSTM", (0, 3, 1, 2))}[cell]
    width = w_h.shape[1]
    rows = [gate * width + row for gate in order for row in range(width)]

    def ordered(weights: Any) -> Any:
        return op.Gather(weights, rows, axis=0)

    W, R = (op.Unsqueeze(ordered(weights), [0]) for weights in (w_x, w_h))
    b = op.Unsqueeze(op.Concat(ordered(b_x), ordered(b_h), axis=0), [0])
    steps = op.Transpose(x, perm=[1, 0, 2])
    options = {"linear_before_reset": 1} if kind == "GRU" else {}
    states = getattr(op, kind)(steps, W, R, b, hidden_size=width, **options)[0]
    return op.Transpose(op.Squeeze(states, [1]), perm=[1, 0, 2])


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.copysign.Tensor: copysign,
    torch.ops.aten.sort.stable: sort,
    torch.ops.aten.linalg_cholesky_ex.default: cholesky,
    torch.ops.aten.cholesky_inverse.default: cholesky_inverse,
    loop: recurrent_layer,
}
