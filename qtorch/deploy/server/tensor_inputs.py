"""A request's arrays held against the tensors that a model takes."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from qtorch.deploy.server.protocol import Limits, RequestError
from qtorch.deploy.server.protocol.tensors import datatype_of, narrowed, shown
from qtorch.deploy.signature import TensorSpec
from qtorch.errors import ArgumentError

DATATYPES = {  # of the protocol, by torch's names
    "bool": "BOOL",
    "uint8": "UINT8",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
}
# What is taken beside a tensor's own datatype: what it holds exactly, and FP64, which is rounded to it.
_ALSO = {"float32": ("FP16", "FP64"), "int64": ("INT32", "UINT8"), "int32": ("UINT8",)}


def tensors_of(
    arrays: Mapping[str, np.ndarray], specs: Sequence[TensorSpec], optional: frozenset[str], limits: Limits
) -> tuple[dict[str, Tensor], dict[str, int]]:
    """The tensors of a request by name, of the types and shapes that a model takes.

    FP64 given for FP32 is rounded to the nearest; a number beyond FP32 is refused.

    Args:
        arrays: of the request.
        specs: of the model's inputs.
        optional: names of those that may be left out.
        limits: how many windows there may be.

    Returns:
        Tensors, and the sizes of axes by their letters.

    Raises:
        RequestError: 422 one is missing, not known, or of another type or shape, 413 there are too many windows.
    """
    known = {spec.name: spec for spec in specs}
    if unknown := [name for name in arrays if name not in known]:
        raise RequestError(422, f"the model has no input {shown(unknown[0])}. It takes {', '.join(known)}.")
    if missing := [name for name in known if name not in arrays and name not in optional]:
        raise RequestError(422, f"the input {missing[0]!r} is missing: {known[missing[0]].meaning}")
    tensors, sizes = {}, dict[str, int]()
    for name, spec in known.items():
        if name in arrays:
            tensors[name] = _tensor(arrays[name], spec)
            try:
                spec.check(tensors[name], sizes)
            except ArgumentError as error:
                raise RequestError(422, f"input {error}") from error
    if sizes["B"] > limits.max_batch:
        raise RequestError(
            413, f"{sizes['B']} windows are over the limit of {limits.max_batch}. Send them in several requests."
        )
    return tensors, sizes


def require_finite(name: str, value: Tensor, usable: Tensor, where: str) -> None:
    """Refuses NaN and infinities where a mask says that values are usable.

    Raises:
        RequestError: 422, with the first of them.
    """
    bad = torch.logical_and(usable, ~value.isfinite())
    if bad.any():
        at = bad.nonzero()[0].tolist()
        raise RequestError(
            422,
            f"input {name!r}: {value[tuple(at)].item()} at {at}, {where}. Give a finite number, or mask it.",
        )


def _tensor(array: np.ndarray, spec: TensorSpec) -> Tensor:
    given, due = datatype_of(array), DATATYPES[spec.dtype]
    where = f"input {spec.name!r}"
    if given != due and given not in _ALSO.get(spec.dtype, ()):
        raise RequestError(422, f"{where} is {given}, but {due} is needed: {spec.meaning}")
    dtype = np.dtype(spec.dtype)
    if given == "FP64" and spec.dtype == "float32":
        return torch.from_numpy(narrowed(array, dtype, where))
    return torch.from_numpy(array.astype(dtype))  # a copy: what came with the request is read-only
