"""What `qtorch serve` does: checks, starts, serves until a signal, and drains."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from qtorch.deploy.server import deployment
from qtorch.deploy.server.auth import Tokens
from qtorch.deploy.server.config import LOCAL, ServerConfig
from qtorch.deploy.server.logs import LibraryLog, Log
from qtorch.deploy.server.protocol import RequestError
from qtorch.errors import ArgumentError

_CLOSE_S = 0.5  # in which connections close, once nothing is waited for


def run(config: ServerConfig, say: Callable[[str], None]) -> int:
    """Serves until SIGTERM or SIGINT.

    Args:
        config: what is served.
        say: is told what happens, a line each.

    Returns:
        0, every request was answered; 1, some were not, because time to drain was over.

    Raises:
        ImportError: the extra is missing.
        ValueError: a setting, a token or the folder of models cannot be used, a port is taken, or no model is usable.
        RuntimeError: the workers do not start.
    """
    deployment.prepare(config)
    _need_extra()
    if not Path(config.models).is_dir():
        raise ArgumentError(f"models {config.models}: no such folder.")
    given = os.environ.get("QTORCH_TOKEN")
    tokens = Tokens([given] if given else [], config.token_file)
    if not tokens and not config.insecure and config.host not in LOCAL:
        raise ArgumentError(
            f"host {config.host} can be reached by others: give token_file, or insecure if all of them may ask."
        )
    listener = _listener(config)
    say(f"starting {config.replicas} worker(s), {config.worker_threads} thread(s) each")
    cluster = deployment.Cluster(config)
    try:
        try:
            workers = deployment.Workers(cluster.start())
        except RuntimeError as error:
            raise RuntimeError(f"the workers do not start: {str(error).strip().splitlines()[0]}") from error
        return asyncio.run(_serve(config, workers, tokens, listener, say))
    finally:
        listener.close()
        cluster.stop()


def _need_extra() -> None:
    try:
        for name in ("aiohttp", "google.protobuf", "grpc", "prometheus_client", "ray.serve"):
            import_module(name)
    except ImportError as error:
        raise ImportError(f"it needs {error.name}: pip install 'qtorch-finance[serve]'.") from error


def _listener(config: ServerConfig) -> socket.socket:
    """The socket of HTTP, before anything slow is started."""
    try:
        family, kind, number, _, address = socket.getaddrinfo(
            config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, number)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise ArgumentError(f"host {config.host}, port {config.port}: {error.strerror}.") from error
    return listener


async def _serve(config: ServerConfig, workers: Any, tokens: Tokens, listener: socket.socket, say: Any) -> int:
    from aiohttp import web

    from qtorch.deploy.server.app import make_app
    from qtorch.deploy.server.connections import accepting
    from qtorch.deploy.server.gateway import Gateway
    from qtorch.deploy.server.grpc_service import make_server

    log = Log(sys.stderr)
    LibraryLog(log).take_over()
    gateway = Gateway(config, workers, tokens, log)
    stopping = asyncio.Event()

    def stop() -> None:
        if stopping.is_set():  # told twice: whoever waits for the end has no more patience
            gateway.ending.hurried.set()
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    workers.retried = gateway.metrics.retried
    try:
        index = await gateway.catalogue.index()
    except RequestError as error:
        raise RuntimeError(f"the workers do not answer: {error.message}") from error
    for each in index:
        reason = f": {each['reason']}" if each["reason"] else ""
        say(f"model {each['name']} version {each['version']} {each['state']}{reason}")
    if not gateway.ready:
        raise ArgumentError(
            f"models {config.models}: no model there is usable; <model>/<version>/ is one that qtorch.deploy.save "
            "wrote, versions are whole numbers from 1."
        )
    runner = web.AppRunner(make_app(gateway), shutdown_timeout=_CLOSE_S)
    await runner.setup()
    http = await asyncio.get_running_loop().create_server(accepting(gateway, runner.server), sock=listener)
    say(f"http on {config.host}:{listener.getsockname()[1]}")
    server = None
    if config.grpc_port is not None:
        server = make_server(gateway)
        say(f"grpc on {config.host}:{_add_port(server, config)}")
        await server.start()
    if not tokens:
        say("no token is asked for")
    watch = asyncio.create_task(gateway.watch())
    try:
        await stopping.wait()
        say("draining")
        await gateway.ending.drain()
        left = gateway.record.in_flight  # those below are cut off
    finally:
        watch.cancel()
        http.close()
        if server is not None:
            await server.stop(_CLOSE_S)
        await runner.cleanup()
        gateway.reader.close()
    say(f"stopped with {left} requests not answered" if left else "stopped")
    return 1 if left else 0


def _add_port(server: Any, config: ServerConfig) -> int:
    host = f"[{config.host}]" if ":" in config.host else config.host
    try:
        return int(server.add_insecure_port(f"{host}:{config.grpc_port}"))
    except RuntimeError as error:
        raise ArgumentError(f"host {config.host}, grpc_port {config.grpc_port}: the port cannot be had.") from error
