"""Which models and versions answer, as the workers told last."""

from collections.abc import Awaitable
from typing import Any, Protocol, runtime_checkable

from qtorch.deploy.server.answers import WorkerState
from qtorch.deploy.server.logs import Log
from qtorch.deploy.server.merged_index import merged_index
from qtorch.deploy.server.metrics import Metrics
from qtorch.deploy.server.protocol import RequestError, checked_name
from qtorch.deploy.server.time_limits import within

_CONTROL_S = 60.0  # in which workers load and unload; a model may be large
_LOOK_S = 5.0  # in which a worker that is well says what it knows


@runtime_checkable
class Holds(Protocol):
    """The workers, as holders of models."""

    async def tell(self, method: str, *arguments: Any) -> list[Any]:
        """What all workers answer."""

    async def states(self) -> list[WorkerState]:
        """What each worker knows."""


class Catalogue:
    """Which models and versions answer, and the orders to load and unload them.

    Args:
        workers: that hold them.
        metrics: are told which are ready.
        log: is told of a folder that cannot be read.
    """

    def __init__(self, workers: Holds, metrics: Metrics, log: Log) -> None:
        self.workers, self.metrics, self.log = workers, metrics, log
        self.known: dict[tuple[str, str], str] = {}  # states by model and version
        self.reached = True  # the workers answered when they were last asked what they know
        self.unloaded: set[str] = set()
        self._problems: frozenset[str] = frozenset()

    @property
    def answers(self) -> bool:
        """Whether some version does."""
        return self.reached and "READY" in self.known.values()

    def label(self, model: str) -> str:
        """A model's name if there is one, so that what is asked for cannot make labels without end."""
        return model if any(name == model for name, _ in self.known) else ""

    def require_served(self, name: str) -> None:
        """Looks whether a model was unloaded.

        Raises:
            RequestError: 503, it was.
        """
        if name in self.unloaded:
            raise RequestError(503, f"model {name!r} was unloaded: POST /v2/repository/models/{name}/load serves it.")

    async def index(self) -> list[dict[str, str]]:
        """The repository's index: of a version that not all workers have, the state of the one that has not.

        Raises:
            RequestError: 503 or 504.
        """
        try:
            states = await within(_LOOK_S, self.workers.states())
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

    async def _controlled(self, work: Awaitable[list[Any]]) -> list[Any]:
        """The answer of all workers, which is not computed from the request's data."""
        return await within(_CONTROL_S, work)
