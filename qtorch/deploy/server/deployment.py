"""The workers, as a deployment of Ray Serve; needs Ray."""

import logging
import secrets
from collections.abc import Callable
from typing import Any

from qtorch.deploy.ray_environment import guard_local_ray, tell_nobody
from qtorch.deploy.server.answers import Fault, FaultError, WorkerState
from qtorch.deploy.server.config import ServerConfig
from qtorch.deploy.server.protocol import InferRequest, InferResponse, RequestError

_MEMORY = 100 << 20  # bytes of Ray's store of objects, through which large requests pass


class WorkerProcess:
    """A process of Ray Serve around a `qtorch.deploy.server.worker.Worker`, which alone imports torch.

    Args:
        **settings: of the worker.
    """

    def __init__(self, **settings: Any) -> None:
        from qtorch.deploy.server.worker import Worker

        self.worker = Worker(**settings)

    async def call(self, method: str, *arguments: Any) -> Any:
        """What a method of the worker returns."""
        return await getattr(self.worker, method)(*arguments)

    def check_health(self) -> None:
        """For Ray Serve, as the worker's."""
        self.worker.check_health()


class Workers:
    """Calls the workers; a call whose worker is lost is repeated once, which inference allows.

    Args:
        handle: of the deployment.
        retried: is told of every call that is repeated.
    """

    def __init__(self, handle: Any, retried: Callable[[], None] = lambda: None) -> None:
        self.handle, self.retried = handle, retried

    async def infer(self, requests: list[InferRequest]) -> list[InferResponse | RequestError | Fault]:
        """Answers requests of one model and version in one batch, by one worker."""
        return await self.ask("infer", requests)

    async def ask(self, method: str, *arguments: Any) -> Any:
        """What one worker answers.

        Args:
            method: of `Worker`.
            *arguments: of it.

        Raises:
            RequestError: what the worker refuses with; 503, two workers were lost one after the other.
        """
        for attempt in range(2):
            try:
                return _raised(await self.handle.call.remote(method, *arguments))
            except _losses() as error:
                if attempt:
                    raise RequestError(
                        503, "the worker that computed this was lost, and so was another: try again a little later."
                    ) from error
                self.retried()
        raise AssertionError("a loop of two attempts returns or raises")

    async def tell(self, method: str, *arguments: Any) -> list[Any]:
        """What all workers answer.

        Args:
            method: of `Worker`.
            *arguments: of it.

        Raises:
            RequestError: what a worker refuses with; 503, a worker was lost.
        """
        answers = await self._all(method, *arguments)
        for answer in answers:
            if isinstance(answer, _losses()):
                raise RequestError(503, "a worker was lost meanwhile: try again a little later.") from answer
        return [_raised(answer) for answer in answers]

    async def states(self) -> list[WorkerState]:
        """What each worker that is there knows.

        Raises:
            RequestError: 503, none is.
        """
        answers = await self._all("state")
        there = [_raised(answer) for answer in answers if not isinstance(answer, _losses())]
        if not there:
            raise RequestError(503, "no worker is there: try again a little later.")
        return there

    async def _all(self, method: str, *arguments: Any) -> list[Any]:
        """What all workers answer; an error in the place of an answer."""
        return await self.handle.broadcast("call", method, *arguments).results_async(return_exceptions=True)


def _losses() -> tuple[type[BaseException], ...]:
    """What is raised if a worker is lost or there is none; all else that is raised is a fault."""
    from ray import exceptions
    from ray.serve.exceptions import DeploymentUnavailableError, ReplicaUnavailableError

    return (
        exceptions.RayActorError,
        exceptions.WorkerCrashedError,
        exceptions.NodeDiedError,
        exceptions.OutOfMemoryError,
        exceptions.ObjectLostError,
        DeploymentUnavailableError,
        ReplicaUnavailableError,
    )


def _raised(answer: Any) -> Any:
    if isinstance(answer, BaseException):
        raise answer
    if isinstance(answer, Fault):
        raise FaultError(answer.traceback)
    return answer


def prepare(config: ServerConfig) -> None:
    """Sets what Ray reads of the environment when it is imported; to be called before.

    Args:
        config: of the server.
    """
    tell_nobody()
    if config.address is None:
        guard_local_ray()


class Cluster:
    """Ray and the workers on it, for as long as the server runs.

    Args:
        config: of the server.
    """

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        # A cluster may have other servers on it.
        self.application = f"qtorch-{secrets.token_hex(4)}"
        self._serve_is_ours = False

    def start(self) -> Any:
        """Starts Ray, or joins the cluster that is named, and the workers; the handle of their deployment.

        No proxy of Ray Serve runs: who may ask, and what, is decided in the process that listens.

        Raises:
            RuntimeError: the workers do not start.
        """
        import ray
        from ray import serve

        config = self.config
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        if config.address is None:
            ray.init(
                num_cpus=config.replicas,
                num_gpus=0,
                object_store_memory=_MEMORY,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        else:
            ray.init(address=config.address, log_to_driver=False, logging_level=logging.ERROR)
        self._serve_is_ours = not _serve_runs()
        serve.start(proxy_location="Disabled")
        deployment = serve.deployment(
            WorkerProcess,
            name="Worker",
            num_replicas=config.replicas,
            # Batches are bounded before they come here; these places are for metadata, readiness and risk too.
            max_ongoing_requests=64,
            ray_actor_options={"num_cpus": 1},
            health_check_period_s=5,
            health_check_timeout_s=60,
            graceful_shutdown_timeout_s=5,
        )
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        return serve.run(deployment.bind(**config.worker()), name=self.application, route_prefix=None)

    def stop(self) -> None:
        """Ends the workers, and what else was started for them: Ray Serve unless others use it now, and Ray."""
        import ray
        from ray import serve

        if self.config.address is not None and ray.is_initialized():
            serve.delete(self.application)
            if self._serve_is_ours and not serve.status().applications:
                serve.shutdown()
        ray.shutdown()


def _serve_runs() -> bool:
    """Whether Ray Serve runs on the cluster already."""
    from ray.util import list_named_actors

    return any(actor["namespace"] == "serve" for actor in list_named_actors(all_namespaces=True))
