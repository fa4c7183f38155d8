"""`qtorch serve` under load on loopback: batched against unbatched, and a soak.

    python benchmarks/server.py [--seconds 10] [--clients 1 8 32] [--soak 0]

The server and the load are processes of their own; the load is one thread of asyncio that sends prepared bytes on kept
connections, one window a request, each client one request after the other. The model is a transformer of width 48 on 64
sessions and a skewed Student-t head, asked for mean, value at risk and expected shortfall. `--soak 300` asks with 8
clients for so many seconds, and prints p99, and the memory of the process that listens and of the worker, by minute.
"""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil

CONTEXT, SOAK_CLIENTS = 64, 8


def save_model(folder: Path) -> int:
    """Writes the model; gives its number of inputs."""
    import torch

    from qtorch import Forecaster, heads, models
    from qtorch.data import WindowSpec
    from qtorch.deploy import save

    torch.manual_seed(0)
    spec = WindowSpec(context=CONTEXT, horizons=(1, 10))
    encoder = models.Transformer(len(spec.features), width=48, depth=3, heads=4)
    save(Forecaster(encoder, heads.SkewedStudentT(encoder.out_features, spec.horizons), spec), folder / "risk" / "1")
    return len(spec.features)


def request(features: int) -> bytes:
    """A request of one window, as it goes over the wire."""
    tensors = {
        "inputs": ("FP32", np.random.default_rng(0).normal(size=(1, CONTEXT, features)).astype(np.float32)),
        "mask": ("BOOL", np.ones((1, CONTEXT), bool)),
        "scale": ("FP32", np.full(1, 0.01, np.float32)),
    }
    inputs = [
        {"name": name, "datatype": kind, "shape": x.shape, "parameters": {"binary_data_size": x.nbytes}}
        for name, (kind, x) in tensors.items()
    ]
    outputs = [{"name": name} for name in ("mean", "value_at_risk", "expected_shortfall")]
    text = json.dumps({"inputs": inputs, "outputs": outputs, "parameters": {"binary_data_output": True}}).encode()
    body = text + b"".join(x.tobytes() for _, x in tensors.values())
    head = (
        f"POST /v2/models/risk/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        f"Inference-Header-Content-Length: {len(text)}\r\n\r\n"
    )
    return head.encode() + body


async def client(port: int, asked: bytes, end: float, answers: list[tuple[float, float, int]]) -> None:
    """Asks until the end; notes when, how long and which status."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while (began := time.perf_counter()) < end:
        writer.write(asked)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"\r\ncontent-length:")[2].split()[0])
        await reader.readexactly(length)
        now = time.perf_counter()
        answers.append((now, now - began, int(head.split()[1])))
    writer.close()


async def load(port: int, features: int, clients: int, seconds: float) -> None:
    """Prints the answers, in JSON."""
    answers: list[tuple[float, float, int]] = []
    began, asked = time.perf_counter(), request(features)
    await asyncio.gather(*(client(port, asked, began + seconds, answers) for _ in range(clients)))
    print(json.dumps([(when - began, took, status) for when, took, status in answers]))


def measure(port: int, features: int, clients: int, seconds: float) -> list[tuple[float, float, int]]:
    """The load in a process of its own; answers after the first second."""
    command = [sys.executable, __file__, "--load", str(port), str(features), str(clients), str(seconds + 1)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [(when - 1, took, status) for when, took, status in json.loads(done.stdout) if when >= 1]


class Server:
    """The command in a process of its own, with further options."""

    def __init__(self, folder: Path, *options: str) -> None:
        command = [sys.executable, "-m", "qtorch", "serve", "--models", str(folder), "--port=0", "--grpc_port=null"]
        with open(os.devnull, "w") as nowhere:
            self.process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=nowhere, text=True)
        assert self.process.stdout is not None
        line = next(line for line in self.process.stdout if line.startswith("http on "))
        self.port = int(line.rpartition(":")[2])
        own = psutil.Process(self.process.pid)
        workers = [each for each in own.children(recursive=True) if each.name().startswith("ray::ServeRepli")]
        self.processes = {"listener": own, "worker": workers[0]}

    def memory(self) -> dict[str, float]:
        """MiB of each process."""
        return {name: process.memory_info().rss / 2**20 for name, process in self.processes.items()}

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *error: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait(60) != 0:
            raise RuntimeError("the server did not answer every request before it ended")


def percentiles(answers: list[tuple[float, float, int]]) -> tuple[float, float]:
    """Median and 99 % of the times, in ms."""
    p50, p99 = np.percentile([took for _, took, _ in answers], [50, 99])
    return 1e3 * float(p50), 1e3 * float(p99)


def compare(folder: Path, features: int, clients: list[int], seconds: float) -> None:
    rates: dict[tuple[str, int], float] = {}
    print("| | clients | requests/s | p50, ms | p99, ms | statuses |\n|---|--:|--:|--:|--:|---|", flush=True)
    for name, size in (("unbatched", 1), ("batched", 64)):
        with Server(folder, f"--max_batch_size={size}") as server:
            for count in clients:
                answers = measure(server.port, features, count, seconds)
                rates[name, count] = len(answers) / seconds
                p50, p99 = percentiles(answers)
                statuses = dict(Counter(status for _, _, status in answers))
                print(
                    f"| {name} | {count} | {rates[name, count]:.0f} | {p50:.1f} | {p99:.1f} | {statuses} |", flush=True
                )
    for count in clients:
        print(f"batched over unbatched at {count} clients: {rates['batched', count] / rates['unbatched', count]:.2f}")


def soak(folder: Path, features: int, seconds: float) -> None:
    print(
        "| minute | requests/s | p50, ms | p99, ms | listener, MiB | worker, MiB |\n|--:|--:|--:|--:|--:|--:|",
        flush=True,
    )
    with Server(folder) as server:
        measure(server.port, features, SOAK_CLIENTS, 5)
        for minute in range(max(1, round(seconds / 60))):
            part = min(60.0, seconds) - 1
            answers = measure(server.port, features, SOAK_CLIENTS, part)
            if {status for _, _, status in answers} != {200}:
                raise RuntimeError("a request was refused")
            p50, p99 = percentiles(answers)
            size = server.memory()
            print(
                f"| {minute + 1} | {len(answers) / part:.0f} | {p50:.1f} | {p99:.1f} | {size['listener']:.0f} "
                f"| {size['worker']:.0f} |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--soak", type=float, default=0, help="seconds; 0 compares")
    parser.add_argument("--load", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.load:
        port, features, clients = map(int, args.load[:3])
        asyncio.run(load(port, features, clients, float(args.load[3])))
        return
    with tempfile.TemporaryDirectory() as folder:
        features = save_model(Path(folder))
        if args.soak:
            soak(Path(folder), features, args.soak)
        else:
            compare(Path(folder), features, args.clients, args.seconds)


if __name__ == "__main__":
    main()
