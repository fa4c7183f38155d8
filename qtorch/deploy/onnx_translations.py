"""ONNX for the operations of our graphs that torch's exporter does not know. Needs onnxscript."""

from collections.abc import Callable
from typing import Any

import torch

from qtorch.deploy.extras import needed
from qtorch.nn.recurrence import loop

onnx = needed("onnx", "onnx", "ONNX")
op = needed("onnxscript", "onnx", "ONNX").opset20
_FLOAT64 = onnx.TensorProto.DOUBLE


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


# Wichura's coefficients, of ascending powers: above and below the line of each region.
_CENTRE = (
    (
        3.3871328727963666080e0,
        1.3314166789178437745e2,
        1.9715909503065514427e3,
        1.3731693765509461125e4,
        4.5921953931549871457e4,
        6.7265770927008700853e4,
        3.3430575583588128105e4,
        2.5090809287301226727e3,
    ),
    (
        1.0,
        4.2313330701600911252e1,
        6.8718700749205790830e2,
        5.3941960214247511077e3,
        2.1213794301586595867e4,
        3.9307895800092710610e4,
        2.8729085735721942674e4,
        5.2264952788528545610e3,
    ),
)
_SIDE = (
    (
        1.42343711074968357734e0,
        4.63033784615654529590e0,
        5.76949722146069140550e0,
        3.64784832476320460504e0,
        1.27045825245236838258e0,
        2.41780725177450611770e-1,
        2.27238449892691845833e-2,
        7.74545014278341407640e-4,
    ),
    (
        1.0,
        2.05319162663775882187e0,
        1.67638483018380384940e0,
        6.89767334985100004550e-1,
        1.48103976427480074590e-1,
        1.51986665636164571966e-2,
        5.47593808499534494600e-4,
        1.05075007164441684324e-9,
    ),
)
_FAR = (
    (
        6.65790464350110377720e0,
        5.46378491116411436990e0,
        1.78482653991729133580e0,
        2.96560571828504891230e-1,
        2.65321895265761230930e-2,
        1.24266094738807843860e-3,
        2.71155556874348757815e-5,
        2.01033439929228813265e-7,
    ),
    (
        1.0,
        5.99832206555887937690e-1,
        1.36929880922735805310e-1,
        1.48753612908506148525e-2,
        7.86869131145613259100e-4,
        1.84631831751005468180e-5,
        1.42151175831644588870e-7,
        2.04426310338993978564e-15,
    ),
)


def ndtri(p: Any) -> Any:
    """The normal law's quantile, to 1e-15 in float64.

    References:
        Wichura (1988), Algorithm AS 241: the percentage points of the normal distribution, Applied Statistics.
    """
    wide = op.Cast(p, to=_FLOAT64)
    centred = op.Sub(wide, _constant(0.5))
    margin = op.Sub(_constant(0.180625), op.Mul(centred, centred))
    in_centre = op.Mul(centred, _ratio(margin, _CENTRE))
    is_left = op.Less(centred, _constant(0.0))
    tail = op.Where(is_left, wide, op.Sub(_constant(1.0), wide))
    r = op.Sqrt(op.Neg(op.Log(tail)))
    side, far = _ratio(op.Sub(r, _constant(1.6)), _SIDE), _ratio(op.Sub(r, _constant(5.0)), _FAR)
    size = op.Where(op.IsInf(r), r, op.Where(op.Less(r, _constant(5.0)), side, far))
    outside = op.Where(is_left, op.Neg(size), size)
    return op.CastLike(op.Where(op.Less(margin, _constant(0.0)), outside, in_centre), p)


def _ratio(x: Any, coefficients: tuple[tuple[float, ...], tuple[float, ...]]) -> Any:
    return op.Div(*(_polynomial(x, each) for each in coefficients))


def _polynomial(x: Any, coefficients: tuple[float, ...]) -> Any:
    """By Horner's scheme."""
    *rest, highest = coefficients
    total = _constant(highest)
    for each in reversed(rest):
        total = op.Add(op.Mul(x, total), _constant(each))
    return total


def _constant(value: float) -> Any:
    """A plain float would become float32."""
    return op.Constant(value=onnx.helper.make_tensor("", _FLOAT64, (), [value]))


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.copysign.Tensor: copysign,
    torch.ops.aten.special_ndtri.default: ndtri,
    loop: recurrent_layer,
}
