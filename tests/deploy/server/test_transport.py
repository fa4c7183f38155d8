"""A real server without tokens, under tight bounds: connections, foreign pages, slow bodies, the log, Ray's ports."""

import contextlib
import json
import os
import signal
import socket
import threading
import time

import numpy as np
import psutil
import pytest

from tests.deploy.server.serving import Server, body_of, save_version, windows

pytestmark = [pytest.mark.deploy]
HEAD = b"POST /v2/models/spx/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("transport")
    save_version(folder, "spx", 1, seed=1)
    return folder


@pytest.fixture(scope="module")
def bare(folder):
    server = Server(folder, "--max_connections=8", "--idle_s=2", "--poll_s=0.3", "--notice_s=1", "--drain_s=1")
    yield server
    if server.process.poll() is None:
        server.stop()


def connected(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=30)


def answer(connection: socket.socket) -> tuple[bytes, bytes]:
    """Head and body, once the server closes."""
    content = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = content.partition(b"\r\n\r\n")
    return head, body


def test_pages_of_other_sites_cannot_ask(bare):
    path = "/v2/repository/models/spx/unload"
    text = {"Content-Type": "text/plain"}
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Host": f"evil.example:{bare.port}"}):
        status, _, told = bare.call("POST", path, b"{}", text | headers)
        assert status == 403, headers
        assert "token" in told["error"]
    assert bare.infer(windows(1))[0] == 200, "it was not unloaded"
    own = {"Origin": f"http://127.0.0.1:{bare.port}"}
    assert bare.call("GET", "/v2", headers=own)[0] == 200


@pytest.mark.parametrize("sent", [b"", b"GET /v2 HTTP/1.1\r\nHost: loc"])
def test_a_connection_without_a_whole_head_is_closed(bare, sent):
    with connected(bare) as connection:
        began = time.monotonic()
        connection.sendall(sent)
        assert answer(connection) == (b"", b"")
        assert 1 < time.monotonic() - began < 20


def test_too_many_connections_are_refused(bare):
    waiting = [connected(bare) for _ in range(8)]
    with connected(bare) as one:
        head, body = answer(one)
    assert head.startswith(b"HTTP/1.1 503 ")
    assert "too many connections" in json.loads(body)["error"]
    for each in waiting:
        each.close()
    end = time.monotonic() + 20
    while bare.call("GET", "/v2/health/live")[0] != 200:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_what_is_no_http_is_told_and_logged_as_all_else_is(bare):
    with connected(bare) as connection:
        connection.sendall(b"GET /v2 HTTP/1.1\r\nHost: x\r\nBad Header: x\r\n\r\n")
        head, body = answer(connection)
    assert head.split()[1] == b"400"
    assert "no HTTP" in json.loads(body)["error"]
    (identity,) = (line[14:].decode() for line in head.split(b"\r\n") if line.lower().startswith(b"x-request-id:"))
    assert [each["status"] for each in bare.events() if each.get("id") == identity.strip()] == [400]
    assert bare.call("GET", "/v2", headers={"Expect": "a miracle"})[0] == 200
    for method, path in (("GET", "/v2/modles"), ("DELETE", "/v2"), ("OPTIONS", "*")):
        status, headers, told = bare.call(method, path, headers={"Expect": "a miracle", "X-Request-Id": "expects"})
        assert (status, told["error"]) == (417, "this is no HTTP that is read here: Unknown Expect: a miracle")
        assert [each["status"] for each in bare.events() if each.get("id") == headers["x-request-id"]] == [417]
    with connected(bare) as connection:
        connection.sendall(HEAD.replace(b"1000\r\n", b"2\r\nExpect: 100-continue\r\nConnection: close\r\n"))
        assert connection.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"{}")
        assert answer(connection)[0].startswith(b"HTTP/1.1 400 ")


def test_ray_listens_at_this_machine_alone(bare):
    processes = psutil.Process(bare.process.pid).children(recursive=True)
    # A worker has one port of Ray Serve, which opens it at all addresses and takes no setting for that.
    ray = [one for one in processes if one.pid not in bare.workers()]
    found = [each for one in ray for each in one.net_connections("inet") if each.status == psutil.CONN_LISTEN]
    assert len(found) > 4
    assert {each.laddr.ip.removeprefix("::ffff:") for each in found} == {"127.0.0.1"}


def test_the_port_that_a_worker_opens_at_all_addresses_needs_ray_s_secret(bare):
    import grpc

    (worker,) = bare.workers()
    found = [each for each in psutil.Process(worker).net_connections("inet") if each.status == psutil.CONN_LISTEN]
    (port,) = (each.laddr.port for each in found if each.laddr.ip not in ("127.0.0.1", "::ffff:127.0.0.1"))
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        for given in ((), (("authorization", "Bearer 0123456789abcdef0123456789abcdef"),)):
            with pytest.raises(grpc.RpcError) as error:
                channel.unary_unary("/ray.serve.ASGIService/HandleRequest")(b"", timeout=30, metadata=given)
            assert error.value.code().name == "UNAUTHENTICATED"


def reader_of(server: Server) -> psutil.Process:
    """The process that reads large requests."""
    children = psutil.Process(server.process.pid).children()
    (one,) = (each for each in children if "multiprocessing.spawn" in " ".join(each.cmdline()))
    return one


def test_who_reads_large_requests_holds_up_nobody_and_is_replaced(folder):
    server = Server(folder)
    tensors, answers = windows(100), []
    body = json.dumps(body_of(tensors, outputs=[{"name": "mean"}])).encode()
    assert len(body) > 500_000

    def ask() -> None:
        answers.append(server.call("POST", "/v2/models/spx/infer", body)[::2])

    ask()
    reader = reader_of(server)
    reader.suspend()
    asking = threading.Thread(target=ask)
    asking.start()
    for _ in range(5):
        assert server.call("GET", "/v2/health/live")[0] == 200
        assert server.infer(windows(1))[0] == 200
    assert len(answers) == 1
    reader.resume()
    asking.join(60)
    assert [status for status, _ in answers] == [200, 200]
    mean = [np.array(told["outputs"][0]["data"]) for _, told in answers]
    np.testing.assert_allclose(mean[0], mean[1], rtol=1e-6)
    assert mean[0].size == 200

    reader.kill()
    reader.wait(30)
    assert server.call("POST", "/v2/models/spx/infer", body)[0] in (200, 503)
    status, _, told = server.call("POST", "/v2/models/spx/infer", body[:-1])
    assert (status, "no JSON" in told["error"]) == (400, True)
    ask()
    assert answers[-1][0] == 200

    own = psutil.Process(server.process.pid).children(recursive=True)
    reader = reader_of(server)
    server.process.kill()
    reader.wait(30)  # ends with the server, however that ends
    for each in own:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    server.process.wait(30)


def test_messages_are_read_only_once_their_token_is_looked_at(server):
    import grpc

    sent = []

    def message():
        # More than what flow control lets pass unread, if only by parts.
        for _ in range(64):
            sent.append(1)
            yield b"x" * 500_000

    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        call = channel.stream_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as error:
            call(message(), timeout=30)
    assert error.value.code().name == "UNAUTHENTICATED"
    assert len(sent) < 32


def test_readiness_says_no_once_the_only_worker_is_dead(bare):
    assert bare.call("GET", "/v2/health/ready")[0] == 200
    (worker,) = bare.workers()
    os.kill(worker, signal.SIGKILL)
    end = time.monotonic() + 8
    while bare.call("GET", "/v2/health/ready")[0] == 200:
        assert time.monotonic() < end
        time.sleep(0.05)
    end = time.monotonic() + 90
    while bare.call("GET", "/v2/health/ready")[0] != 200:
        assert time.monotonic() < end
        time.sleep(0.2)
    assert bare.call("POST", "/v2/models/spx/infer", body_of(windows(1)))[0] == 200


def test_a_slow_body_holds_up_the_end_no_longer_than_the_drain(bare):
    with connected(bare) as connection:
        connection.sendall(HEAD + b'{"inputs"')
        time.sleep(0.5)
        began = time.monotonic()
        assert bare.stop() == 1
        assert time.monotonic() - began < 25
    assert bare.lines[-1] == "stopped with 1 requests not answered"
    assert all(line.startswith("{") for line in bare.logged()), bare.logged()


def test_a_second_signal_ends_it_at_once(folder):
    server = Server(folder, "--notice_s=60", "--drain_s=60")
    began = time.monotonic()
    server.process.send_signal(signal.SIGINT)
    while server.call("GET", "/v2/health/ready")[0] != 503:
        assert time.monotonic() - began < 30
    assert server.stop(signal.SIGINT) == 0
    assert time.monotonic() - began < 45
