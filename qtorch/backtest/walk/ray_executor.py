"""Ray as an executor."""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from concurrent.futures import wait as wait_for
from typing import Any


class RayExecutor(Executor):
    """Runs calls as tasks of Ray, on the machines of a cluster; extra `ray`.

    As other executors, it is shut down after use, or used in a `with` statement: it lets go of the function then, and
    of the panel that a walk's function holds.

    What the calls write, such as the folder of a walk, has to be on a file system that all machines share.

    Args:
        address: of a cluster, such as ``"auto"``, for a process that has joined none yet; None
            starts one on this machine.
        **options: of each task, such as `num_cpus` and `num_gpus`; see `ray.remote`.

    Raises:
        ImportError: Ray is not installed.
    """

    def __init__(self, address: str | None = None, **options: Any) -> None:
        try:
            import ray
        except ImportError as error:
            raise ImportError("RayExecutor needs Ray: pip install 'qtorch-finance[ray]'.") from error
        if not ray.is_initialized():
            ray.init(address)
        self.options = options
        self._put = ray.put
        self._remote = ray.remote(**options)(_call) if options else ray.remote(_call)
        self._function: Callable | None = None
        self._shared: Any = None
        self._running: list[Future] = []
        self._open = True

    def submit(self, fn: Callable, /, *args: Any, **kwargs: Any) -> Any:
        """The call's future.

        One function after another is sent to the cluster once, with all that it holds: a walk's holds the panel.

        Raises:
            RuntimeError: the executor has been shut down.
        """
        if not self._open:
            raise RuntimeError("this RayExecutor has been shut down. Make another.")
        if fn is not self._function:
            self._function, self._shared = fn, self._put(fn)
        future: Future = self._remote.remote(self._shared, args, kwargs).future()
        self._running = [each for each in self._running if not each.done()] + [future]
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no further calls, and lets go of the function that was sent; Ray itself goes on.

        Args:
            wait: until all calls are done.
            cancel_futures: has no effect: what Ray was given, it finishes.
        """
        self._open, self._function, self._shared = False, None, None
        running, self._running = self._running, []
        if wait:
            wait_for(running)


def _call(fn: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    return fn(*args, **kwargs)
