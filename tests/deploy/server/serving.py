"""A real server in a process of its own, small saved models, and a client of the standard library."""

import http.client
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from qtorch import Forecaster
from qtorch.data import WindowSpec
from qtorch.deploy import save
from qtorch.risk import expected_shortfall, value_at_risk
from tests.conftest import make_model

SPEC = WindowSpec(context=16, horizons=(1, 5))
TOKEN = "token-of-the-tests-1234567890"


def save_version(folder: Path, name: str, version: int, seed: int, model: Forecaster | None = None) -> Forecaster:
    """Saves a model, or a small one, as a version, whole at once, and gives it."""
    torch.manual_seed(seed)
    model = make_model(SPEC) if model is None else model
    with tempfile.TemporaryDirectory() as aside:
        save(model, Path(aside) / "new")
        (folder / name).mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-r", Path(aside) / "new", folder / name / f".{version}"], check=True)
    (folder / name / f".{version}").rename(folder / name / str(version))
    return model


def windows(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Inputs of a request; the first sessions of a window are masked, each with another number."""
    rng = np.random.default_rng(seed)
    mask = np.arange(16) >= rng.integers(0, 12, (count, 1))
    return {
        "inputs": rng.normal(size=(count, 16, len(SPEC.features))).astype(np.float32),
        "mask": mask,
        "scale": rng.uniform(0.005, 0.03, count).astype(np.float32),
    }


@torch.inference_mode()
def eager(model, tensors: dict[str, np.ndarray], levels=(0.975, 0.99)) -> dict[str, np.ndarray]:
    """What the forecaster itself says of windows."""
    given = {name: torch.from_numpy(value) for name, value in tensors.items()}
    law = model.network.head.distribution(*model.network(given["inputs"], given["mask"]))
    scale = given["scale"].double().unsqueeze(1)
    stacked = {
        name: torch.stack([measure(law, level).double() for level in levels], -1)
        for name, measure in (("value_at_risk", value_at_risk), ("expected_shortfall", expected_shortfall))
    }
    found = {"mean": law.mean.double() * scale, "volatility": law.variance.sqrt().double() * scale}
    return {name: value.numpy() for name, value in found.items()} | {
        name: (value * scale.unsqueeze(-1)).numpy() for name, value in stacked.items()
    }


def body_of(tensors: dict[str, np.ndarray], **more: Any) -> dict[str, Any]:
    """A request as JSON."""
    kinds = {"f": "FP32", "b": "BOOL"}
    inputs = [
        {"name": name, "shape": list(value.shape), "datatype": kinds[value.dtype.kind], "data": value.ravel().tolist()}
        for name, value in tensors.items()
    ]
    return {"inputs": inputs} | more


def infer_request(**more: Any) -> Any:
    """A request of two windows as a message of gRPC."""
    from qtorch.deploy.server.stubs import inference_pb2 as messages

    tensors = windows(2)
    kinds = {"f": "FP32", "b": "BOOL"}
    request = messages.ModelInferRequest(model_name="spx", **more)
    for name, value in tensors.items():
        request.inputs.add(name=name, datatype=kinds[value.dtype.kind], shape=value.shape)
        request.raw_input_contents.append(value.tobytes())
    return request


def outputs_of(answer: dict[str, Any]) -> dict[str, np.ndarray]:
    """The tensors of a response in JSON."""
    return {each["name"]: np.array(each["data"]).reshape(each["shape"]) for each in answer["outputs"]}


class Server:
    """`qtorch serve` until it is stopped.

    Args:
        folder: of the models.
        *options: of the command.
        token: that requests bear; None bears none.
    """

    def __init__(self, folder: Path, *options: str, token: str | None = None) -> None:
        self.token = token
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115  it is closed by stop
        command = [sys.executable, "-m", "qtorch", "serve", "--models", str(folder), "--port=0", "--grpc_port=0"]
        root = Path(__file__).parents[3]
        self.process = subprocess.Popen(
            [*command, *options],
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            cwd=root,
            env=os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._said: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.port = int(self._until("http on ").rpartition(":")[2])
        self.grpc_port = int(self._until("grpc on ").rpartition(":")[2])

    def _read(self) -> None:
        for line in self.process.stdout:
            self._said.put(line.rstrip())
        self._said.put(None)

    def _until(self, words: str) -> str:
        end = time.monotonic() + 120
        while (line := self._said.get(timeout=max(0.1, end - time.monotonic()))) is not None:
            self.lines.append(line)
            if line.startswith(words):
                return line
        raise AssertionError(f"the server ended: {self.lines} {self.logged()}")

    def logged(self) -> list[str]:
        """The lines of standard error so far."""
        self.log.flush()
        self.log.seek(0)
        return self.log.read().splitlines()

    def events(self) -> list[dict[str, Any]]:
        """The log so far."""
        return [json.loads(line) for line in self.logged() if line.startswith("{")]

    def call(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, timeout: float = 60
    ) -> tuple[int, dict[str, str], Any]:
        """Status, headers by small letters, and the JSON of the answer."""
        given = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, data, given | (headers or {}))
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        found = {name.lower(): value for name, value in response.getheaders()}
        plain = found.get("content-type", "").startswith("application/json")
        return response.status, found, json.loads(content) if plain else content.decode()

    def infer(self, tensors: dict[str, np.ndarray], model: str = "spx", **more: Any) -> tuple[int, Any]:
        """Status and JSON of a request of windows."""
        status, _, answer = self.call("POST", f"/v2/models/{model}/infer", body_of(tensors, **more))
        return status, answer

    def workers(self) -> list[int]:
        """The processes of the workers."""
        found = psutil.Process(self.process.pid).children(recursive=True)
        return [each.pid for each in found if each.name().startswith("ray::ServeRepli")]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal, and waits for the exit code."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """The exit code, once it ends."""
        code = self.process.wait(timeout=90)
        while (line := self._said.get(timeout=10)) is not None:
            self.lines.append(line)
        return code
