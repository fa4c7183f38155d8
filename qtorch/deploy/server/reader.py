"""A process of its own that reads large requests, since reading JSON holds up every thread of the process it is in."""

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from qtorch.deploy.server.protocol import RequestError

T = TypeVar("T")


class Reader:
    """Calls functions in a process that is started with the first call, one at a time."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None

    async def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """What a function returns; function, arguments and answer are pickled.

        Args:
            function: of a module.
            *arguments: of it.

        Raises:
            RequestError: what the function refuses with; 503, the process was lost, and the next call has a new one.
        """
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(1, mp_context=context, initializer=_stay_with_parent)
        pool = self._pool
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, function, *arguments)
        except BrokenProcessPool as error:
            if self._pool is pool:
                self.close()
            raise RequestError(
                503, "the process that reads large requests was lost: send tensors as bytes, or try again."
            ) from error

    def close(self) -> None:
        """Ends the process."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None


def _stay_with_parent() -> None:
    """Leaves a terminal's interrupt to the parent, and ends with it, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(0)
