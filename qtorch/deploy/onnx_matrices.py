"""Roots and inverses of small matrices, which ONNX does not have, of its operators. Needs onnxscript."""

from typing import Any

from qtorch.deploy.extras import needed
from qtorch.errors import ArgumentError

onnx = needed("onnx", "onnx", "ONNX")
op = needed("onnxscript", "onnx", "ONNX").opset20


def cholesky(A: Any, upper: bool = False) -> Any:
    """The root of symmetric matrices of a known size, column after column.

    A matrix that is not positive definite gives NaN, where torch raises an error, which ONNX cannot.

    Raises:
        ValueError: the upper root, or a size that is not known, is asked for.
    """
    if upper:
        raise ArgumentError("ONNX has the lower root of a matrix here; take the upper as its transpose.")
    R, swap = _size(A), _swap(A)
    columns = []
    for j in range(R):
        below = op.CastLike(op.Constant(value_floats=[0.0] * j + [1.0] * (R - j)), A)
        column = op.Mul(_column(A, j), op.Unsqueeze(below, [-1]))
        column = op.Div(column, op.Sqrt(_row(column, j)))
        A = op.Sub(A, op.MatMul(column, op.Transpose(column, perm=swap)))
        columns.append(column)
    return op.Concat(*columns, axis=-1)


def cholesky_inverse(root: Any, upper: bool = False) -> Any:
    """The inverse of L L', by forward substitution for the inverse of L, row after row.

    Raises:
        ValueError: the upper root, or a size that is not known, is given.
    """
    if upper:
        raise ArgumentError("ONNX has the inverse from a lower root here; give the transpose of an upper one.")
    R = _size(root)
    unit = [[float(i == j) for i in range(R)] for j in range(R)]
    rows: list[Any] = []
    for j in range(R):
        right = op.CastLike(
            op.Constant(value=onnx.helper.make_tensor("", onnx.TensorProto.DOUBLE, (1, R), unit[j])), root
        )
        row = _row(root, j)
        if rows:
            before = op.Slice(row, [0], [j], [-1])
            right = op.Sub(right, op.MatMul(before, op.Concat(*rows, axis=-2) if j > 1 else rows[0]))
        rows.append(op.Div(right, op.Slice(row, [j], [j + 1], [-1])))
    inverse = op.Concat(*rows, axis=-2)
    return op.MatMul(op.Transpose(inverse, perm=_swap(root)), inverse)


def _size(A: Any) -> int:
    size = A.shape[-1] if A.shape is not None else None
    if not isinstance(size, int):
        raise ArgumentError("ONNX has roots and inverses of matrices of a known size only.")
    return size


def _column(A: Any, j: int) -> Any:
    return op.Slice(A, [j], [j + 1], [-1])


def _row(A: Any, j: int) -> Any:
    return op.Slice(A, [j], [j + 1], [-2])


def _swap(A: Any) -> list[int]:
    """The order of axes in which the last two of a tensor of that rank change places."""
    axes = list(range(len(A.shape)))
    return [*axes[:-2], axes[-1], axes[-2]]
