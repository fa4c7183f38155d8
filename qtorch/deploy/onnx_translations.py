"""ONNX for the operations of our graphs that torch's exporter does not know. Needs onnxscript."""

from collections.abc import Callable
from typing import Any

import torch

from qtorch.deploy.extras import needed
from qtorch.deploy.onnx_matrices import cholesky, cholesky_inverse
from qtorch.deploy.onnx_special import asinh, erf, erfc, hypot, log_ndtr, ndtri, sinh
from qtorch.nn.recurrence import loop

op = needed("onnxscript", "onnx", "ONNX").opset20


def copysign(size: Any, sign: Any) -> Any:
    """The size with the sign, that of -0 too."""
    size = op.Abs(size)
    negative = op.Or(op.Less(sign, 0.0), op.Less(op.Reciprocal(sign), 0.0))
    return op.Where(negative, op.Neg(size), size)


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


def sort(x: Any, stable: bool = True, dim: int = -1, descending: bool = False) -> tuple[Any, Any]:
    """Values in order and where each was; of equal ones the first stays first."""
    count = op.Gather(op.Shape(x), [dim], axis=0)
    values, places = op.TopK(x, count, axis=dim, largest=int(descending), sorted=1)
    return values, places


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.copysign.Tensor: copysign,
    torch.ops.aten.special_ndtri.default: ndtri,
    torch.ops.aten.erf.default: erf,
    torch.ops.aten.special_erf.default: erf,
    torch.ops.aten.erfc.default: erfc,
    torch.ops.aten.special_erfc.default: erfc,
    torch.ops.aten.special_log_ndtr.default: log_ndtr,
    torch.ops.aten.asinh.default: asinh,
    torch.ops.aten.sinh.default: sinh,
    torch.ops.prims.hypot.default: hypot,
    torch.ops.aten.linalg_cholesky.default: cholesky,
    torch.ops.aten.cholesky_inverse.default: cholesky_inverse,
    torch.ops.aten.sort.stable: sort,
    loop: recurrent_layer,
}
