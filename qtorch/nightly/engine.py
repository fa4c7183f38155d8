"""Where the night's slices of assets are worked on."""

import os
from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from qtorch.backtest import RayExecutor
from qtorch.backtest.walk.workers import process_pool
from qtorch.errors import ArgumentError
from qtorch.nightly.slices import evaluate_slice


def engine_of(
    name: str | None, workers: int | None = None, address: str | None = None, memory: float | None = None
) -> AbstractContextManager[Executor | None]:
    """An executor for `qtorch.nightly.run`, to be used in a `with` statement.

    Args:
        name: ``"local"``, this process; ``"process"``, processes with one thread each; ``"ray"``, a Ray cluster. None
            is processes where a number of them is given, and else this process.
        workers: processes, or slices that are with the cluster at a time.
        address: of the cluster, as of `qtorch.backtest.RayExecutor`.
        memory: GiB that a node of the cluster sets aside for a slice.

    Raises:
        ValueError: the options do not go together, or Ray is not installed.
    """
    if name is None:
        name = "local" if workers is None else "process"
    if name != "ray" and (address is not None or memory is not None):
        option = "address" if address is not None else "task-memory"
        raise ArgumentError(f"--{option} is of a Ray cluster: give --engine ray too, or leave it out.")
    if name == "local":
        if workers is not None:
            raise ArgumentError("--engine local is this process alone: give --engine process, or leave out --workers.")
        return nullcontext()
    if name == "process":
        return process_pool((os.cpu_count() or 1) if workers is None else workers, evaluate_slice)
    if name != "ray":
        raise ArgumentError(f"engine {name!r}: it is local, process or ray.")
    options: dict[str, Any] = {} if memory is None else {"memory": memory * 2**30}
    try:
        return RayExecutor(address, workers=workers, **options)
    except ImportError as error:
        raise ArgumentError(str(error)) from error
