"""Requests with one thing broken at random, against a real server: each refused with what is wrong, none a fault."""

import copy
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.deploy.server.serving import body_of, infer_request, windows

pytestmark = [pytest.mark.deploy]
PATH = "/v2/models/spx/infer"
HEADER = "Inference-Header-Content-Length"
TENSORS = windows(2)
GOOD = body_of(TENSORS, id="7", outputs=[{"name": "mean"}], parameters={"levels": "0.95"})
GOOD_BYTES = json.dumps(GOOD).encode()
BOUNDED = settings(
    max_examples=60, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
REFUSALS = {"INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED"}

# Of each field, what it cannot be.
OF_REQUEST: dict[str, list[Any]] = {
    "inputs": [None, 3, True, "x", {}, [], [3], [None]],
    "outputs": [3, True, "x", {}, ["mean"], [{}], [None]],
    "parameters": [3, True, "x", []],
    "id": [3, True, [], {}],
}
OF_INPUT: dict[str, list[Any]] = {
    "name": [None, 3, True, "", [], {}],
    "datatype": [None, 3, "", "fp32", "FP31", "BYTES", [], {}],
    "shape": [None, 3, "2", {}, [2.5], [-1], [None], [[2]], [True], [10**30], [1] * 9],
    "data": [None, 3, "x", {}, [[]]],
    "parameters": [3, True, "x", []],
}
OF_NUMBER: list[Any] = [None, True, "x", {}, [], 1e39, 10**400]
OF_BOOL: list[Any] = [None, 0, 1, "true", {}, []]


@pytest.fixture(scope="module", autouse=True)
def well_after(server):
    yield
    assert server.infer(windows(2))[0] == 200
    assert server.call("GET", "/v2/health/ready")[0] == 200
    assert not [each for each in server.events() if each["event"] == "fault"]


def refused(status: int, answer: Any, *words: str) -> None:
    """A refusal that is of the request, and names what is wrong."""
    assert 400 <= status < 500, answer
    assert len(answer["error"]) > 10
    for word in words:
        assert word.lower() in answer["error"].lower()


@st.composite
def broken(draw) -> tuple[dict[str, Any], str]:
    """The good request with one thing broken, and what the answer must name."""
    body = copy.deepcopy(GOOD)
    one = body["inputs"][draw(st.integers(0, 2))]
    match draw(st.sampled_from(["request", "input", "left out", "datum", "size", "count", "tensor", "stranger"])):
        case "request":
            field = draw(st.sampled_from(sorted(OF_REQUEST)))
            body[field] = draw(st.sampled_from(OF_REQUEST[field]))
            return body, field
        case "input":
            field = draw(st.sampled_from(sorted(OF_INPUT)))
            one[field] = draw(st.sampled_from(OF_INPUT[field]))
            return body, field
        case "left out":
            field = draw(st.sampled_from(["name", "datatype", "shape", "data"]))
            del one[field]
            return body, field
        case "datum":
            at = draw(st.integers(0, len(one["data"]) - 1))
            one["data"][at] = draw(st.sampled_from(OF_BOOL if one["name"] == "mask" else OF_NUMBER))
            return body, f"input {one['name']!r}"
        case "size":
            axis = draw(st.integers(0, len(one["shape"]) - 1))
            one["shape"][axis] = draw(st.integers(0, 2**70).filter(lambda size: size != one["shape"][axis]))
            return body, "shape"
        case "count":
            one["data"] = one["data"][: draw(st.integers(0, len(one["data"]) - 1))]
            return body, "values, but shape"
        case "tensor":
            body["inputs"].remove(next(each for each in body["inputs"] if each["name"] == "mask"))
            return body, "'mask' is missing"
        case _:
            one["name"] = draw(st.text(min_size=1, max_size=20).filter(lambda name: name not in TENSORS))
            return body, "input"


@BOUNDED
@given(case=broken())
def test_one_broken_thing_is_named(server, case):
    body, word = case
    status, _, answer = server.call("POST", PATH, body)
    refused(status, answer, word)


@BOUNDED
@given(body=st.binary(max_size=200))
def test_bytes_are_refused(server, body):
    status, _, answer = server.call("POST", PATH, body)
    refused(status, answer, "JSON")


@BOUNDED
@given(data=st.data())
def test_changed_bytes_are_answered_or_refused(server, data):
    body = bytearray(GOOD_BYTES)
    at = data.draw(st.one_of(st.integers(0, 120), st.integers(0, len(body) - 1)))
    match data.draw(st.integers(0, 2)):
        case 0:
            body[at] = data.draw(st.integers(0, 255))
        case 1:
            del body[at : at + data.draw(st.integers(1, 50))]
        case _:
            body[at:at] = data.draw(st.binary(min_size=1, max_size=8))
    status, _, answer = server.call("POST", PATH, bytes(body))
    if status != 200:  # another number or blank is as good
        refused(status, answer)


@BOUNDED
@given(data=st.data())
def test_bytes_behind_the_json_are_of_the_sizes_that_are_told(server, data):
    tails = {name: value.tobytes() for name, value in TENSORS.items()}
    body = copy.deepcopy(GOOD)
    for one in body["inputs"]:
        del one["data"]
        one["parameters"] = {"binary_data_size": len(tails[one["name"]])}
    tail = b"".join(tails[one["name"]] for one in body["inputs"])
    kind = data.draw(st.sampled_from(["size", "tail", "length"]))
    if kind == "size":
        one = data.draw(st.sampled_from(body["inputs"]))["parameters"]
        sizes = st.integers(-(2**65), 2**65) | st.sampled_from([True, "8", 8.5, [], {}])
        one["binary_data_size"] = data.draw(sizes.filter(lambda size: size != one["binary_data_size"]))
    cut = data.draw(st.integers(0, len(tail) - 1)) if kind == "tail" else len(tail)
    text = json.dumps(body).encode()
    length = str(len(text))
    if kind == "length":
        length = data.draw(
            st.one_of(
                st.integers(-5, len(text) - 1).map(str),
                st.integers(len(text) + 1, 10**20).map(str),
                st.sampled_from(["", "many", "1e3", "0x10", "9" * 5000]),
            )
        )
    status, _, answer = server.call("POST", PATH, text + tail[:cut], {HEADER: length})
    refused(status, answer, *(["bytes"] if kind != "length" else []))


@st.composite
def broken_message(draw) -> tuple[Any, str]:
    """A good message of gRPC with one thing broken, and what the answer must name."""
    message = infer_request()
    at = draw(st.integers(0, 2))
    one, raw = message.inputs[at], message.raw_input_contents
    match draw(st.sampled_from(["name", "datatype", "shape", "raw", "parts", "both", "output", "levels", "model"])):
        case "name":
            one.name = draw(st.text(max_size=10).filter(lambda name: name not in TENSORS))
            return message, "name" if not one.name else "input"
        case "datatype":
            one.datatype = draw(st.sampled_from(["", "fp32", "FP31", "BYTES", "\x00"]))
            return message, "datatype"
        case "shape":
            axis = draw(st.integers(0, len(one.shape) - 1))
            one.shape[axis] = draw(st.integers(-(2**63), 2**63 - 1).filter(lambda size: size != one.shape[axis]))
            return message, "shape"
        case "raw":
            raw[at] = draw(st.binary(max_size=40).filter(lambda part: len(part) != len(raw[at])))
            return message, "bytes"
        case "parts":
            if draw(st.booleans()):
                raw.append(draw(st.binary(max_size=9)))
            else:
                del raw[at]
            return message, "raw_input_contents"
        case "both":
            one.contents.fp32_contents.append(1.0)
            return message, "contents"
        case "output":
            message.outputs.add(name=draw(st.text(max_size=10)))
            return message, "output"
        case "levels":
            message.parameters["levels"].string_param = draw(st.sampled_from(["", "2", "-1", "x", "0.9,", "nan"]))
            return message, "levels"
        case _:
            message.model_name = draw(st.text(max_size=10).filter(lambda name: name != "spx"))
            return message, "model"


@BOUNDED
@given(case=broken_message())
def test_one_broken_thing_of_a_message_is_named(call, case):
    message, word = case
    error = call("ModelInfer", message)
    assert hasattr(error, "code"), "it was answered"
    assert error.code().name in REFUSALS, error.details()
    assert word in error.details()


@BOUNDED
@given(data=st.data())
def test_changed_messages_are_answered_or_refused(call, data):
    body = bytearray(infer_request().SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.one_of(st.integers(0, 120), st.integers(0, len(body) - 1)))
        match data.draw(st.integers(0, 2)):
            case 0:
                body[at] = data.draw(st.integers(0, 255))
            case 1:
                del body[at : at + data.draw(st.integers(1, 50))]
            case _:
                body[at:at] = data.draw(st.binary(min_size=1, max_size=8))
    method = data.draw(st.sampled_from(["ModelInfer", "ModelMetadata", "ModelReady", "RepositoryIndex"]))
    answer = call(method, bytes(body))
    if hasattr(answer, "code"):  # another number is as good
        assert answer.code().name in REFUSALS, answer.details()
        assert len(answer.details()) > 10
