"""Requests and responses over gRPC, of objects that look as protobuf's messages do."""

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from qtorch.deploy.server.protocol import InferResponse, Limits, RequestError, fill_infer_response, infer_request_of
from qtorch.deploy.server.protocol.proto import _FIELDS
from tests.deploy.server.parts import LIMITS, VALUES, B, C, F


class Choice:
    """A parameter, of which one field is set."""

    def __init__(self, **chosen: Any) -> None:
        vars(self).update(chosen)

    def WhichOneof(self, group: str) -> str | None:
        assert group == "parameter_choice"
        return next(iter(vars(self)), None)


def tensor(name: str, datatype: str, shape: list[int], **contents: list[Any]) -> SimpleNamespace:
    filled = SimpleNamespace(**{field: contents.get(field, []) for field in _FIELDS})
    return SimpleNamespace(name=name, datatype=datatype, shape=shape, parameters={}, contents=filled)


def message(*inputs: SimpleNamespace, **fields: Any) -> SimpleNamespace:
    blank = {"model_name": "spx", "model_version": "", "id": "", "parameters": {}, "outputs": []}
    return SimpleNamespace(**blank | {"inputs": list(inputs), "raw_input_contents": []} | fields)


INPUTS = tensor("inputs", "FP32", [B, C, F], fp32_contents=VALUES.ravel().tolist())
MASK = tensor("mask", "BOOL", [B, C], bool_contents=[True] * 6)
OUTPUT = SimpleNamespace(name="mean", parameters={})


@pytest.mark.parametrize("raw", [False, True])
def test_both_forms_of_a_request(raw):
    given = message(INPUTS, MASK, id="7", model_version="2", outputs=[OUTPUT])
    given.parameters = {"levels": Choice(string_param="0.9"), "n": Choice(int64_param=3), "nothing": Choice()}
    if raw:
        given.inputs = [tensor("inputs", "FP32", [B, C, F]), tensor("mask", "BOOL", [B, C])]
        given.raw_input_contents = [VALUES.tobytes(), b"\1" * 6]
    request = infer_request_of(given, LIMITS)
    assert (request.model, request.version, request.id) == ("spx", "2", "7")
    assert request.parameters == {"levels": "0.9", "n": 3}
    assert np.array_equal(request.inputs["inputs"], VALUES)
    assert request.inputs["mask"].all()
    assert [output.name for output in request.outputs] == ["mean"]


@pytest.mark.parametrize(
    ("given", "status", "words"),
    [
        (message(), 400, "inputs is empty"),
        (message(INPUTS, INPUTS), 400, "'inputs' is named twice"),
        (message(INPUTS, model_name="../x"), 404, "no model is named"),
        (message(INPUTS, model_version="one"), 404, "no version is"),
        (message(INPUTS, raw_input_contents=[b"", b""]), 400, "2 parts for 1 inputs"),
        (message(INPUTS, raw_input_contents=[VALUES.tobytes()]), 400, "both contents and raw"),
        (message(tensor("", "FP32", [1], fp32_contents=[1.0])), 400, "the name is empty"),
        (message(tensor("x", "FP8", [1], fp32_contents=[1.0])), 400, "datatype 'FP8'"),
        (message(tensor("x", "FP32", [-1], fp32_contents=[1.0])), 400, r"shape\[0\] is -1"),
        (message(tensor("x", "FP32", [2**40, 2**40], fp32_contents=[1.0])), 413, "limit of"),
        (message(tensor("x", "FP32", [2], fp32_contents=[1.0])), 400, "1 values"),
        (message(tensor("x", "FP32", [1])), 400, "0 values"),
        (message(tensor("x", "FP32", [1], fp64_contents=[1.0])), 400, "due in fp32_contents"),
        (message(tensor("x", "FP32", [1], fp32_contents=[1.0], int_contents=[1])), 400, "due in fp32_contents"),
        (message(tensor("x", "FP16", [1], fp32_contents=[1.0])), 400, "FP16 has no contents"),
        (message(tensor("x", "UINT8", [1], uint_contents=[256])), 400, "outside"),
        (message(tensor("x", "FP32", [2]), raw_input_contents=[b"123"]), 400, "3 bytes"),
        (message(tensor("x", "BOOL", [2]), raw_input_contents=[b"\1\3"]), 400, "byte 1 of a BOOL"),
        (message(INPUTS, outputs=[SimpleNamespace(name="", parameters={})]), 400, "the name is empty"),
        (message(INPUTS, outputs=[OUTPUT, OUTPUT]), 400, "'mean' is named twice"),
        (message(INPUTS, outputs=[SimpleNamespace(name="m", parameters={"classification": 1})]), 400, "classification"),
    ],
)
def test_a_malformed_message_is_refused(given, status, words):
    with pytest.raises(RequestError, match=words) as refused:
        infer_request_of(given, LIMITS)
    assert refused.value.status == status


def test_shared_memory_is_refused():
    given = tensor("x", "FP32", [1])
    given.parameters = {"shared_memory_region": Choice(string_param="r")}
    with pytest.raises(RequestError, match="shared memory is not served"):
        infer_request_of(message(given), Limits())


class Outputs(list):
    def add(self) -> SimpleNamespace:
        self.append(SimpleNamespace(name="", datatype="", shape=[]))
        return self[-1]


def test_a_response_holds_the_same_bits():
    out = SimpleNamespace(outputs=Outputs(), raw_output_contents=[], parameters=defaultdict(SimpleNamespace))
    arrays = {"mean": np.array([[0.1, np.nan]]), "mask": np.array([True, False])}
    fill_infer_response(InferResponse("spx", "2", None, {"batch": 3, "warm": True, "by": "x"}, arrays), out)
    assert (out.model_name, out.model_version, out.id) == ("spx", "2", "")
    assert {key: vars(value) for key, value in out.parameters.items()} == {
        "batch": {"int64_param": 3},
        "warm": {"bool_param": True},
        "by": {"string_param": "x"},
    }
    assert [(o.name, o.datatype, o.shape) for o in out.outputs] == [("mean", "FP64", [1, 2]), ("mask", "BOOL", [2])]
    assert out.raw_output_contents == [arrays["mean"].tobytes(), b"\1\0"]
