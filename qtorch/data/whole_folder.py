"""Folders that appear whole or not at all."""

import ctypes
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PART, _OLD = ".part", ".old"


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A folder to write into that takes the place of `target` when the block ends without an error.

    The new folder is written aside and then put in place by one rename: on Linux exchanged with the old one in a
    single step; elsewhere the old one is first renamed to ``NAME.old``, which `recover` puts back should the process
    die in between. If the block raises, `target` stays as it was.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    recover(target)
    part = _beside(target, _PART)
    part.mkdir()
    try:
        yield part
        for file in [*part.rglob("*"), part]:
            _flush(file)
        _put_in_place(part, target)
        _flush(target.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def recover(target: Path) -> None:
    """Clears what a killed process left beside a folder, and puts the folder back if it was moved away."""
    old, part = _beside(target, _OLD), _beside(target, _PART)
    if old.exists() and not target.exists():
        os.rename(old, target)
    for rest in (old, part):
        if rest.exists():
            shutil.rmtree(rest)


def _beside(target: Path, suffix: str) -> Path:
    return target.with_name(f".{target.name}{suffix}")


def _put_in_place(part: Path, target: Path) -> None:
    if not target.exists():
        os.rename(part, target)
    elif not _exchange(part, target):
        old = _beside(target, _OLD)
        os.rename(target, old)
        os.rename(part, target)
        shutil.rmtree(old)


def _exchange(a: Path, b: Path) -> bool:
    """Swaps two folders in one step (renameat2 with RENAME_EXCHANGE); False where the system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    at_cwd, exchange = -100, 2
    return rename is not None and rename(at_cwd, os.fsencode(a), at_cwd, os.fsencode(b), exchange) == 0


def _flush(path: Path) -> None:
    """Asks the system to put a file or folder on disk, so that the rename does not outrun its contents."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
