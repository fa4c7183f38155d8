"""Requests and responses as messages of GRPCInferenceService, of any module that protoc made of it."""

from typing import Any

import numpy as np

from qtorch.deploy.server.protocol.errors import RequestError
from qtorch.deploy.server.protocol.messages import InferInput, InferRequest, InferResponse, Limits, RequestedOutput
from qtorch.deploy.server.protocol.names import checked_name, checked_version
from qtorch.deploy.server.protocol.requests import request_of
from qtorch.deploy.server.protocol.tensors import (
    array_of_bytes,
    array_of_json,
    bytes_of_array,
    checked_datatype,
    checked_shape,
    datatype_of,
    shown,
)

_CONTENTS = {  # the field of InferTensorContents that holds a datatype; FP16 has none
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}
_FIELDS = (*dict.fromkeys(_CONTENTS.values()), "uint64_contents", "bytes_contents")
_PARAMETER = ((bool, "bool_param"), (int, "int64_param"), (float, "double_param"), (str, "string_param"))


def infer_request_of(message: Any, limits: Limits) -> InferRequest:
    """The request of a ModelInferRequest.

    Args:
        message: of protobuf.
        limits: what it may be at most.

    Raises:
        RequestError: 400 it is malformed, 404 the name can be no model's, 413 it is too large.

    References:
        KServe, Open Inference Protocol V2, gRPC.
    """
    name, version = checked_name(message.model_name), checked_version(message.model_version)
    raw = message.raw_input_contents
    if len(raw) not in (0, len(message.inputs)):
        raise RequestError(
            400,
            f"raw_input_contents has {len(raw)} parts for {len(message.inputs)} inputs. Give one for each, or none.",
        )
    inputs = []
    for i, tensor in enumerate(message.inputs):
        inputs.append(_input(tensor, f"inputs[{i}]", raw[i] if len(raw) else None, limits))
    outputs = []
    for i, output in enumerate(message.outputs):
        if not output.name:
            raise RequestError(400, f"outputs[{i}]: the name is empty. Give the name of a tensor.")
        if refused := sorted({"classification", "shared_memory_region"} & set(output.parameters)):
            raise RequestError(400, f"outputs[{i}]: {refused[0]} is not served. Ask for the tensor in the response.")
        outputs.append(RequestedOutput(output.name, True))
    return request_of(name, version, message.id or None, _plain(message.parameters), inputs, outputs, True)


def fill_infer_response(response: InferResponse, message: Any) -> None:
    """Writes a response into an empty ModelInferResponse, its tensors as raw_output_contents.

    Args:
        response: what was computed.
        message: of protobuf.
    """
    message.model_name, message.model_version = response.model, response.version
    message.id = response.id or ""
    for key, value in response.parameters.items():
        field = next(field for kind, field in _PARAMETER if isinstance(value, kind))
        setattr(message.parameters[key], field, value)
    for name, array in response.outputs.items():
        output = message.outputs.add()
        output.name, output.datatype = name, datatype_of(array)
        output.shape.extend(array.shape)
        message.raw_output_contents.append(bytes_of_array(array))


def _input(tensor: Any, where: str, raw: bytes | None, limits: Limits) -> InferInput:
    if not tensor.name:
        raise RequestError(400, f"{where}: the name is empty. Give the name of a tensor.")
    where = f"input {shown(tensor.name)}"
    dtype = checked_datatype(tensor.datatype, where)
    shape = checked_shape(list(tensor.shape), where, limits)
    if "shared_memory_region" in tensor.parameters:
        raise RequestError(400, f"{where}: shared memory is not served. Send the data in the request.")
    filled = [field for field in _FIELDS if len(getattr(tensor.contents, field))]
    if raw is not None:
        if filled:
            raise RequestError(400, f"{where}: there are both contents and raw_input_contents. Give one of them.")
        data: np.ndarray = array_of_bytes(raw, dtype, shape, where)
    else:
        due = _CONTENTS.get(tensor.datatype)
        if due is None:
            raise RequestError(400, f"{where}: {tensor.datatype} has no contents. Send it as raw_input_contents.")
        if filled not in ([], [due]):
            raise RequestError(
                400, f"{where}: contents are in {', '.join(filled)}, but those of {tensor.datatype} are due in {due}."
            )
        data = array_of_json(list(getattr(tensor.contents, due)), dtype, shape, where)
    return InferInput(tensor.name, tensor.datatype, shape, data)


def _plain(parameters: Any) -> dict[str, Any]:
    """Parameters as plain values; one that is empty says nothing."""
    chosen = ((key, value, value.WhichOneof("parameter_choice")) for key, value in parameters.items())
    return {key: getattr(value, field) for key, value, field in chosen if field is not None}
