"""Tensors of requests: datatypes, shapes, and arrays of JSON values, bytes and back."""

import math
from collections.abc import Iterable
from itertools import chain
from typing import Any

import numpy as np

from qtorch.deploy.server.protocol.errors import RequestError
from qtorch.deploy.server.protocol.messages import Limits

# Bytes on the wire are little-endian, whatever the machine's.
DATATYPES = {
    "BOOL": np.dtype("bool"),
    "UINT8": np.dtype("uint8"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
_NAMES = {dtype: name for name, dtype in DATATYPES.items()}
_MOST_AXES = 8
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_SHOWN = 60  # characters of a value in a message


def datatype_of(array: np.ndarray) -> str:
    """The protocol's name of an array's dtype.

    Raises:
        KeyError: it has none.
    """
    return _NAMES[array.dtype.newbyteorder("<")]


def checked_datatype(datatype: object, where: str) -> np.dtype:
    """The dtype of a datatype.

    Raises:
        RequestError: 400, there is none of that name.
    """
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise RequestError(400, f"{where}: datatype {shown(datatype)} is none of {', '.join(DATATYPES)}. Give one.")
    return DATATYPES[datatype]


def checked_shape(shape: object, where: str, limits: Limits) -> tuple[int, ...]:
    """A shape as whole numbers.

    Raises:
        RequestError: 400 it is no list of sizes, 413 it has more elements than the server takes.
    """
    if not isinstance(shape, list):
        raise RequestError(
            400, f"{where}: shape {shown(shape)} is no list of whole numbers. Give one, such as [1, 64]."
        )
    if len(shape) > _MOST_AXES:
        raise RequestError(400, f"{where}: a shape of {len(shape)} axes; there are at most {_MOST_AXES}.")
    for axis, size in enumerate(shape):
        if type(size) is not int or size < 0:  # a bool is an int, but no size
            raise RequestError(
                400, f"{where}: shape[{axis}] is {shown(size)}. Give a whole number that is not negative."
            )
    elements = math.prod(shape)
    if elements > limits.max_elements or max(shape, default=0) > limits.max_elements:
        raise RequestError(
            413,
            f"{where}: shape {shown(shape)} is over the limit of {limits.max_elements} elements. Send fewer windows.",
        )
    return tuple(shape)


def array_of_json(data: object, dtype: np.dtype, shape: tuple[int, ...], where: str) -> np.ndarray:
    """The array of a JSON list, flat in row-major order or nested as the shape.

    Floats may be the strings "NaN", "Infinity" and "-Infinity", since JSON has no literals of these; the literals that
    many writers make of them are read too.

    Raises:
        RequestError: 400, its length, nesting or a value's type is not right, or a value does not fit the datatype.
    """
    if not isinstance(data, list):
        raise RequestError(400, f"{where}: data is {shown(data)}. Give a list of values in row-major order.")
    flat = _flat(data, shape, where)
    if len(flat) != math.prod(shape):
        raise RequestError(
            400, f"{where}: {len(flat)} values, but shape {list(shape)} has {math.prod(shape)}. Make them agree."
        )
    kinds = set(map(type, flat))
    if dtype.kind == "b":
        _require_types(flat, kinds, {bool}, where, "true or false")
        array = np.array(flat, dtype=dtype)
    elif dtype.kind == "f":
        if str in kinds:
            flat = [_NOT_FINITE.get(x, x) if isinstance(x, str) else x for x in flat]
            kinds = set(map(type, flat))
        _require_types(flat, kinds, {int, float}, where, 'a number, "NaN", "Infinity" or "-Infinity"')
        array = _floats(flat, dtype, where)
    else:
        _require_types(flat, kinds, {int}, where, "a whole number")
        array = _integers(flat, dtype, where)
    array = array.reshape(shape)
    array.setflags(write=False)
    return array


def array_of_bytes(raw: bytes | memoryview, dtype: np.dtype, shape: tuple[int, ...], where: str) -> np.ndarray:
    """The array of little-endian bytes in row-major order, without a copy.

    Raises:
        RequestError: 400, there are too few or too many, or a byte of a BOOL is neither 0 nor 1.
    """
    needs = math.prod(shape) * dtype.itemsize
    if len(raw) != needs:
        raise RequestError(
            400,
            f"{where}: {len(raw)} bytes, but shape {list(shape)} of {_NAMES[dtype]} needs {needs}. Make them agree.",
        )
    if dtype.kind == "b":
        octets = np.frombuffer(raw, dtype=np.uint8)
        if octets.size and octets.max() > 1:
            at = int(octets.argmax())
            raise RequestError(400, f"{where}: byte {at} of a BOOL tensor is {octets[at]}. Give 0 or 1 for each value.")
        return octets.view(bool).reshape(shape)
    return np.frombuffer(raw, dtype=dtype).reshape(shape)


def json_of_array(array: np.ndarray) -> list[Any]:
    """The values of an array, flat in row-major order; NaN and infinities as strings, which strict JSON can hold."""
    values: list[Any] = array.ravel().tolist()
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        values = [x if math.isfinite(x) else _name_of(x) for x in values]
    return values


def bytes_of_array(array: np.ndarray) -> bytes:
    """Little-endian bytes in row-major order."""
    return np.ascontiguousarray(array, dtype=DATATYPES[datatype_of(array)]).tobytes()


def shown(value: object) -> str:
    """A value for a message, shortened."""
    if isinstance(value, list | dict):
        kind = "list" if isinstance(value, list) else "object"
        if len(value) > 8 or any(isinstance(x, list | dict) for x in value):  # a deep one has no short repr
            return f"a{'n' if kind == 'object' else ''} {kind} of {len(value)}"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 1 << 256:
        return f"a whole number of {value.bit_length()} bits"  # of which Python may refuse to make digits
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{shown(key)}: {shown(x)}' for key, x in value.items())}}}"
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _flat(data: list[Any], shape: tuple[int, ...], where: str) -> list[Any]:
    """The innermost values of a list that is flat already, or nested as the shape."""
    if list not in set(map(type, data)):
        return data
    level: Iterable[list[Any]] = [data]
    for axis, size in enumerate(shape):
        for part in level:
            if not isinstance(part, list) or len(part) != size:
                found = f"a list of {len(part)}" if isinstance(part, list) else shown(part)
                raise RequestError(
                    400,
                    f"{where}: nested data do not match shape {list(shape)}: at axis {axis} there is {found} where a "
                    f"list of {size} is due. Make them agree, or give one flat list.",
                )
        level = list(chain.from_iterable(level))
    return list(level)


def _require_types(flat: list[Any], found: set[type], allowed: set[type], where: str, wanted: str) -> None:
    if found <= allowed:
        return
    at = next(i for i, x in enumerate(flat) if type(x) not in allowed)
    raise RequestError(400, f"{where}: data[{at}] is {shown(flat[at])}. Give {wanted}.")


def _floats(flat: list[Any], dtype: np.dtype, where: str) -> np.ndarray:
    try:
        wide = np.array(flat, dtype=np.float64)
    except OverflowError as error:  # a whole number beyond every float
        at = next(i for i, x in enumerate(flat) if isinstance(x, int) and abs(x) >= 1 << 1024)
        raise RequestError(400, f"{where}: data[{at}] does not fit {_NAMES[dtype]}. Give a smaller number.") from error
    return narrowed(wide, dtype, where)


def narrowed(wide: np.ndarray, dtype: np.dtype, where: str) -> np.ndarray:
    """Floats rounded to a narrower datatype.

    Raises:
        RequestError: 400, a finite one is beyond the largest of it.
    """
    with np.errstate(over="ignore"):
        array = wide.astype(dtype)
    beyond = np.isinf(array) & np.isfinite(wide)
    if beyond.any():
        at = int(beyond.argmax())
        raise RequestError(
            400, f"{where}: data[{at}] is {wide.flat[at]:g}, beyond what {_NAMES[dtype]} holds. Give a smaller number."
        )
    return array


def _integers(flat: list[int], dtype: np.dtype, where: str) -> np.ndarray:
    bounds = np.iinfo(dtype)
    if flat and (min(flat) < bounds.min or max(flat) > bounds.max):
        at = next(i for i, x in enumerate(flat) if not bounds.min <= x <= bounds.max)
        raise RequestError(
            400, f"{where}: data[{at}] is {shown(flat[at])}, outside [{bounds.min}, {bounds.max}] of {_NAMES[dtype]}."
        )
    return np.array(flat, dtype=dtype)


def _name_of(x: float) -> str:
    return "NaN" if math.isnan(x) else "Infinity" if x > 0 else "-Infinity"
