"""Ray as an executor."""

from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any


class RayExecutor(Executor):
    """Runs calls as tasks of Ray, on the machines of a cluster; extra `ray`.

    What the calls write, such as the folder of a walk, has to be on a file system that all machines share.

    Args:
        **options: of each task, such as `num_cpus` and `num_gpus`; see `ray.remote`.

    Raises:
        ImportError: Ray is not installed.
    """

    def __init__(self, **options: Any) -> None:
        try:
            import ray
        except ImportError as error:
            raise ImportError("RayExecutor needs Ray: pip install 'qtorch-finance[ray]'.") from error
        if not ray.is_initialized():
            ray.init()
        self.options = options
        self._put = ray.put
        self._remote = ray.remote(**options)(_call) if options else ray.remote(_call)
        self._function: Callable | None = None
        self._shared: Any = None

    def submit(self, fn: Callable, /, *args: Any, **kwargs: Any) -> Any:
        """The call's future.

        One function after another is sent to the cluster once, with all that it holds: a walk's holds the panel.
        """
        if fn is not self._function:
            self._function, self._shared = fn, self._put(fn)
        return self._remote.remote(self._shared, args, kwargs).future()


def _call(fn: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    return fn(*args, **kwargs)
