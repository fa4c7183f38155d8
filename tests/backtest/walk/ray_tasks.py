"""What tests run on Ray: calls and models that leave marks in a folder, end their process, or wait."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from qtorch.models import RiskMetrics


class OursError(ValueError):
    """An exception that a message alone does not make."""

    def __init__(self, message: str, row: int) -> None:
        super().__init__(message)
        self.row = row

    def __reduce__(self):
        return type(self), (str(self), self.row)


@dataclass(frozen=True)
class Marked(RiskMetrics):
    """Leaves a mark for each refit that is begun and that is done.

    Attributes:
        folder: of the marks.
        killed: the refit whose process ends itself the first time.
        doomed: the node on which a refit never ends; those elsewhere wait until it has one.
    """

    folder: str = ""
    killed: str = ""
    doomed: str = ""

    def forecast(self, panel, dates, *, source=None):
        refit = f"{dates[0]:%Y-%m-%d}"
        mark(self.folder, "begun", refit)
        if refit == self.killed and once(self.folder, "killed"):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.doomed and this_node() == self.doomed:
            mark(self.folder, "held", refit)
            time.sleep(300)
        end = time.monotonic() + 60
        while self.doomed and not marks(Path(self.folder), "held") and time.monotonic() < end:
            time.sleep(0.05)
        answer = super().forecast(panel, dates, source=source)
        mark(self.folder, "done", refit)
        return answer


class Failing(Marked):
    """Fails at each refit."""

    def forecast(self, panel, dates, *, source=None):
        mark(self.folder, "begun", f"{dates[0]:%Y-%m-%d}")
        raise OursError("no such row.", 3)


def mark(folder: str, kind: str, name: str) -> None:
    (Path(folder) / f"{kind}.{name}.{uuid4().hex}").touch()


def marks(folder: Path, kind: str) -> list[str]:
    """The names of all marks of a kind."""
    return sorted(path.name.split(".")[1] for path in folder.glob(f"{kind}.*"))


def once(folder: str, name: str) -> bool:
    """Whether it is the first time."""
    try:
        (Path(folder) / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def lose_once(folder: str, function: Callable, name: str, *arguments: Any) -> Any:
    """A call, of which the first ends its process the first time."""
    mark(folder, "begun", name)
    if name == "1" and once(folder, "killed"):
        os.kill(os.getpid(), signal.SIGKILL)
    answer = function(*arguments)
    mark(folder, "done", name)
    return answer


def this_node() -> str:
    import ray

    return ray.get_runtime_context().get_node_id()


def beside(folder: str, expected: int) -> int:
    """How many of these calls run, this one included; the first wait until as many do as expected."""
    mine, full = Path(folder) / f"running.{uuid4().hex}", Path(folder) / "full"
    mine.touch()
    count, end = 0, time.monotonic() + 60
    while time.monotonic() < end and not full.exists() and count < expected:
        time.sleep(0.02)
        count = len(list(Path(folder).glob("running.*")))
    full.touch()
    time.sleep(0.2)
    count = max(count, len(list(Path(folder).glob("running.*"))))
    mine.unlink()
    return count


def fail(row: int):
    raise OursError(f"row {row} is wrong.", row)


def end_process():
    os.kill(os.getpid(), signal.SIGKILL)


def weighed(numbers: np.ndarray, scale: float) -> float:
    return scale * float(numbers.sum())


def process_of(numbers: np.ndarray) -> tuple[int, int]:
    """The process, and where the numbers are in its memory."""
    return os.getpid(), id(numbers)


def eat(gigabytes: int) -> int:
    """Takes memory, a tenth of a gigabyte after another."""
    held = []
    for _ in range(10 * gigabytes):
        held.append(np.ones(12_500_000))
        time.sleep(0.05)
    return len(held)
