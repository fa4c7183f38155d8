"""Functions that ONNX, or ONNX Runtime in float64, does not have, of its operators. Needs onnxscript."""

import math
from typing import Any

from qtorch.deploy.extras import needed

onnx = needed("onnx", "onnx", "ONNX")
op = needed("onnxscript", "onnx", "ONNX").opset20
_FLOAT64 = onnx.TensorProto.DOUBLE

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


# Cody's coefficients, of ascending powers, above and below the line: of x^2 near 0, of |x| to 4, of 1/x^2 beyond.
_NEAR = (
    (
        3.20937758913846947e3,
        3.77485237685302021e2,
        1.13864154151050156e2,
        3.16112374387056560e0,
        1.85777706184603153e-1,
    ),
    (2.84423683343917062e3, 1.28261652607737228e3, 2.44024637934444173e2, 2.36012909523441209e1, 1.0),
)
_BETWEEN = (
    (
        1.23033935479799725e3,
        2.05107837782607147e3,
        1.71204761263407058e3,
        8.81952221241769090e2,
        2.98635138197400131e2,
        6.61191906371416295e1,
        8.88314979438837594e0,
        5.64188496988670089e-1,
        2.15311535474403846e-8,
    ),
    (
        1.23033935480374942e3,
        3.43936767414372164e3,
        4.36261909014324716e3,
        3.29079923573345963e3,
        1.62138957456669019e3,
        5.37181101862009858e2,
        1.17693950891312499e2,
        1.57449261107098347e1,
        1.0,
    ),
)
_TAIL = (
    (
        6.58749161529837803e-4,
        1.60837851487422766e-2,
        1.25781726111229246e-1,
        3.60344899949804439e-1,
        3.05326634961232344e-1,
        1.63153871373020978e-2,
    ),
    (
        2.33520497626869185e-3,
        6.05183413124413191e-2,
        5.27905102951428412e-1,
        1.87295284992346725e0,
        2.56852019228982242e0,
        1.0,
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


def erf(x: Any) -> Any:
    """The error function, to 5e-16; in float32 ONNX's own.

    References:
        Cody (1969), Rational Chebyshev approximations for the error function, Mathematics of Computation 23.
    """
    if x.dtype != _FLOAT64:
        return op.Erf(x)
    size = op.Abs(x)
    beyond = op.Sub(_constant(1.0), _upper(size))
    return op.Where(op.Less(size, _constant(0.46875)), _near(x), op.Mul(op.Sign(x), beyond))


def erfc(x: Any) -> Any:
    """1 less the error function, to 1e-15 of itself on the right too, where that is next to 0. As `erf`."""
    wide = op.Cast(x, to=_FLOAT64)
    size = op.Abs(wide)
    upper = _upper(size)
    beyond = op.Where(op.Less(wide, _constant(0.0)), op.Sub(_constant(2.0), upper), upper)
    near = op.Sub(_constant(1.0), _near(wide))
    return op.CastLike(op.Where(op.Less(size, _constant(0.46875)), near, beyond), x)


def log_ndtr(x: Any) -> Any:
    """The log of the normal law's distribution function, however far on the left. As `erf`."""
    wide = op.Cast(x, to=_FLOAT64)
    y = op.Mul(wide, _constant(-math.sqrt(0.5)))
    on_left = op.Less(wide, _constant(-1.0))
    size = op.Where(on_left, y, _constant(1.0))
    left = op.Sub(op.Log(op.Mul(_constant(0.5), _scaled(size))), op.Mul(size, size))
    right = _log1p(op.Mul(_constant(-0.5), erfc(op.Neg(y))))
    return op.CastLike(op.Where(on_left, left, right), x)


def asinh(x: Any) -> Any:
    """The inverse of the hyperbolic sine; in float32 ONNX's own."""
    if x.dtype != _FLOAT64:
        return op.Asinh(x)
    size, one = op.Abs(x), _constant(1.0)
    root = hypot(size, one)
    # Beyond 1e8 the root is the size, and its square may be beyond float64.
    small = op.Min(size, _constant(1e8))
    near = _log1p(op.Add(small, op.Div(op.Mul(small, small), op.Add(one, hypot(small, one)))))
    far = op.Add(op.Log(op.Mul(_constant(0.5), op.Add(size, root))), _constant(math.log(2)))
    return op.Mul(op.Sign(x), op.Where(op.Less(size, _constant(1e8)), near, far))


def sinh(x: Any) -> Any:
    """The hyperbolic sine; in float32 ONNX's own."""
    if x.dtype != _FLOAT64:
        return op.Sinh(x)
    size, one, half = op.Abs(x), _constant(1.0), _constant(0.5)
    more = _expm1(op.Min(size, _constant(20.0)))
    near = op.Mul(half, op.Add(more, op.Div(more, op.Add(one, more))))
    root = op.Exp(op.Mul(half, size))  # whose square is beyond float64 only where half of it is
    far = op.Mul(op.Mul(half, root), root)
    return op.Mul(op.Sign(x), op.Where(op.Less(size, _constant(20.0)), near, far))


def hypot(x: Any, y: Any) -> Any:
    """The root of x^2 + y^2 without overflow of the squares."""
    x, y = op.Abs(x), op.Abs(y)
    larger, smaller = op.Max(x, y), op.Min(x, y)
    zero = op.CastLike(0.0, larger)
    ratio = op.Div(smaller, op.Where(op.Equal(larger, zero), op.CastLike(1.0, larger), larger))
    return op.Mul(larger, op.Sqrt(op.Add(op.Mul(ratio, ratio), op.CastLike(1.0, larger))))


def _near(x: Any) -> Any:
    """The error function near 0."""
    return op.Mul(x, _ratio(op.Mul(x, x), _NEAR))


def _upper(size: Any) -> Any:
    """1 less the error function from .46875 on; the square in two parts, the larger of them exact."""
    size = op.Min(size, _constant(30.0))  # where it is 0
    whole = op.Div(op.Floor(op.Mul(size, _constant(16.0))), _constant(16.0))
    rest = op.Mul(op.Sub(size, whole), op.Add(size, whole))
    square = op.Mul(op.Exp(op.Neg(op.Mul(whole, whole))), op.Exp(op.Neg(rest)))
    return op.Mul(square, _scaled(size))


def _scaled(size: Any) -> Any:
    """The same by exp(x^2)."""
    far = op.Max(size, _constant(4.0))
    inverse = op.Div(op.Div(_constant(1.0), far), far)
    share = op.Sub(_constant(1 / math.sqrt(math.pi)), op.Mul(inverse, _ratio(inverse, _TAIL)))
    return op.Where(op.Less(size, _constant(4.0)), _ratio(size, _BETWEEN), op.Div(share, far))


def _log1p(x: Any) -> Any:
    """log(1 + x) with the rounding of 1 + x made good (Kahan)."""
    whole = op.Add(_constant(1.0), x)
    added = op.Sub(whole, _constant(1.0))
    none = op.Equal(added, _constant(0.0))
    return op.Where(none, x, op.Div(op.Mul(op.Log(whole), x), op.Where(none, _constant(1.0), added)))


def _expm1(x: Any) -> Any:
    """exp(x) - 1, likewise; for x from 0 to 20."""
    power = op.Exp(x)
    none = op.Equal(power, _constant(1.0))
    scale = op.Div(x, op.Where(none, _constant(1.0), op.Log(power)))
    return op.Where(none, x, op.Mul(op.Sub(power, _constant(1.0)), scale))


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
