"""Ray as an executor."""

import logging
import os
import queue
import sys
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any

import torch

from qtorch.deploy.extras import needed
from qtorch.deploy.ray_environment import guard_local_ray, tell_nobody
from qtorch.distributions.checks import require
from qtorch.errors import BriefInNotebooks


class TaskLost(BriefInNotebooks, RuntimeError):
    """A call was lost with the process or the node that ran it, more often than it was to be tried again."""


class RayExecutor(Executor):
    """Runs calls as tasks of Ray, on the machines of a cluster; extra `ray`.

    A call whose process or node is lost runs again; one that raises does not, and its exception is that of a local
    call. No more than `workers` calls are with the cluster at a time; others wait here, where they can be cancelled.
    Each runs with as many threads of torch as it has processors, so that its numbers are those of the same call in one
    thread, or in a process pool.

    As other executors, it is shut down after use, or used in a `with` statement: it lets go of the function then, and
    of the panel that a walk's function holds, and stops Ray if it has started it.

    What the calls write, such as the folder of a walk, has to be on a file system that all machines share.

    Args:
        address: of a cluster, such as ``"auto"`` or ``"10.0.0.1:6379"``. None is that of the environment's
            ``RAY_ADDRESS``, and without it starts Ray on this machine, for this process alone. A process that has
            joined a cluster already stays there.
        workers: calls that are with the cluster at a time, and processors of a Ray that is started here. None is twice
            as many as the cluster's processors take, so that none is idle, and a cluster that can grow does.
        retries: of a call whose process or node is lost.
        **options: of each task, such as `num_cpus`, `num_gpus` and `memory`, the bytes that a node sets aside for it;
            see `ray.remote`.

    Raises:
        ImportError: Ray is not installed.
        ValueError: there is less than one worker, or less than no retry.
    """

    def __init__(
        self, address: str | None = None, *, workers: int | None = None, retries: int = 3, **options: Any
    ) -> None:
        require(workers is None or workers >= 1, "workers", workers, "give a number of calls of at least 1")
        require(retries >= 0, "retries", retries, "give 0 or more")
        address = address or os.environ.get("RAY_ADDRESS") or "local"
        if "ray" not in sys.modules:
            tell_nobody()
            if address == "local":
                guard_local_ray()
        self._ray = ray = needed("ray", "ray", "RayExecutor")
        self._ours = not ray.is_initialized()
        if self._ours:
            here = {"num_cpus": workers, "include_dashboard": False} if address == "local" else {}
            # What stops a task for its memory has its own count of tries, that of this process.
            os.environ.setdefault("RAY_task_oom_retries", str(retries))
            ray.init(address, log_to_driver=False, logging_level=logging.WARNING, **here)
        self.workers, self.retries, self.options = workers, retries, options
        self._threads = max(1, int(options.get("num_cpus", 1)))
        self._remote = ray.remote(max_retries=retries, **options)(_call)
        self._function: Callable | None = None
        self._shared: Any = None
        self._events: queue.SimpleQueue[_Call | Future | None] = queue.SimpleQueue()
        self._open = True
        self._cancelled = False
        self._thread = threading.Thread(target=self._run, name="RayExecutor", daemon=True)
        self._thread.start()

    @property
    def at_once(self) -> int:
        """Calls that are with the cluster at a time; it may grow and shrink with the cluster."""
        if self.workers is not None:
            return self.workers
        processors = self._ray.cluster_resources().get("CPU", 1)
        return max(1, int(2 * processors / (self.options.get("num_cpus", 1) or 1)))

    def submit(self, fn: Callable, /, *args: Any, **kwargs: Any) -> Future:
        """The call's future.

        One function after another is sent to the cluster once, with all that it holds: a walk's holds the panel. A
        process there keeps the last.

        Raises:
            RuntimeError: the executor has been shut down.
        """
        if not self._open:
            raise RuntimeError("this RayExecutor has been shut down. Make another.")
        if fn is not self._function:
            self._function, self._shared = fn, self._ray.put(fn)
        call = _Call(Future(), self._shared, args, kwargs)
        self._events.put(call)
        return call.future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no further calls, lets go of the function that was sent, and stops Ray if it has started it.

        Args:
            wait: until all calls are done, and Ray is stopped; otherwise that is done when they are.
            cancel_futures: cancel the calls that the cluster has not been given; what it has, it finishes.
        """
        self._open, self._function, self._shared = False, None, None
        self._cancelled = self._cancelled or cancel_futures
        self._events.put(None)
        if wait:
            self._thread.join()

    def _run(self) -> None:
        waiting, running = deque[_Call](), dict[Future, Future]()
        try:
            self._give(waiting, running)
        except Exception as error:  # noqa: BLE001 - nobody else would tell those who wait
            self._open = False
            waits = [call.future for call in waiting if call.future.set_running_or_notify_cancel()]
            for future in [*running.values(), *waits]:
                future.set_exception(error)
        if self._ours:
            self._ray.shutdown()

    def _give(self, waiting: deque["_Call"], running: dict[Future, Future]) -> None:
        """Gives the cluster what waits as it ends what it has: Ray's own threads must not be kept waiting."""
        ending = False
        while not ending or waiting or running:
            event = self._events.get()
            if event is None:
                ending = True
                while self._cancelled and waiting:
                    waiting.popleft().future.cancel()
            elif isinstance(event, _Call):
                waiting.append(event)
            else:
                self._finish(event, running.pop(event))
            del event
            while waiting and len(running) < self.at_once:
                call = waiting.popleft()
                if call.future.set_running_or_notify_cancel():
                    self._start(call, running)
                del call

    def _start(self, call: "_Call", running: dict[Future, Future]) -> None:
        try:
            task = self._remote.remote([call.shared], self._threads, call.args, call.kwargs).future()
        except Exception as error:  # noqa: BLE001 - it is the caller's: arguments that can't be sent
            call.future.set_exception(error)
            return
        running[task] = call.future
        task.add_done_callback(self._events.put)

    def _finish(self, task: Future, future: Future) -> None:
        error = task.exception()
        if error is None:
            future.set_result(task.result())
        else:
            future.set_exception(self._told(error))

    def _told(self, error: BaseException) -> BaseException:
        """The exception of the call itself, or what became of its process."""
        exceptions = self._ray.exceptions
        if isinstance(error, exceptions.RayTaskError) and not isinstance(error.cause, exceptions.RayError):
            told = error.cause
            told.__cause__ = error  # whose message is the traceback over there
            return told
        tried = f"it was tried {self.retries + 1} times" if self.retries else "and it was to be tried once"
        told = error
        if isinstance(error, exceptions.OutOfMemoryError):
            told = MemoryError(
                f"Ray has stopped a task because its node ran out of memory; {tried}. Give each task more with "
                "memory= (bytes), so that fewer run on a node at a time, or use larger nodes."
            )
        elif not isinstance(error, exceptions.RayTaskError):
            told = TaskLost(
                f"a task was lost with the process or the node that ran it ({type(error).__name__}); {tried}. The "
                "logs of its node tell why it ended; retries= tries more often."
            )
        if told is not error:
            told.__cause__ = error
        return told


@dataclass(frozen=True, eq=False)
class _Call:
    """What waits.

    Attributes:
        future: of the caller.
        shared: where the function is.
        args: of the function.
        kwargs: of the function.
    """

    future: Future
    shared: Any
    args: tuple
    kwargs: dict[str, Any]


_latest: tuple[str, Callable] | None = None  # the function that a process of the cluster has been sent last


def _call(shared: list[Any], threads: int, args: tuple, kwargs: dict[str, Any]) -> Any:
    """A task; what it shares with others comes in a list, for else Ray would read it anew for each."""
    global _latest
    name = shared[0].hex()
    if _latest is None or _latest[0] != name:
        import ray

        _latest = None  # which is let go of before the next is read
        _latest = name, ray.get(shared[0])
    torch.set_num_threads(threads)
    return _latest[1](*args, **kwargs)
