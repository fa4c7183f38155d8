"""A valid request, to be changed by tests, and the ways to be malformed that the protocol alone can tell."""

import copy
import gzip
import json
import zlib
from typing import Any

import numpy as np

from qtorch.deploy.server.protocol import InferRequest, Limits, parse_infer

LIMITS = Limits(max_bytes=100_000, max_batch=16, max_elements=4000)
B, C, F = 2, 3, 2
VALUES = np.arange(B * C * F, dtype=np.float32).reshape(B, C, F) / 8
LENGTH = "Inference-Header-Content-Length"

VALID: dict[str, Any] = {
    "id": "7",
    "parameters": {"levels": [0.9]},
    "inputs": [
        {"name": "inputs", "datatype": "FP32", "shape": [B, C, F], "data": VALUES.ravel().tolist()},
        {"name": "mask", "datatype": "BOOL", "shape": [B, C], "data": [True] * (B * C)},
    ],
    "outputs": [{"name": "mean"}],
}


def parsed(body: Any, headers: dict[str, str] | None = None, **names: Any) -> InferRequest:
    """A request of bytes, or of what JSON holds."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return parse_infer(content, headers or {}, names.get("model", "spx"), names.get("version"), LIMITS)


def changed(*path: Any, to: Any) -> bytes:
    """The valid request with a value of another kind at a place."""
    body = copy.deepcopy(VALID)
    at = body
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = to
    return json.dumps(body).encode()


def without(*path: Any) -> bytes:
    """The valid request without a value."""
    body = copy.deepcopy(VALID)
    at = body
    for key in path[:-1]:
        at = at[key]
    del at[path[-1]]
    return json.dumps(body).encode()


def binary(size: Any = VALUES.nbytes, tail: bytes = VALUES.tobytes(), **changes: Any) -> tuple[bytes, dict[str, str]]:
    """A request whose first input follows the JSON."""
    body = copy.deepcopy(VALID)
    del body["inputs"][0]["data"]
    body["inputs"][0] |= {"parameters": {"binary_data_size": size}} | changes
    text = json.dumps(body).encode()
    return text + tail, {LENGTH: str(len(text))}


def binary_bool(tail: bytes) -> tuple[bytes, dict[str, str]]:
    """A request whose mask follows the JSON."""
    body = copy.deepcopy(VALID)
    body["inputs"][1] = {
        "name": "mask",
        "datatype": "BOOL",
        "shape": [B, C],
        "parameters": {"binary_data_size": len(tail)},
    }
    text = json.dumps(body).encode()
    return text + tail, {LENGTH: str(len(text))}


_TEXT = json.dumps(VALID).encode()
_NUMBER = _TEXT.replace(b"0.125", b"%s", 1)

# Body, headers, status, and words of the message.
MALFORMED: dict[str, tuple[bytes, dict[str, str], int, str]] = {
    "empty": (b"", {}, 400, "no JSON"),
    "text": (b"hello", {}, 400, "no JSON"),
    "cut": (_TEXT[:-5], {}, 400, "no JSON"),
    "two": (_TEXT + _TEXT, {}, 400, "no JSON"),
    "not UTF-8": (b'{"id": "\xff"}', {}, 400, "UTF-8"),
    "UTF-16": (_TEXT.decode().encode("utf-16"), {}, 400, "UTF-8"),
    "null": (b"null", {}, 400, "Give an object"),
    "list": (b"[]", {}, 400, "Give an object"),
    "number": (b"3", {}, 400, "Give an object"),
    "string": (b'"x"', {}, 400, "Give an object"),
    "deep list": (b"[" * 50_000, {}, 400, "nested too deeply"),
    "deep object": (b'{"a":' * 15_000, {}, 400, "nested too deeply"),
    "deep data": (
        changed("inputs", 0, "data", to=1).replace(b'"data": 1', b'"data": ' + b"[" * 900 + b"]" * 900),
        {},
        400,
        "nested",
    ),
    "key twice": (_TEXT.replace(b'"id"', b'"id": "8", "id"', 1), {}, 400, "'id' twice"),
    "nothing": (b"{}", {}, 400, "inputs is None"),
    "id of a number": (changed("id", to=7), {}, 400, "id is 7"),
    "parameters of a list": (changed("parameters", to=[1]), {}, 400, "parameters is"),
    "inputs missing": (without("inputs"), {}, 400, "inputs is None"),
    "inputs empty": (changed("inputs", to=[]), {}, 400, "inputs is empty"),
    "inputs an object": (changed("inputs", to={}), {}, 400, "Give a list of tensors"),
    "inputs a string": (changed("inputs", to="abc"), {}, 400, "Give a list of tensors"),
    "input null": (changed("inputs", 0, to=None), {}, 400, r"inputs\[0\] is None"),
    "input a list": (changed("inputs", 1, to=[1, 2]), {}, 400, r"inputs\[1\] is \[1, 2\]"),
    "name missing": (without("inputs", 0, "name"), {}, 400, "name is None"),
    "name empty": (changed("inputs", 0, "name", to=""), {}, 400, "name is ''"),
    "name a number": (changed("inputs", 0, "name", to=3), {}, 400, "name is 3"),
    "input twice": (changed("inputs", 1, "name", to="inputs"), {}, 400, "'inputs' is named twice"),
    "datatype missing": (without("inputs", 0, "datatype"), {}, 400, "datatype None"),
    "datatype unknown": (changed("inputs", 0, "datatype", to="FP8"), {}, 400, "datatype 'FP8' is none of"),
    "datatype of strings": (changed("inputs", 0, "datatype", to="BYTES"), {}, 400, "datatype 'BYTES'"),
    "datatype a list": (changed("inputs", 0, "datatype", to=["FP32"]), {}, 400, "datatype"),
    "shape missing": (without("inputs", 0, "shape"), {}, 400, "shape None"),
    "shape a number": (changed("inputs", 0, "shape", to=12), {}, 400, "shape 12"),
    "shape negative": (changed("inputs", 0, "shape", 0, to=-1), {}, 400, r"shape\[0\] is -1"),
    "shape a fraction": (changed("inputs", 0, "shape", 0, to=2.0), {}, 400, r"shape\[0\] is 2.0"),
    "shape true": (changed("inputs", 0, "shape", 0, to=True), {}, 400, r"shape\[0\] is True"),
    "shape a string": (changed("inputs", 0, "shape", 0, to="2"), {}, 400, r"shape\[0\] is '2'"),
    "shape null": (changed("inputs", 0, "shape", 0, to=None), {}, 400, r"shape\[0\] is None"),
    "shape nested": (changed("inputs", 0, "shape", 0, to=[2]), {}, 400, r"shape\[0\] is"),
    "shape of many axes": (changed("inputs", 0, "shape", to=[1] * 9 + [12]), {}, 400, "10 axes"),
    "shape too large": (changed("inputs", 0, "shape", 0, to=1_000_000), {}, 413, "limit of 4000"),
    "shape overflows": (changed("inputs", 0, "shape", to=[2**32, 2**32, 2]), {}, 413, "limit of 4000"),
    "shape huge": (changed("inputs", 0, "shape", 0, to=10**300), {}, 413, "whole number of 997 bits"),
    "shape huge beside 0": (changed("inputs", 0, "shape", to=[0, 2**62, 2]), {}, 413, "limit of 4000"),
    "shape not of the data": (changed("inputs", 0, "shape", to=[B, C, F + 1]), {}, 400, "12 values, but shape"),
    "data missing": (without("inputs", 0, "data"), {}, 400, "neither data nor binary_data_size"),
    "data null": (changed("inputs", 0, "data", to=None), {}, 400, "data is None"),
    "data an object": (changed("inputs", 0, "data", to={"0": 1}), {}, 400, "data is {"),
    "data a string": (changed("inputs", 0, "data", to="0" * 12), {}, 400, "data is '0000"),
    "data too short": (changed("inputs", 0, "data", to=[1.0]), {}, 400, "1 values"),
    "data too long": (changed("inputs", 0, "data", to=[1.0] * 13), {}, 400, "13 values"),
    "data ragged": (
        changed("inputs", 0, "data", to=[[[1, 2]] * 3, [[1, 2]] * 2]),
        {},
        400,
        "at axis 1 there is a list of 2",
    ),
    "data nested otherwise": (changed("inputs", 0, "data", to=[[1.0] * 6] * 2), {}, 400, "nested data do not match"),
    "data half nested": (changed("inputs", 0, "data", to=[[[1, 2]] * 3, 1.0]), {}, 400, "nested data do not match"),
    "data with null": (changed("inputs", 0, "data", 3, to=None), {}, 400, r"data\[3\] is None"),
    "data with a string": (changed("inputs", 0, "data", 3, to="1.0"), {}, 400, r"data\[3\] is '1.0'"),
    "data with a bool": (changed("inputs", 0, "data", 3, to=True), {}, 400, r"data\[3\] is True"),
    "data with an object": (changed("inputs", 0, "data", 3, to={}), {}, 400, r"data\[3\] is {}"),
    "data beyond FP32": (changed("inputs", 0, "data", 3, to=1e39), {}, 400, "beyond what FP32 holds"),
    "data a huge number": (changed("inputs", 0, "data", 3, to=10**400), {}, 400, "does not fit FP32"),
    "data of too many digits": (_NUMBER % (b"1" * 5000), {}, 400, "cannot be read"),
    "mask of numbers": (changed("inputs", 1, "data", to=[1] * 6), {}, 400, "Give true or false"),
    "mask of strings": (changed("inputs", 1, "data", to=["true"] * 6), {}, 400, "Give true or false"),
    "whole numbers of fractions": (changed("inputs", 0, "datatype", to="INT64"), {}, 400, "Give a whole number"),
    "beyond INT32": (
        changed("inputs", 0, to={"name": "n", "datatype": "INT32", "shape": [1], "data": [2**31]}),
        {},
        400,
        "outside",
    ),
    "negative UINT8": (
        changed("inputs", 0, to={"name": "n", "datatype": "UINT8", "shape": [1], "data": [-1]}),
        {},
        400,
        "outside",
    ),
    "outputs an object": (changed("outputs", to={}), {}, 400, "Give a list of tensors"),
    "output a string": (changed("outputs", 0, to="mean"), {}, 400, r"outputs\[0\] is 'mean'"),
    "output without a name": (changed("outputs", 0, to={}), {}, 400, "name is None"),
    "output twice": (changed("outputs", to=[{"name": "mean"}] * 2), {}, 400, "'mean' is named twice"),
    "output with classes": (changed("outputs", 0, "parameters", to={"classification": 3}), {}, 400, "classification"),
    "binary_data of a number": (
        changed("outputs", 0, "parameters", to={"binary_data": 1}),
        {},
        400,
        "binary_data is 1",
    ),
    "binary output of text": (changed("parameters", "binary_data_output", to="yes"), {}, 400, "binary_data_output is"),
    "shared memory": (changed("inputs", 0, "parameters", to={"shared_memory_region": "r"}), {}, 400, "shared memory"),
    "input's parameters a list": (changed("inputs", 0, "parameters", to=[]), {}, 400, "parameters is"),
    "both data": (changed("inputs", 0, "parameters", to={"binary_data_size": 48}), {}, 400, "both data and"),
    "binary cut": (*binary(tail=VALUES.tobytes()[:-1]), 400, "47 bytes are left"),
    "binary too long": (*binary(tail=VALUES.tobytes() + b"x"), 400, "1 bytes behind the JSON"),
    "binary of another size": (*binary(44, VALUES.tobytes()[:44]), 400, "44 bytes, but shape"),
    "binary size negative": (*binary(-1), 400, "binary_data_size is -1"),
    "binary size a fraction": (*binary(48.0), 400, "binary_data_size is 48.0"),
    "binary size a string": (*binary("48"), 400, "binary_data_size is '48'"),
    "binary size huge": (*binary(2**70), 400, "48 bytes are left"),
    "binary without its header": (binary()[0], {}, 400, "UTF-8|no JSON"),
    "header longer than the body": (_TEXT, {LENGTH: "99999"}, 400, "99999"),
    "header negative": (_TEXT, {LENGTH: "-1"}, 400, "'-1'"),
    "header of text": (_TEXT, {LENGTH: "abc"}, 400, "'abc'"),
    "header of other digits": (_TEXT, {LENGTH: "٣"}, 400, "Length is"),
    "header too short": (_TEXT, {LENGTH: "20"}, 400, "no JSON"),
    "header of 0": (_TEXT, {LENGTH: "0"}, 400, "no JSON"),
    "mask of other bytes": (*binary_bool(b"\1\1\1\1\1\2"), 400, "byte 5 of a BOOL tensor is 2"),
    "not gzip": (_TEXT, {"Content-Encoding": "gzip"}, 400, "no gzip stream"),
    "not deflate": (_TEXT, {"Content-Encoding": "deflate"}, 400, "no deflate stream"),
    "gzip cut": (gzip.compress(_TEXT)[:-12], {"Content-Encoding": "gzip"}, 400, "truncated"),
    "gzip and more": (gzip.compress(_TEXT) + b"more", {"Content-Encoding": "gzip"}, 400, "4 bytes follow"),
    "gzip bomb": (gzip.compress(bytes(10_000_000)), {"content-encoding": "GZIP"}, 413, "more than 100000 bytes"),
    "deflate bomb": (zlib.compress(bytes(10_000_000)), {"Content-Encoding": "deflate"}, 413, "more than 100000 bytes"),
    "unknown encoding": (_TEXT, {"Content-Encoding": "br"}, 415, "'br' is none of"),
    "two encodings": (_TEXT, {"Content-Encoding": "gzip, gzip"}, 415, "is none of"),
    "too large": (b" " * 100_001, {}, 413, "limit of 100000"),
}
