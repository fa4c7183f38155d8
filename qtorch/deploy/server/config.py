"""The configuration of the server; needs no torch."""

import os
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from qtorch.deploy.server.protocol import Limits
from qtorch.errors import ArgumentError

LOCAL = ("127.0.0.1", "::1", "localhost")


@dataclass
class ServerConfig:
    """What is served, to whom, and within which bounds.

    Attributes:
        models: the folder of models: <model>/<version>/ is one that was saved, versions are whole numbers from 1.
        host: address that is listened at; another than this machine's own needs a token.
        port: of HTTP; 0 takes any that is free.
        grpc_port: of gRPC; 0 takes any that is free, null serves none.
        token_file: a file of tokens, one a line; a request must bear one. The environment's QTORCH_TOKEN is one too.
        insecure: listen at any address without a token.
        replicas: worker processes, each of which holds all models.
        threads: of each worker's arithmetic; null shares the machine's cores among them.
        max_batch_size: windows that are computed together; 1 computes each request alone.
        batch_wait_s: seconds that a request waits for others while a worker is free. Under load, batches grow by
            themselves, from what came while the workers were busy.
        max_queued: requests that wait; more are refused until there are fewer.
        max_bytes: of a request.
        max_windows: of a request.
        max_elements: of a tensor of a request.
        max_connections: of HTTP at once; more are refused.
        idle_s: seconds that a connection of HTTP may send no request, or not the whole of its head.
        timeout_s: seconds until a request is answered, or refused for that.
        notice_s: seconds after a signal to stop in which requests are still taken, but readiness says no already; so
            long a load balancer needs to look elsewhere.
        drain_s: seconds after that in which what was taken is answered.
        poll_s: seconds between looks for new versions.
        pinned: the version that answers where none is named, by model; of others it is the highest.
        allow: packages beside qtorch whose classes the models may name.
        data: prices for the risk endpoint, as the section of that name of the nightly job's file; null serves none.
        address: of a Ray cluster that runs already, such as auto; null starts one on this machine for the server alone.
    """

    models: str
    host: str = "127.0.0.1"
    port: int = 8000
    grpc_port: int | None = 8001
    token_file: str | None = None
    insecure: bool = False
    replicas: int = 1
    threads: int | None = None
    max_batch_size: int = 64
    batch_wait_s: float = 0.002
    max_queued: int = 256
    max_bytes: int = 16 << 20
    max_windows: int = 1024
    max_elements: int = 4_000_000
    max_connections: int = 1024
    idle_s: float = 60.0
    timeout_s: float = 30.0
    notice_s: float = 0.0
    drain_s: float = 30.0
    poll_s: float = 2.0
    pinned: dict[str, str] = field(default_factory=dict)
    allow: list[str] = field(default_factory=list)
    # Of Any, the command line's parser would make more than plain values.
    data: dict | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        """Checks what can be without the models.

        Raises:
            ValueError: a setting is out of bounds.
        """
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and not (isfinite(value) and value >= least):
                raise ArgumentError(f"{name} must be at least {least}, not {value}.")
        for name in ("timeout_s", "poll_s", "idle_s"):
            if getattr(self, name) <= 0:
                raise ArgumentError(f"{name} must be positive, not {getattr(self, name)}.")
        for name in ("port", "grpc_port"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 65535:
                raise ArgumentError(f"{name} must be between 0 and 65535, not {value}.")
        if self.port and self.port == self.grpc_port:
            raise ArgumentError(f"port and grpc_port are both {self.port}: give another for one of them.")

    @property
    def limits(self) -> Limits:
        """What a request may be at most."""
        return Limits(self.max_bytes, self.max_windows, self.max_elements, self.timeout_s)

    @property
    def worker_threads(self) -> int:
        """Threads of each worker's arithmetic."""
        return self.threads or max(1, (os.cpu_count() or 1) // self.replicas)

    def worker(self) -> dict[str, Any]:
        """What a worker is told of it."""
        return {
            "models": self.models,
            "limits": self.limits,
            "threads": self.worker_threads,
            "poll_s": self.poll_s,
            "pinned": self.pinned,
            "allow": tuple(self.allow),
            "data": self.data,
        }


_LEAST = {
    "replicas": 1,
    "threads": 1,
    "max_batch_size": 1,
    "batch_wait_s": 0,
    "max_queued": 1,
    "max_bytes": 1024,
    "max_windows": 1,
    "max_elements": 1,
    "max_connections": 1,
    "idle_s": 0,
    "notice_s": 0,
    "drain_s": 0,
}
