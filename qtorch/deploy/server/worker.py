"""A process that holds the models and computes; needs torch."""

import asyncio
import os
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from qtorch.deploy.server.answers import Fault, VersionState, WorkerState
from qtorch.deploy.server.protocol import InferRequest, InferResponse, Limits, RequestError
from qtorch.deploy.server.repository import Repository
from qtorch.deploy.server.risk import RiskService
from qtorch.deploy.server.risk_request import RiskRequest
from qtorch.nightly.config import NightlyData

# Questions of risk at a worker, that which is computed among them. They must leave most of the places that a worker has
# for calls (`max_ongoing_requests` of its deployment) to inference, which would starve behind them otherwise.
_MOST_RISK = 16
_LONGEST_RISK = 5  # times as long as a batch: the first question of a date makes its forecasts


class Worker:
    """Answers calls by returning values, refusals and faults alike; an exception means that the worker is lost.

    Args:
        models: the folder.
        limits: what a request may be at most.
        threads: of the arithmetic.
        poll_s: seconds between looks for new versions.
        pinned: default versions by model.
        allow: packages beside qtorch whose classes the models may name.
        data: of the risk endpoint, as of `qtorch.nightly.config.NightlyData`; None is none.

    Raises:
        TypeError, ValueError: the data's settings cannot be used.
    """

    def __init__(
        self,
        models: str,
        limits: Limits,
        threads: int = 1,
        poll_s: float = 2.0,
        pinned: Mapping[str, str] | None = None,
        allow: Sequence[str] = (),
        data: Mapping[str, Any] | None = None,
    ) -> None:
        torch.set_num_threads(threads)
        self.limits, self.poll_s = limits, poll_s
        self.repository = Repository(models, allow, limits, pinned)
        self.risk_service = None if data is None else RiskService(NightlyData(**data), self.repository)
        self.problem = ""
        self._looked = threading.Lock()
        # One batch is computed at a time, on all threads; what may take long does not hold it up.
        self._compute, self._control, self._search, self._risk = (ThreadPoolExecutor(1) for _ in range(4))
        self._began: dict[str, float] = {}  # when the batch and the risk that are computed were begun
        self._risks = 0
        self._look()
        threading.Thread(target=self._poll, daemon=True).start()

    def _poll(self) -> None:
        while True:
            time.sleep(self.poll_s)
            self._look()

    def _look(self) -> None:
        """Loads what is new; a folder that cannot be read now leaves all as it is, and is told of in the state."""
        with self._looked:
            try:
                self.repository.refresh()
                self.problem = ""
            except Exception as error:  # noqa: BLE001  what is served goes on, and so must the looks
                self.problem = f"{type(error).__name__}: {error}"

    def check_health(self) -> None:
        """For Ray Serve, which replaces a worker whose check fails.

        Raises:
            RuntimeError: a batch or a risk is computed since long.
        """
        longest = {"batch": 4 * self.limits.timeout_s, "risk": _LONGEST_RISK * 4 * self.limits.timeout_s}
        for what, began in self._began.copy().items():
            if time.monotonic() - began > longest[what]:
                raise RuntimeError(f"a {what} is computed for more than {longest[what]} s")

    def _timed(self, what: str, call: Callable[..., Any], *arguments: Any) -> Any:
        """What a call returns, told or raised, while the health check sees how long it takes."""
        self._began[what] = time.monotonic()
        try:
            return _told(call, *arguments)
        finally:
            del self._began[what]

    async def infer(self, requests: list[InferRequest]) -> list[InferResponse | RequestError | Fault]:
        """Answers requests of one model and version in one batch.

        Args:
            requests: with equal model and version.
        """
        problem = await self._sought(requests[0].model, requests[0].version)
        if problem is not None:
            return [problem] * len(requests)
        loop = asyncio.get_running_loop()
        answers = await loop.run_in_executor(self._compute, self._timed, "batch", self._infer, requests)
        return answers if isinstance(answers, list) else [answers] * len(requests)

    def _infer(self, requests: list[InferRequest]) -> list[InferResponse | RequestError | Fault]:
        model = self.repository.get(requests[0].model, requests[0].version)
        answers = _told(model.run, requests)
        if isinstance(answers, list):
            return answers
        # What a fault was found in is told from the others by running each alone.
        alone = [_told(model.run, [each]) for each in requests]
        return [answer[0] if isinstance(answer, list) else answer for answer in alone]

    async def _sought(self, name: str, version: str | None) -> RequestError | Fault | None:
        """Why a model does not answer, if it does not; one that came after the last look is loaded.

        No thread that computes waits for that.
        """
        for attempt in range(2):
            found = _told(self.repository.get, name, version)
            if not isinstance(found, RequestError | Fault):
                return None
            if attempt or isinstance(found, Fault) or found.status != 404:
                return found
            run = asyncio.get_running_loop().run_in_executor
            fault = await run(self._search, _told, self.repository.seek, name, version)
            if fault is not None:
                return fault
        raise AssertionError("a loop of two attempts returns")

    async def metadata(self, name: str, version: str | None) -> Any:
        """As `ServedModel.metadata`."""
        problem = await self._sought(name, version)
        if problem is not None:
            return problem
        return _told(lambda: self.repository.get(name, version).metadata(self.repository.versions(name)))

    async def ready(self, name: str, version: str | None) -> Any:
        """As `Repository.ready`."""
        return _told(self.repository.ready, name, version)

    async def state(self) -> WorkerState:
        """The index, and whether the folder could be read."""
        index = [
            VersionState(each.name, each.version, each.state.value, each.reason) for each in self.repository.index()
        ]
        return WorkerState(index, self.problem, os.getpid())

    async def load(self, name: str) -> Any:
        """As `Repository.load`."""

        def load() -> None:
            self._look()
            self.repository.load(name)

        return await self._controlled(load)

    async def unload(self, name: str) -> Any:
        """As `Repository.unload`."""
        return await self._controlled(lambda: self.repository.unload(name))

    async def risk(self, request: RiskRequest) -> Any:
        """As `RiskService.answer`; 429 where too many wait already."""
        service = self.risk_service
        if service is None:
            return RequestError(404, "this server has no prices: start it with the option data to ask for risk.")
        problem = await self._sought(request.model, request.version)
        if problem is not None:
            return problem
        if self._risks >= _MOST_RISK:
            return RequestError(429, f"{self._risks} questions of risk are in work, as many as may: try again later.")
        self._risks += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._risk, self._timed, "risk", service.answer, request)
        finally:
            self._risks -= 1

    async def _controlled(self, call: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._control, _told, call)


def _told(call: Callable[..., Any], *arguments: Any) -> Any:
    """What a call returns; a refusal or a fault instead of raising it."""
    try:
        return call(*arguments)
    except RequestError as error:
        return error
    except Exception:  # noqa: BLE001  whoever asks is told an error's number, the log its traceback
        return Fault(traceback.format_exc())
