"""What every request passes, over HTTP or gRPC: who may ask, how much there may be at once, batches and time limits."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar, runtime_checkable

from qtorch import __version__
from qtorch.deploy.server.answers import Fault, FaultError
from qtorch.deploy.server.auth import Tokens, own_page
from qtorch.deploy.server.batching import Batcher
from qtorch.deploy.server.calls import Call
from qtorch.deploy.server.catalogue import Catalogue, Holds
from qtorch.deploy.server.config import LOCAL, ServerConfig
from qtorch.deploy.server.ending import Ending
from qtorch.deploy.server.logs import Log
from qtorch.deploy.server.metrics import Metrics
from qtorch.deploy.server.protocol import InferRequest, InferResponse, RequestError, checked_name, checked_version
from qtorch.deploy.server.reader import Reader
from qtorch.deploy.server.record import Record
from qtorch.deploy.server.time_limits import within
from qtorch.errors import ArgumentError

T = TypeVar("T")
_PLACES = 2  # batches at a worker: while one is computed, the next is on its way
_LARGE = 1 << 18  # bytes of JSON or fields, which take ten milliseconds
EXTENSIONS = ("binary_tensor_data", "model_repository", "model_configuration", "risk")


@runtime_checkable
class Computes(Holds, Protocol):
    """The workers, as `qtorch.deploy.server.deployment.Workers` calls them."""

    async def infer(self, requests: list[InferRequest]) -> list[Any]:
        """Answers requests in one batch."""

    async def ask(self, method: str, *arguments: Any) -> Any:
        """What one worker answers."""


class Gateway:
    """Takes requests, and hands them to the workers.

    Args:
        config: of the server.
        workers: who compute.
        tokens: who may ask.
        log: of requests and events.

    Attributes:
        catalogue: of the models.
        record: of the requests.
        ending: of the server.
        reader: of large requests.
        most: requests in work at once; beyond, new ones are refused.
    """

    def __init__(self, config: ServerConfig, workers: Computes, tokens: Tokens, log: Log) -> None:
        self.config, self.workers, self.tokens, self.log = config, workers, tokens, log
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
        self.metrics = Metrics(lambda: self.batcher.waiting, lambda: self.record.in_flight)
        self.catalogue = Catalogue(workers, self.metrics, log)
        self.record = Record(log, self.metrics, self.catalogue)
        self.ending = Ending(config.notice_s, config.drain_s, lambda: self.record.in_flight, log)
        self.reader = Reader()

    def _observe(self, key: tuple[str, str | None], requests: int, windows: int) -> None:
        self.metrics.batch(self.catalogue.label(key[0]), requests, windows)

    def admit(self) -> None:
        """Looks whether there is room for the work of one more request, before its body is read.

        Raises:
            RequestError: 503, the server is about to end; 429, it has too much to do.
        """
        if self.ending.closed:
            raise RequestError(503, "the server is about to stop: ask another one.")
        if self.record.in_flight > self.most:
            raise RequestError(
                429, f"{self.record.in_flight - 1} requests are in work, as many as may: try again later."
            )

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

    async def read(self, size: int, parse: Callable[..., T], *given: Any, timeout_s: float | None = None) -> T:
        """What a request means; a large one is read where it holds up nobody else.

        Args:
            size: bytes that are read number by number.
            parse: a function of a module.
            *given: its arguments.
            timeout_s: of the sender; the server's own limit holds in any case.

        Raises:
            RequestError: what parse refuses with, 503 or 504.
        """
        if size <= _LARGE:
            return parse(*given)
        return await self._in_time(self.reader.call(parse, *given), timeout_s)

    async def infer(self, call: Call, request: InferRequest, timeout_s: float | None = None) -> InferResponse:
        """Answers a request, in a batch with others.

        Args:
            call: is told the version and the batch.
            request: parsed.
            timeout_s: of the sender; the server's own limit holds in any case.

        Raises:
            RequestError: 4xx, 503 or 504.
        """
        self.catalogue.require_served(request.model)
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
        self.catalogue.require_served(name)
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
        if self.ending.leaving or name in self.catalogue.unloaded:
            return False
        return await self.ask(name, "ready", name, version, timeout_s=timeout_s)

    @property
    def ready(self) -> bool:
        """Whether the server answers: some version does, and it is not about to stop."""
        return not self.ending.leaving and self.catalogue.answers

    def server_metadata(self) -> dict[str, Any]:
        """The server's own."""
        return {"name": "qtorch", "version": __version__, "extensions": list(EXTENSIONS)}

    async def _in_time(self, work: Awaitable[T], timeout_s: float | None) -> T:
        """The answer to work, within the server's limit and the sender's."""
        own = self.config.timeout_s
        return await within(own if timeout_s is None else min(own, timeout_s), work)

    async def watch(self) -> None:
        """Keeps the catalogue and the tokens up to date, until it is cancelled."""
        while True:
            await asyncio.sleep(self.config.poll_s)
            try:
                await self.catalogue.index()
            except RequestError as error:
                self.log("index", error=error.message)
            except Exception as error:  # noqa: BLE001  the looks must go on, and the log has it
                self.record.fault(error)
            try:
                if self.tokens.refresh():
                    self.log("tokens", file=str(self.tokens.file))
            except ArgumentError as error:
                self.log("tokens", error=str(error))
