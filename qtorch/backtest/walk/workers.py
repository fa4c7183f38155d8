"""Processes for the refits of a walk."""

import pickle
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib import import_module
from multiprocessing import get_context
from typing import Any

import torch

from qtorch.distributions.checks import require
from qtorch.errors import ArgumentError


class ProcessPool(ProcessPoolExecutor):
    """Processes that are started afresh, with one thread of torch each.

    Args:
        workers: how many.

    Attributes:
        at_once: calls that run at a time.
    """

    def __init__(self, workers: int) -> None:
        super().__init__(workers, get_context("spawn"), _one_thread)
        self.at_once = workers

    def start(self, module: str) -> None:
        """Starts the processes, which import a module while this one goes on."""
        for _ in range(self.at_once):
            self.submit(_import, module)


def process_pool(workers: int, make_model: Callable) -> ProcessPool:
    """A pool of processes that are started afresh, with one thread of torch each.

    Args:
        workers: how many.
        make_model: which they are to call.

    Raises:
        ValueError: there are fewer than one, or the function is of a notebook, which another process can't import.
    """
    require(workers >= 1, "workers", workers, "give a number of processes of at least 1")
    function: Any = make_model
    while isinstance(function, partial):
        function = function.func
    main = sys.modules["__main__"]
    if getattr(function, "__module__", None) == "__main__" and not hasattr(main, "__file__"):
        raise ArgumentError(
            f"{getattr(function, '__qualname__', function)} is defined in this notebook, from where other processes "
            "can't import it. Put it into a module, or give a functools.partial of a function of one."
        )
    return ProcessPool(workers)


def packed(function: Callable, *arguments: Any) -> bytes:
    """What another process sends back.

    As bytes, since torch would send each tensor through shared memory, whose file descriptor stays open as long as the
    tensor lives: a long run would come to the end of them.
    """
    return pickle.dumps(function(*arguments))


def _import(module: str) -> None:
    import_module(module)


def _one_thread() -> None:
    torch.set_num_threads(1)
