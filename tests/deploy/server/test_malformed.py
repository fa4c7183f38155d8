"""Malformed requests against a real server: each refused with what is wrong, and the server well after them."""

import json
import socket

import pytest

from tests.deploy.server.serving import TOKEN, body_of, windows

pytestmark = [pytest.mark.deploy]
PATH = "/v2/models/spx/infer"


def good() -> dict:
    return body_of(windows(2))


def changed(at: int, **values) -> dict:
    body = good()
    body["inputs"][at] |= values
    return body


def without(at: int, name: str) -> dict:
    body = good()
    del body["inputs"][at][name]
    return body


NAN = good()
NAN["inputs"][0]["data"][-1] = float("nan")
BODIES = {
    "empty": b"",
    "no JSON": b"{",
    "bytes": bytes(range(256)),
    "no UTF-8": b'{"inputs": "\xff\xfe"}',
    "a list": b"[]",
    "a number": b"7",
    "null": b"null",
    "no inputs": b"{}",
    "inputs of another kind": b'{"inputs": {}}',
    "inputs of numbers": b'{"inputs": [1, 2]}',
    "no input": b'{"inputs": []}',
    "nested deeply": b'{"inputs": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "a huge number": b'{"inputs": [{"name": "inputs", "shape": ['
    + b"9" * 5000
    + b'], "datatype": "FP32", "data": []}]}',
    "two in one": json.dumps(good()).encode() * 2,
    "cut": json.dumps(good()).encode()[:-20],
    "NaN where usable": json.dumps(NAN).encode(),
    "name missing": without(0, "name"),
    "shape missing": without(0, "shape"),
    "datatype missing": without(0, "datatype"),
    "data missing": without(0, "data"),
    "name of a number": changed(0, name=7),
    "name unknown": changed(0, name="other"),
    "name twice": changed(1, name="inputs"),
    "shape of text": changed(0, shape="2"),
    "shape of fractions": changed(0, shape=[2.5, 16, 17]),
    "shape negative": changed(0, shape=[-2, 16, 17]),
    "shape of others": changed(0, shape=[3, 16, 17]),
    "shape huge": changed(0, shape=[2**40, 2**40, 17]),
    "shape beyond 64 bits": changed(0, shape=[2**70, 16, 17]),
    "shape empty": changed(0, shape=[]),
    "no windows": changed(0, shape=[0, 16, 17], data=[]),
    "shape of bools": changed(0, shape=[True, 16, 17]),
    "features of others": changed(0, shape=[2, 17, 16]),
    "datatype unknown": changed(0, datatype="FP31"),
    "datatype of bytes": changed(0, datatype="BYTES"),
    "datatype of a mask": changed(0, datatype="BOOL"),
    "data of text": changed(0, data=["a"] * 544),
    "data of bools": changed(0, data=[True] * 544),
    "data of nothing": changed(0, data=[None] * 544),
    "data too short": changed(0, data=[0.0]),
    "data of objects": changed(0, data=[{}] * 544),
    "data ragged": changed(0, data=[[0.0], [0.0, 1.0]]),
    "data beyond float32": changed(0, data=[1e300] * 544),
    "mask of numbers": changed(1, data=[1] * 32),
    "mask of FP32": changed(1, datatype="FP32"),
    "mask of nothing usable": changed(1, data=[False] * 32),
    "mask of another shape": changed(1, shape=[1, 32]),
    "scale negative": changed(2, data=[-0.01, 0.01]),
    "scale zero": changed(2, data=[0.0, 0.01]),
    "scale of others": changed(2, shape=[1], data=[0.01]),
    "outputs of another kind": good() | {"outputs": 3},
    "output unknown": good() | {"outputs": [{"name": "nothing"}]},
    "output without name": good() | {"outputs": [{}]},
    "parameters of another kind": good() | {"parameters": []},
    "levels beyond": good() | {"parameters": {"levels": "1.5"}},
    "levels of text": good() | {"parameters": {"levels": "many"}},
    "id of a list": good() | {"id": [1]},
}
HEADERS = {
    "header longer than the body": {"Inference-Header-Content-Length": "999999"},
    "header negative": {"Inference-Header-Content-Length": "-1"},
    "header no number": {"Inference-Header-Content-Length": "many"},
    "header of zero": {"Inference-Header-Content-Length": "0"},
    "not gzip": {"Content-Encoding": "gzip"},
    "not deflate": {"Content-Encoding": "deflate"},
    "encoding unknown": {"Content-Encoding": "zstd"},
}


def refused(status: int, answer: object) -> None:
    assert 400 <= status < 500, answer
    assert isinstance(answer, dict)
    assert len(answer["error"]) > 10
    assert "Traceback" not in answer["error"]


@pytest.fixture(scope="module", autouse=True)
def well_after(server):
    yield
    assert server.infer(windows(2))[0] == 200
    assert server.call("GET", "/v2/health/ready")[0] == 200
    assert not [each for each in server.events() if each["event"] == "fault"]


def test_there_are_at_least_sixty():
    assert len(BODIES) + len(HEADERS) + len(PATHS) + len(WIRE) >= 60


@pytest.mark.parametrize("name", BODIES)
def test_bodies_are_refused(server, name):
    status, _, answer = server.call("POST", PATH, BODIES[name])
    refused(status, answer)


@pytest.mark.parametrize("name", HEADERS)
def test_headers_are_refused(server, name):
    status, _, answer = server.call("POST", PATH, good(), HEADERS[name])
    refused(status, answer)


PATHS = [
    "/v2/models/..%2f..%2fetc/infer",
    "/v2/models/%00/infer",
    "/v2/models/spx/versions/0/infer",
    "/v2/models/spx/versions/-1/infer",
    "/v2/models/spx/versions/2.0/infer",
    "/v2/models/spx/versions/99999999999999999999/infer",
    "/v2/models/spx/versions/%F0%9F%98%80/infer",
    "/v2/models/" + "a" * 5000 + "/infer",
    "/v2/models//infer",
    "/v2/models/spx/infer/more",
    "/v2/models/..%2f..%2fetc/risk",
]


@pytest.mark.parametrize("path", PATHS)
def test_paths_are_refused(server, path):
    status, _, answer = server.call("POST", path, good())
    refused(status, answer)


WIRE = [
    b"\x00\x01\x02\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"POST /v2/models/spx/infer HTTP/1.1\r\nHost: x\r\nContent-Length: abc\r\n\r\n",
    b"POST /v2/models/spx/infer HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    b"POST /v2/models/spx/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
    b"POST /v2/models/spx/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    b"GET /v2 HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
    b"GET /v2 HTTP/1.1\r\nHost: x\r\nBad Header: x\r\n\r\n",
]
# Where the sender's end comes before a request, or breaks off its body: there is nobody to tell, unless the refusal was
# on its way before the end was seen.
CLOSED = (0, 6)


@pytest.mark.parametrize("number", range(len(WIRE)))
def test_what_is_no_http_is_refused(server, number):
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(WIRE[number])
        if number in CLOSED:
            connection.shutdown(socket.SHUT_WR)
        line = connection.makefile("rb").readline()
    refusals = (b"HTTP/1.1 4", b"HTTP/1.0 4")
    assert line.startswith(refusals) or (number in CLOSED and line == b""), line


def test_a_body_that_is_broken_off_harms_nothing(server):
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 1000\r\n\r\n"
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
            connection.sendall(head.encode() + b'{"inputs"')
    assert server.infer(windows(2))[0] == 200
