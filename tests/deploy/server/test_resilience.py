"""Under load: a version swapped, a worker killed, too many requests, and the end; no request is lost in silence."""

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from qtorch import Forecaster
from qtorch.heads import StudentT
from tests.deploy.server.serving import SPEC, Server, body_of, eager, outputs_of, save_version, windows
from tests.deploy.server.slow import SECONDS, Slow

pytestmark = [pytest.mark.deploy, pytest.mark.slow]


class Load:
    """Clients that ask one after the other until they are told to stop, and keep every answer."""

    def __init__(self, server: Server, clients: int, count: int = 2) -> None:
        self.server, self.tensors = server, windows(count)
        self.body = json.dumps(body_of(self.tensors, outputs=[{"name": "mean"}]))
        self.answers: list[tuple[float, int | str, dict]] = []
        self.sent = 0
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def __enter__(self) -> "Load":
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *error) -> None:
        self._stop.set()
        for each in self._threads:
            each.join(60)
        assert not any(each.is_alive() for each in self._threads), "a request was never answered"

    def _ask(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                self.sent += 1
            connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=50)
            try:
                connection.request("POST", "/v2/models/spx/infer", self.body)
                response = connection.getresponse()
                answer = (response.status, json.loads(response.read()))
            except OSError as error:
                answer = (type(error).__name__, {})
            finally:
                connection.close()
            with self._lock:
                self.answers.append((time.monotonic(), *answer))

    def codes(self, since: float = 0.0) -> Counter:
        """How often each status came."""
        return Counter(status for when, status, _ in self.answers if when >= since)

    def versions(self) -> list[str]:
        """Of the good answers, in their order."""
        return [answer["model_version"] for _, status, answer in self.answers if status == 200]


def until(condition, seconds=60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)


def test_versions_are_swapped_under_load_and_the_end_waits_for_answers(tmp_path):
    models = {"1": save_version(tmp_path, "spx", 1, seed=1)}
    server = Server(tmp_path, "--poll_s=0.3")
    process = server.workers()
    with Load(server, clients=6) as load:
        until(lambda: len(load.answers) > 30)
        models["2"] = save_version(tmp_path, "spx", 2, seed=2)
        until(lambda: "2" in load.versions()[-5:])
        shutil.rmtree(tmp_path / "spx" / "1")
        until(lambda: server.call("GET", "/v2/models/spx")[2]["versions"] == ["2"])
        models["3"] = save_version(tmp_path, "spx", 3, seed=3)
        # Asked for by its number, a version is found before the next look at the folder.
        assert server.call("POST", "/v2/models/spx/versions/3/infer", body_of(windows(1)))[0] == 200
        until(lambda: "3" in load.versions()[-5:])
    assert load.codes() == {200: load.sent}, "no request failed"
    assert server.workers() == process, "no worker was restarted"
    versions = load.versions()
    assert set(versions) == {"1", "2", "3"}
    expected = {version: eager(model, load.tensors)["mean"] for version, model in models.items()}
    for _, _, answer in load.answers:
        np.testing.assert_allclose(outputs_of(answer)["mean"], expected[answer["model_version"]], rtol=2e-5, atol=1e-8)

    # The end: requests in flight are answered, readiness says no, new ones are refused or find nobody.
    with Load(server, clients=6) as load:
        until(lambda: len(load.answers) > 30)
        assert server.stop() == 0
    assert set(load.codes()) <= {200, 503, "ConnectionRefusedError", "ConnectionResetError", "RemoteDisconnected"}
    assert load.codes()[200] > 30
    logged = Counter(each["status"] for each in server.events() if each["event"] == "request")
    assert not set(logged) - {200, 503}
    assert server.lines[-2:] == ["draining", "stopped"]


def test_readiness_says_no_while_requests_are_still_taken(tmp_path):
    save_version(tmp_path, "spx", 1, seed=1)
    server = Server(tmp_path, "--notice_s=3")
    assert server.call("GET", "/v2/health/ready")[0] == 200
    os.killpg(server.process.pid, signal.SIGINT)  # as a terminal does, to all processes
    until(lambda: server.call("GET", "/v2/health/ready")[0] == 503)
    assert server.call("GET", "/v2/health/live")[0] == 200
    assert server.infer(windows(1))[0] == 200
    assert server.wait() == 0


def test_a_killed_worker_costs_no_request_in_silence(tmp_path):
    save_version(tmp_path, "spx", 1, seed=1)
    server = Server(tmp_path, "--replicas=2", "--threads=1", "--poll_s=0.5")
    first = server.workers()
    assert len(first) == 2
    with Load(server, clients=8) as load:
        until(lambda: len(load.answers) > 50)
        killed = time.monotonic()
        os.kill(first[0], signal.SIGKILL)
        until(lambda: len(set(server.workers()) - set(first)) == 1, seconds=90)
        time.sleep(3)
    assert len(load.answers) == load.sent
    assert set(load.codes()) <= {200, 503, 429}
    assert load.codes(since=killed)[200] > 50
    after = [status for when, status, _ in load.answers if when > load.answers[-1][0] - 1]
    assert set(after) == {200}
    print("answers by status:", load.codes(), "of", load.sent)
    assert server.call("GET", "/v2/health/ready")[0] == 200
    assert server.stop() == 0


def test_more_than_can_wait_is_refused_cleanly(tmp_path):
    save_version(tmp_path, "spx", 1, seed=1)
    server = Server(tmp_path, "--max_queued=4", "--max_batch_size=1", "--threads=1")
    with Load(server, clients=24, count=64) as load:
        until(lambda: load.codes()[429] > 20 and load.codes()[200] > 20)
    assert set(load.codes()) == {200, 429}
    refused = [answer["error"] for _, status, answer in load.answers if status == 429]
    assert all("try again" in each for each in refused)
    assert server.call("GET", "/v2/models/spx")[0] == 200
    with ThreadPoolExecutor(24) as pool:
        tried = list(pool.map(lambda _: server.call("POST", "/v2/models/spx/infer", load.body.encode()), range(24)))
    assert {headers["retry-after"] for status, headers, _ in tried if status == 429} <= {"1"}
    assert server.stop() == 0


def test_time_is_limited(tmp_path):
    import grpc

    from qtorch.deploy.server.stubs import inference_pb2 as messages

    encoder = Slow(len(SPEC.features), width=4)
    save_version(tmp_path, "spx", 1, 1, Forecaster(encoder, StudentT(encoder.out_features, SPEC.horizons), SPEC))
    server = Server(tmp_path, "--timeout_s=0.5", '--allow=["tests"]')
    process = server.workers()
    for _ in range(2):
        began = time.monotonic()
        status, answer = server.infer(windows(64))
        assert time.monotonic() - began < SECONDS
        assert (status, "not answered within 0.5 s" in answer["error"]) == (504, True)
    many = windows(64)
    request = messages.ModelInferRequest(
        model_name="spx",
        inputs=[
            {"name": name, "datatype": kind, "shape": many[name].shape}
            for name, kind in (("inputs", "FP32"), ("mask", "BOOL"))
        ],
        raw_input_contents=[many["inputs"].tobytes(), many["mask"].tobytes()],
    )
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as error:
            call(request.SerializeToString(), timeout=60)
    assert error.value.code().name == "DEADLINE_EXCEEDED"
    assert "not answered within 0.5 s" in error.value.details(), "of the server, whose sender would wait longer"
    assert server.call("GET", "/v2/health/live")[0] == 200
    until(lambda: server.infer(windows(1))[0] == 200)
    assert server.workers() == process
    assert server.stop() == 0


@pytest.fixture(scope="module")
def command():
    """Runs `qtorch serve` that is to fail; gives code and standard error."""

    def run(*options: str, **environment: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "qtorch", "serve", *options],
            capture_output=True,
            text=True,
            timeout=120,
            env=os.environ | environment,
            check=False,
        )
        return done.returncode, done.stderr

    return run


def test_what_cannot_be_served_is_told_in_one_line(command, tmp_path):
    import socket

    code, told = command("--models", str(tmp_path / "none"))
    assert (code, "no such folder" in told) == (2, True)
    code, told = command("--models", str(tmp_path), "--host=0.0.0.0")
    assert (code, "token_file" in told) == (2, True)
    code, told = command("--models", str(tmp_path), QTORCH_TOKEN="short")
    assert (code, "at least 16" in told) == (2, True)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, told = command("--models", str(tmp_path), f"--port={taken.getsockname()[1]}")
        assert (code, "in use" in told) == (2, True)
    for line in told.splitlines():
        assert line.startswith("qtorch serve: ")
    code, told = command("--models", str(tmp_path), "--port=0", "--grpc_port=0")
    assert code == 2
    assert told.splitlines()[-1].startswith("qtorch serve: ")
    assert "no model there is usable" in told
