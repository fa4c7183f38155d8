"""Requests over HTTP: what is read and written, and that nothing else than a refusal comes of a malformed one."""

import copy
import gzip
import json
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qtorch.deploy.server.protocol import InferResponse, RequestError, checked_name, render_infer
from tests.deploy.server.parts import LENGTH, MALFORMED, VALID, VALUES, B, C, F, binary, changed, parsed


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_request_is_refused(name):
    body, headers, status, words = MALFORMED[name]
    with pytest.raises(RequestError, match=words) as refused:
        parsed(body, headers)
    assert refused.value.status == status
    assert len(refused.value.message) < 1000
    again = copy.copy(refused.value)  # as pickle does
    assert (again.status, again.message, again.code) == (status, refused.value.message, refused.value.code)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (VALID, {}),
        (changed("inputs", 0, "data", to=VALUES.tolist()), {}),
        binary(),
        (gzip.compress(json.dumps(VALID).encode()), {"Content-Encoding": "gzip"}),
        (zlib.compress(binary()[0]), {"content-encoding": "deflate", LENGTH.lower(): binary()[1][LENGTH]}),
        (changed("unknown", to=1), {}),
    ],
    ids=["flat", "nested", "binary", "gzip", "deflated binary", "unknown key"],
)
def test_all_forms_of_a_request_mean_the_same(body, headers):
    request = parsed(body, headers, version="3")
    assert (request.model, request.version, request.id) == ("spx", "3", "7")
    assert request.parameters == {"levels": [0.9]}
    assert request.inputs["inputs"].dtype == np.float32
    assert np.array_equal(request.inputs["inputs"], VALUES)
    assert np.array_equal(request.inputs["mask"], np.ones((B, C), bool))
    assert not any(array.flags.writeable for array in request.inputs.values())
    assert [(output.name, output.binary) for output in request.outputs] == [("mean", False)]


@pytest.mark.parametrize("literal", [[float("nan"), float("inf"), -float("inf")], ["NaN", "Infinity", "-Infinity"]])
def test_numbers_that_json_lacks(literal):
    body = changed("inputs", 0, to={"name": "x", "datatype": "FP64", "shape": [3], "data": literal})
    assert np.array_equal(parsed(body).inputs["x"], [np.nan, np.inf, -np.inf], equal_nan=True)


OUTPUTS = {
    "a": np.array([[0.1, np.nan], [np.inf, -np.inf]], dtype=np.float32),
    "b": np.array([1 / 3, 1e-300, -0.0]),
    "c": np.array([True, False]),
    "d": np.array([2**62, -5]),
    "e": np.array(7, dtype=np.int32),
    "f": np.zeros((0, 3), dtype=np.float16),
    "g": np.arange(6, dtype=np.uint8).reshape(2, 3).T,
}


def read(body: bytes, headers: dict[str, str]) -> dict[str, np.ndarray]:
    """A response as a client reads it: numpy makes numbers of the strings for NaN and infinities."""
    length = int(headers.get(LENGTH, len(body)))
    told, tail = json.loads(body[:length], parse_constant=lambda name: pytest.fail(name)), body[length:]
    dtypes = {"BOOL": bool, "UINT8": "u1", "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}
    found = {}
    for output in told["outputs"]:
        dtype = dtypes[output["datatype"]]
        if "data" in output:
            array = np.array(output["data"], dtype=dtype)
        else:
            size = output["parameters"]["binary_data_size"]
            array, tail = np.frombuffer(tail[:size], dtype=dtype), tail[size:]
        found[output["name"]] = array.reshape(output["shape"])
    assert not tail
    return found


@pytest.mark.parametrize("names", [(), ("b", "g"), tuple(OUTPUTS)], ids=["none", "some", "all"])
def test_responses_hold_the_same_bits(names):
    outputs = [{"name": name, "parameters": {"binary_data": name in names}} for name in OUTPUTS]
    request = parsed(changed("outputs", to=outputs))
    body, headers = render_infer(InferResponse("spx", "2", request.id, {"batch": 3}, OUTPUTS), request)
    assert (LENGTH in headers) == bool(names)
    found = read(body, headers)
    for name, array in OUTPUTS.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], array, equal_nan=array.dtype.kind == "f")
    told = json.loads(body[: int(headers.get(LENGTH, len(body)))])
    assert (told["model_name"], told["model_version"], told["id"]) == ("spx", "2", "7")
    assert told["parameters"] == {"batch": 3}


def test_binary_outputs_where_none_is_named():
    body = json.loads(changed("parameters", "binary_data_output", to=True))
    del body["outputs"]
    request = parsed(body)
    assert request.outputs is None
    assert request.binary
    assert LENGTH in render_infer(InferResponse("spx", "1", None, {}, OUTPUTS), request)[1]


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "a\\b", "a\0", "/etc", ".hidden", "é", "a b", "x" * 200]
)
def test_names_that_are_no_models(name):
    with pytest.raises(RequestError, match="no model is named") as refused:
        checked_name(name)
    assert (refused.value.status, refused.value.code) == (404, "NOT_FOUND")


@pytest.mark.parametrize("version", ["0", "-1", "1.0", "01", "latest", "../1", "1\n", "9" * 30])
def test_versions_that_are_none(version):
    with pytest.raises(RequestError, match="no version is"):
        parsed(VALID, version=version)


def refused_or_read(body: bytes, headers: dict[str, str]) -> None:
    error = None
    try:
        parsed(body, headers)
    except RequestError as refusal:
        error = refusal
    assert error is None or (400 <= error.status < 500 and error.code)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
ENCODINGS = st.sampled_from([{}, {"Content-Encoding": "gzip"}, {"Content-Encoding": "deflate"}, {LENGTH: "5"}])


@settings(max_examples=40, deadline=None)
@given(body=st.binary(max_size=200), headers=ENCODINGS)
def test_any_bytes(body, headers):
    refused_or_read(body, headers)


@settings(max_examples=40, deadline=None)
@given(body=JSON, headers=ENCODINGS)
def test_any_json(body, headers):
    refused_or_read(json.dumps(body).encode(), headers)


PLACES = [
    ("id",),
    ("parameters",),
    ("inputs",),
    ("inputs", 0),
    *(("inputs", 0, key) for key in ("name", "datatype", "shape", "data", "parameters")),
    ("inputs", 0, "shape", 0),
    ("inputs", 0, "data", 3),
    ("inputs", 1, "data"),
    ("inputs", 1, "data", 0),
    ("outputs",),
    ("outputs", 0),
    ("outputs", 0, "parameters"),
]


@settings(max_examples=60, deadline=None)
@given(place=st.sampled_from(PLACES), value=JSON)
def test_a_valid_request_with_anything_at_a_place(place, value):
    refused_or_read(changed(*place, to=value), {})


@settings(max_examples=40, deadline=None)
@given(
    at=st.integers(0, len(binary()[0]) - 1),
    octet=st.integers(0, 255),
    cut=st.integers(0, 20),
    length=st.none() | st.text(max_size=4) | st.integers(-5, 2000).map(str),
)
def test_a_binary_request_with_other_bytes(at, octet, cut, length):
    body, headers = binary()
    harmed = bytearray(body)
    harmed[at] = octet
    refused_or_read(bytes(harmed[: len(harmed) - cut]), headers if length is None else {LENGTH: length})


def test_parsing_leaves_the_valid_request_as_it_is():
    before = copy.deepcopy(VALID)
    parsed(VALID)
    assert before == VALID
    assert VALUES.shape == (B, C, F)
