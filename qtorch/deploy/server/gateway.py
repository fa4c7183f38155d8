"""What every request passes, over HTTP or gRPC: admission, batching, time limit, errors, metrics and the log."""

import asyncio
import time
import traceback
import uuid
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any, Protocol, TypeVar, runtime_checkable

from qtorch import __version__
from qtorch.deploy.server.answers import Fault, FaultError, WorkerState
from qtorch.deploy.server.auth import Tokens, own_page
from qtorch.deploy.server.batching import Batcher
from qtorch.deploy.server.calls import Call
from qtorch.deploy.server.config import LOCAL, ServerConfig
from qtorch.deploy.server.logs import Log
from qtorch.deploy.server.merged_index import merged_index
from qtorch.deploy.server.metrics import Metrics
from qtorch.deploy.server.protocol import InferRequest, InferResponse, RequestError, checked_name, checked_version
from qtorch.errors import ArgumentError

T = TypeVar("T")
_PLACES = 2  # batches at a worker: while one is computed, the next is on its way
_CONTROL_S = 60.0  # in which workers load and unload; a model may be large
_LOOK_S = 5.0  # in which a worker that is well says what it knows
EXTENSIONS = ("binary_tensor_data", "model_repository", "model_configuration", "risk")


@runtime_checkable
class Computes(Protocol):
    """The workers, as `qtorch.deploy.server.deployment.Workers` calls them."""

    async def infer(self, requests: list[InferRequest]) -> list[Any]:
        """Answers requests in one batch."""

    async def ask(self, method: str, *arguments: Any) -> Any:
        """What one worker answers."""

    async def tell(self, method: str, *arguments: Any) -> list[Any]:
        """What all workers answer."""

    async def states(self) -> list[WorkerState]:
        """What each worker knows."""


class Gateway:
    """Takes requests, and hands them to the workers.

    Args:
        config: of the server.
        workers: who compute.
        tokens: who may ask.
        log: of requests and events.
    """

    def __init__(self, config: ServerConfig, workers: Computes, tokens: Tokens, log: Log) -> None:
        self.config, self.workers, self.tokens, self.log = config, workers, tokens, log
        self.in_flight = 0
        self.leaving = False  # readiness says no
        self.closed = False  # new work is refused
        self.hurried = asyncio.Event()  # the end waits for nothing more
        self.known: dict[tuple[str, str], str] = {}  # states by model and version
        self.reached = True  # the workers answered when they were last asked what they know
        self.unloaded: set[str] = set()
        self._problems: frozenset[str] = frozenset()
        places = _PLACES * config.replicas
        self.batcher = Batcher(
            self._batch,
            places=places,
            max_weight=config.max_batch_size,
            wait_s=config.batch_wait_s,
            max_waiting=config.max_queued,
            observe=self._observe,
        )
        # Bodies are read only of so many at once: what waits, and what is being computed.
        self.most = config.max_queued + places * config.max_batch_size
        self.metrics = Metrics(lambda: self.batcher.waiting, lambda: self.in_flight)

    def _observe(self, key: tuple[str, str | None], requests: int, windows: int) -> None:
        self.metrics.batch(self._label(key[0]), requests, windows)

    def _label(self, model: str) -> str:
        """A model's name if there is one, so that what is asked for cannot make labels without end."""
        return model if any(name == model for name, _ in self.known) else ""

    async def answered(self, call: Call, work: Awaitable[T]) -> T | RequestError:
        """What the work gives or is refused with, once it is logged and counted; a fault is 500 with its number.

        Args:
            call: what is logged; the work completes it.
            work: of the request.
        """
        self.in_flight += 1
        result: T | RequestError
        try:
            result = await work
        except RequestError as error:
            result = error
        except asyncio.CancelledError:
            self.told(call, 499, "the sender went away")
            raise
        except Exception as error:  # noqa: BLE001  the log has it, the sender its number
            result = self.fault(error, call.id)
        finally:
            self.in_flight -= 1
        if isinstance(result, RequestError):
            self.told(call, result.status, result.message)
        else:
            self.told(call, 200, "")
        return result

    def fault(self, error: BaseException, id: str = "") -> RequestError:
        """Writes a fault into the log, and gives what its sender is told.

        Args:
            error: that was no refusal.
            id: of the request, if there is one.
        """
        number = uuid.uuid4().hex[:12]
        self.log("fault", id=id, error_id=number, traceback=_text(error)[-1900:])
        return RequestError(500, f"an internal error, which the server's log tells of under {number}.")

    def told(self, call: Call, status: int, error: str) -> None:
        """Logs and counts a request.

        Args:
            call: that was answered.
            status: of HTTP.
            error: what it was refused with; "" if it was not.
        """
        seconds = time.perf_counter() - call.began
        label = self._label(call.model)
        version = call.version if (call.model, call.version) in self.known else ""
        self.metrics.answered(call.protocol, call.endpoint, label, version, str(status), seconds)
        facts: dict[str, Any] = {"model": call.model, "version": call.version, "windows": call.windows, "error": error}
        self.log(
            "request",
            id=call.id,
            protocol=call.protocol,
            method=call.method,
            path=call.path[:200],
            status=status,
            ms=round(1e3 * seconds, 2),
            bytes_in=call.bytes_in,
            bytes_out=call.bytes_out,
            **{name: value for name, value in facts.items() if value},
        )

    def admit(self) -> None:
        """Looks whether there is room for the work of one more request, before its body is read.

        Raises:
            RequestError: 503, the server is about to end; 429, it has too much to do.
        """
        if self.closed:
            raise RequestError(503, "the server is about to stop: ask another one.")
        if self.in_flight > self.most:
            raise RequestError(429, f"{self.in_flight - 1} requests are in work, as many as may: try again later.")

    def authorize(self, authorization: str | None) -> None:
        """Holds a request's token against those that are accepted.

        Raises:
            RequestError: 401, it bears none of them.
        """
        if not self.tokens.accepts(authorization):
            raise RequestError(401, "a token is needed: send it as Authorization: Bearer TOKEN.")

    def keep_to_own_pages(self, host: str | None, origin: str | None) -> None:
        """Refuses what a foreign page makes a browser send, where no token does.

        Args:
            host: the header of HTTP.
            origin: the header of HTTP; browsers alone send it.

        Raises:
            RequestError: 403, the request is one of a foreign page, or for a name that is not this machine's.
        """
        if not self.tokens and not own_page(host, origin, local=self.config.host in LOCAL):
            raise RequestError(
                403, "without tokens, other sites' pages may not ask, nor by another name than localhost: use a token."
            )

    async def infer(self, call: Call, request: InferRequest, timeout_s: float | None = None) -> InferResponse:
        """Answers a request, in a batch with others.

        Args:
            call: is told the version and the batch.
            request: parsed.
            timeout_s: of the sender; the server's own limit holds in any case.

        Raises:
            RequestError: 4xx, 503 or 504.
        """
        self._served(request.model)
        windows = max((each.shape[0] for each in request.inputs.values() if each.ndim), default=1)
        response: InferResponse
        response, call.windows = await self._in_time(
            self.batcher.submit((request.model, request.version), request, max(1, windows)), timeout_s
        )
        call.version = response.version
        return response

    async def _batch(self, key: Any, requests: list[InferRequest]) -> list[Any]:
        answers = await self.workers.infer(requests)
        return [FaultError(each.traceback) if isinstance(each, Fault) else each for each in answers]

    async def ask(self, name: str, method: str, *arguments: Any, timeout_s: float | None = None) -> Any:
        """What a worker answers of a model.

        Args:
            name: of the model.
            method: of the worker.
            *arguments: of it.
            timeout_s: of the sender.

        Raises:
            RequestError: 4xx, 503 or 504.
        """
        self._served(name)
        return await self._in_time(self.workers.ask(method, *arguments), timeout_s)

    async def metadata(self, name: str, version: str | None, timeout_s: float | None = None) -> dict[str, Any]:
        """A model's metadata.

        Raises:
            RequestError: 404, 503 or 504.
        """
        name, version = checked_name(name), checked_version(version)
        return await self.ask(name, "metadata", name, version, timeout_s=timeout_s)

    async def model_ready(self, name: str, version: str | None, timeout_s: float | None = None) -> bool:
        """Whether a model answers.

        Raises:
            RequestError: 404, it can be no name; 503 or 504.
        """
        name, version = checked_name(name), checked_version(version)
        if self.leaving or name in self.unloaded:
            return False
        return await self.ask(name, "ready", name, version, timeout_s=timeout_s)

    @property
    def ready(self) -> bool:
        """Whether the server answers: some version does, and it is not about to stop."""
        return not self.leaving and self.reached and "READY" in self.known.values()

    async def index(self) -> list[dict[str, str]]:
        """The repository's index: of a version that not all workers have, the state of the one that has not.

        Raises:
            RequestError: 503 or 504.
        """
        try:
            states = await _within(_LOOK_S, self.workers.states())
        except Exception:
            self.reached = False
            raise
        self.reached = True
        merged = merged_index(states)
        problems = frozenset(state.problem for state in states if state.problem)
        if problems - self._problems:
            self.log("folder", problem="; ".join(sorted(problems)))
        self._problems = problems
        self.known = {key: told["state"] for key, told in merged.items()}
        self.metrics.ready(key for key, state in self.known.items() if state == "READY")
        return list(merged.values())

    async def load(self, name: str) -> None:
        """Loads a model at all workers.

        Raises:
            RequestError: 4xx, 503 or 504.
        """
        checked_name(name)
        # Workers serve what is good of a model also where they refuse some version of it.
        self.unloaded.discard(name)
        try:
            await self._controlled(self.workers.tell("load", name))
        finally:
            await self.index()

    async def unload(self, name: str) -> None:
        """Serves a model no longer, at any worker, also one that is started later.

        Raises:
            RequestError: 404, 503 or 504.
        """
        await self._controlled(self.workers.tell("unload", checked_name(name)))
        self.unloaded.add(name)
        await self.index()

    def _served(self, name: str) -> None:
        if name in self.unloaded:
            raise RequestError(503, f"model {name!r} was unloaded: POST /v2/repository/models/{name}/load serves it.")

    async def _in_time(self, work: Awaitable[T], timeout_s: float | None) -> T:
        """The answer to work, within the server's limit and the sender's."""
        own = self.config.timeout_s
        return await _within(own if timeout_s is None else min(own, timeout_s), work)

    async def _controlled(self, work: Awaitable[T]) -> T:
        """The answer of all workers, which is not computed from the request's data."""
        return await _within(_CONTROL_S, work)

    async def watch(self) -> None:
        """Keeps the index and the tokens up to date, until it is cancelled."""
        while True:
            await asyncio.sleep(self.config.poll_s)
            try:
                await self.index()
            except RequestError as error:
                self.log("index", error=error.message)
            except Exception as error:  # noqa: BLE001  the looks must go on, and the log has it
                self.fault(error)
            try:
                if self.tokens.refresh():
                    self.log("tokens", file=str(self.tokens.file))
            except ArgumentError as error:
                self.log("tokens", error=str(error))

    def server_metadata(self) -> dict[str, Any]:
        """The server's own."""
        return {"name": "qtorch", "version": __version__, "extensions": list(EXTENSIONS)}

    async def drain(self) -> bool:
        """Makes readiness say no, takes no more, and waits for what was taken; whether all was answered."""
        self.leaving = True
        self.log("draining", in_flight=self.in_flight)
        await self._hurried_within(self.config.notice_s)
        self.closed = True
        end = time.monotonic() + self.config.drain_s
        while self.in_flight and time.monotonic() < end and not self.hurried.is_set():
            await self._hurried_within(0.02)
        return not self.in_flight

    async def _hurried_within(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self.hurried.wait(), seconds)


async def _within(seconds: float, work: Awaitable[T]) -> T:
    try:
        return await asyncio.wait_for(work, seconds)
    except TimeoutError as error:
        raise RequestError(504, f"not answered within {seconds:g} s: send less, or try again later.") from error


def _text(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))
