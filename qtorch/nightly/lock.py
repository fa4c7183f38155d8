"""One process at a time on one night, and what a killed one left behind."""

import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from qtorch.data.whole_folder import recover
from qtorch.nightly.outcome import Locked
from qtorch.nightly.retention import HELD, MODELS
from qtorch.nightly.state import FOLDER as STATE

LOCKS = ".locks"
_LEFT = (".part", ".old")


@contextmanager
def alone_on(output: str | Path, day: str) -> Iterator[None]:
    """Keeps other processes from a night; what killed ones left of it or of others is removed or put back.

    The lock is the operating system's, which lets go of it when the process ends, however it ends.

    Args:
        output: the output folder.
        day: YYYY-MM-DD.

    Raises:
        Locked: another process has it, which the message names.
    """
    folder = Path(output) / LOCKS
    folder.mkdir(parents=True, exist_ok=True)
    holder = folder / f"{day}.json"
    try:
        with FileLock(folder / f"{day}.lock", timeout=0):
            holder.write_text(json.dumps({"process": os.getpid(), "host": socket.gethostname()}) + "\n")
            try:
                _sweep(Path(output), day)
                yield
            finally:
                holder.unlink()
    except Timeout as error:
        raise Locked(
            f"another run is at work on the night of {day} in {output}{_by(holder)}. Wait for its end; a run that was "
            "killed leaves no lock."
        ) from error


def _by(holder: Path) -> str:
    try:
        about = json.loads(holder.read_text())
        return f", process {about['process']} on {about['host']}"
    except (OSError, ValueError, KeyError):  # it has just begun, or just ended
        return ""


def _sweep(output: Path, day: str) -> None:
    """Removes what killed processes left of nights, models and states, of all days that none is at work on."""
    left: dict[str, list[Path]] = {}
    for room in (output, output / HELD, output / MODELS, output / HELD / MODELS, output / STATE):
        for path in room.glob(".*=*"):
            for suffix in _LEFT:
                if path.name.endswith(suffix):
                    target = path.with_name(path.name[1:].removesuffix(suffix))
                    left.setdefault(target.name.partition("=")[2], []).append(target)
    windows = list(output.glob(".windows-*"))
    others = {path.stem for path in (output / LOCKS).glob("*.lock")} if windows else set()
    busy = {day}
    for other in sorted((left.keys() | others) - {day}):
        try:
            with FileLock(output / LOCKS / f"{other}.lock", timeout=0):
                for target in left.get(other, ()):
                    recover(target)
        except Timeout:
            busy.add(other)
    for target in left.get(day, ()):
        recover(target)
    if busy == {day}:
        for path in windows:  # they do not tell whose they are
            shutil.rmtree(path)
