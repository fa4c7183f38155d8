"""The protocol over gRPC against a real server, by the library's own messages."""

import pytest

from tests.deploy.server.serving import TOKEN, infer_request

pytestmark = [pytest.mark.deploy]


def test_health_needs_no_token_and_all_else_does(call):
    assert call("ServerLive", token=None).live
    assert call("ServerReady", token=None).ready
    for method in ("ServerMetadata", "ModelMetadata", "ModelReady", "ModelConfig", "ModelInfer", "RepositoryIndex"):
        for token in (None, "wrong", TOKEN + "x"):
            error = call(method, token=token)
            assert error.code().name == "UNAUTHENTICATED", method
            assert "token" in error.details()
    for method in ("RepositoryModelLoad", "RepositoryModelUnload"):
        assert call(method, token=None).code().name == "UNAUTHENTICATED"


def test_errors_have_the_codes_and_words_of_http(call, server):
    from qtorch.deploy.server.stubs import inference_pb2 as messages

    error = call("ModelInfer", infer_request(model_version="9"))
    status, _, answer = server.call("GET", "/v2/models/spx/versions/9")
    assert (status, error.code().name) == (404, "NOT_FOUND")
    assert error.details() == answer["error"]
    assert call("ModelReady", messages.ModelReadyRequest(name="../x")).code().name == "NOT_FOUND"
    assert call("ModelInfer", infer_request(), timeout=1e-3).code().name == "DEADLINE_EXCEEDED"
    big = messages.ModelInferRequest(model_name="spx", raw_input_contents=[b" " * 650_000])
    assert call("ModelInfer", big).code().name == "RESOURCE_EXHAUSTED"
    assert (
        call("RepositoryModelLoad", messages.RepositoryModelLoadRequest(model_name="none")).code().name == "NOT_FOUND"
    )


def test_malformed_requests_are_refused_and_the_server_is_well(call):
    from qtorch.deploy.server.stubs import inference_pb2 as messages

    def changed(change):
        request = infer_request()
        change(request)
        return request

    bad = [
        b"\xff\xff\xff",
        b"no message",
        messages.ModelInferRequest(model_name="spx"),
        changed(lambda r: r.ClearField("raw_input_contents")),
        changed(lambda r: r.raw_input_contents.append(b"")),
        changed(lambda r: r.raw_input_contents.__setitem__(0, b"123")),
        changed(lambda r: r.inputs[0].shape.__setitem__(0, -2)),
        changed(lambda r: r.inputs[0].shape.__setitem__(0, 2**62)),
        changed(lambda r: setattr(r.inputs[0], "datatype", "FP31")),
        changed(lambda r: setattr(r.inputs[0], "name", "mask")),
        changed(lambda r: setattr(r.inputs[0], "name", "other")),
        changed(lambda r: r.raw_input_contents.__setitem__(1, b"\x02" * 32)),
        changed(lambda r: r.raw_input_contents.__setitem__(0, b"\xff" * len(r.raw_input_contents[0]))),
        changed(lambda r: r.outputs.add(name="nothing")),
        changed(lambda r: r.parameters["levels"].__setattr__("string_param", "2")),
        changed(lambda r: r.inputs[0].contents.fp32_contents.append(1.0)),
    ]
    for number, request in enumerate(bad):
        error = call("ModelInfer", request)
        assert hasattr(error, "code"), number
        assert error.code().name in ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"), (number, error.details())
        assert len(error.details()) > 10
    assert call("ModelInfer", infer_request()).model_version == "2"


def test_the_committed_messages_are_those_of_the_proto_file(tmp_path):
    from pathlib import Path

    from qtorch.deploy.server import stubs
    from qtorch.deploy.server.stubs.__main__ import generate

    generate(tmp_path)
    for name in ("inference_pb2.py", "inference_pb2.pyi"):
        assert (tmp_path / name).read_text() == Path(stubs.__file__).with_name(name).read_text()
