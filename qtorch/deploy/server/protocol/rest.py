"""Requests and responses over HTTP: JSON, and tensors as bytes behind it."""

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from qtorch.deploy.server.protocol.bodies import decompressed, header, json_object
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
    json_of_array,
    shown,
)

HEADER_LENGTH = "Inference-Header-Content-Length"
_DIGITS = re.compile(r"[0-9]{1,15}", re.ASCII)


def parse_infer(
    body: bytes, headers: Mapping[str, str], model: str, version: str | None, limits: Limits
) -> InferRequest:
    """A request of the Open Inference Protocol V2, its tensors in the JSON or, by the binary extension, behind it.

    What the protocol has no word for, such as unknown keys and parameters, is left alone.

    Args:
        body: as it came, compressed or not.
        headers: of HTTP, in any case; ``Content-Encoding`` and ``Inference-Header-Content-Length`` are read.
        model: name, of the path.
        version: of the path.
        limits: what it may be at most.

    Raises:
        RequestError: 400 it is malformed, 404 the name can be no model's, 413 it is too large, 415 its encoding is not
            known.

    References:
        KServe, Open Inference Protocol V2, HTTP/REST; NVIDIA, Triton Inference Server, binary tensor data extension.
    """
    name, wanted = checked_name(model), checked_version(version)
    body = decompressed(body, headers, limits)
    text, binary = _parts(body, header(headers, HEADER_LENGTH))
    given = json_object(text)
    parameters = _object(given, "parameters", "parameters")
    tail = _Tail(binary)
    inputs = [_input(part, f"inputs[{i}]", tail, limits) for i, part in enumerate(_list(given, "inputs"))]
    tail.require_empty()
    all_binary = _flag(parameters, "binary_data_output", False, "parameters")
    outputs = None
    if given.get("outputs") is not None:
        outputs = [_output(part, f"outputs[{i}]", all_binary) for i, part in enumerate(_list(given, "outputs"))]
    return request_of(name, wanted, _id(given), parameters, inputs, outputs, all_binary)


def render_infer(response: InferResponse, request: InferRequest) -> tuple[bytes, dict[str, str]]:
    """The body of a response and its headers.

    JSON is strict: NaN and infinities are the strings "NaN", "Infinity" and "-Infinity", which numpy and tritonclient
    read as numbers. Bytes hold them as they are.

    Args:
        response: what was computed.
        request: which says what is wanted as bytes.
    """
    binary = {output.name: output.binary for output in request.outputs or ()}
    outputs, tail = [], []
    for name, array in response.outputs.items():
        output: dict[str, Any] = {"name": name, "datatype": datatype_of(array), "shape": list(array.shape)}
        if binary.get(name, request.binary):
            tail.append(bytes_of_array(array))
            output["parameters"] = {"binary_data_size": len(tail[-1])}
        else:
            output["data"] = json_of_array(array)
        outputs.append(output)
    told: dict[str, Any] = {"model_name": response.model, "model_version": response.version}
    told |= {} if response.id is None else {"id": response.id}
    told |= {"parameters": response.parameters} if response.parameters else {}
    text = json.dumps(told | {"outputs": outputs}, allow_nan=False, separators=(",", ":")).encode()
    if not tail:
        return text, {"Content-Type": "application/json"}
    return b"".join([text, *tail]), {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(text))}


def json_bytes(body: bytes, headers: Mapping[str, str]) -> int:
    """How much of a body is JSON, whether or not the rest is right.

    Args:
        body: as it came.
        headers: of HTTP.
    """
    told = (header(headers, HEADER_LENGTH) or "").strip()
    return min(int(told), len(body)) if _DIGITS.fullmatch(told) else len(body)


class _Tail:
    """The bytes behind the JSON, which inputs take in their order."""

    def __init__(self, rest: memoryview) -> None:
        self.rest = rest

    def take(self, size: int, where: str) -> memoryview:
        if size > len(self.rest):
            raise RequestError(
                400,
                f"{where}: binary_data_size is {size}, but {len(self.rest)} bytes are left behind the JSON. Send all "
                f"of them, and the length of the JSON as {HEADER_LENGTH}.",
            )
        taken, self.rest = self.rest[:size], self.rest[size:]
        return taken

    def require_empty(self) -> None:
        if len(self.rest):
            raise RequestError(
                400, f"{len(self.rest)} bytes behind the JSON belong to no input. Give binary_data_size of each input."
            )


def _parts(body: bytes, length: str | None) -> tuple[bytes, memoryview]:
    """The JSON and what is behind it."""
    if length is None:
        return body, memoryview(b"")
    if not _DIGITS.fullmatch(length.strip()) or int(length) > len(body):
        raise RequestError(
            400,
            f"{HEADER_LENGTH} is {shown(length)}, but the body has {len(body)} bytes. Give the number of those of the "
            "JSON in front.",
        )
    return body[: int(length)], memoryview(body)[int(length) :]


def _input(part: object, where: str, tail: _Tail, limits: Limits) -> InferInput:
    if not isinstance(part, dict):
        raise RequestError(400, f"{where} is {shown(part)}. Give an object with name, datatype, shape and data.")
    name = _name(part, where)
    where = f"input {shown(name)}"
    dtype = checked_datatype(part.get("datatype"), where)
    shape = checked_shape(part.get("shape"), where, limits)
    parameters = _object(part, "parameters", where)
    if "shared_memory_region" in parameters:
        raise RequestError(400, f"{where}: shared memory is not served. Send the data in the request.")
    size = parameters.get("binary_data_size")
    if size is None:
        if "data" not in part:
            raise RequestError(400, f"{where}: there are neither data nor binary_data_size. Give one of them.")
        data: np.ndarray = array_of_json(part["data"], dtype, shape, where)
    else:
        if "data" in part:
            raise RequestError(400, f"{where}: there are both data and binary_data_size. Give one of them.")
        if type(size) is not int or size < 0:
            raise RequestError(400, f"{where}: binary_data_size is {shown(size)}. Give the number of its bytes.")
        data = array_of_bytes(tail.take(size, where), dtype, shape, where)
    return InferInput(name, part["datatype"], shape, data)


def _output(part: object, where: str, all_binary: bool) -> RequestedOutput:
    if not isinstance(part, dict):
        raise RequestError(400, f"{where} is {shown(part)}. Give an object with a name.")
    parameters = _object(part, "parameters", where)
    for name in ("classification", "shared_memory_region"):
        if name in parameters:
            raise RequestError(400, f"{where}: {name} is not served. Ask for the tensor in the response.")
    return RequestedOutput(_name(part, where), _flag(parameters, "binary_data", all_binary, where))


def _id(given: dict[str, Any]) -> str | None:
    found = given.get("id")
    if found is not None and not isinstance(found, str):
        raise RequestError(400, f"id is {shown(found)}. Give a string, or none.")
    return found


def _name(part: dict[str, Any], where: str) -> str:
    name = part.get("name")
    if not isinstance(name, str) or not name:
        raise RequestError(400, f"{where}: name is {shown(name)}. Give the name of a tensor.")
    return name


def _object(part: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    found = part.get(key)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise RequestError(400, f"{where}: {key} is {shown(found)}. Give an object.")
    return found


def _list(given: dict[str, Any], key: str) -> list[Any]:
    found = given.get(key)
    if not isinstance(found, list):
        raise RequestError(400, f"{key} is {shown(found)}. Give a list of tensors.")
    return found


def _flag(parameters: dict[str, Any], key: str, default: bool, where: str) -> bool:
    found = parameters.get(key, default)
    if not isinstance(found, bool):
        raise RequestError(400, f"{where}: {key} is {shown(found)}. Give true or false.")
    return found
