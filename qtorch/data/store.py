"""Tensors in files, mapped into memory, for panels and windows that are larger than it."""

import json
import mmap
import os
import shutil
import sys
import uuid
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qtorch.data.errors import DataError

_FORMAT = 3  # of the files: what they hold and mean
_PIECE = 1 << 26  # bytes written at once
_maps: "weakref.WeakSet[mmap.mmap]" = weakref.WeakSet()


def release(above: int = 0) -> None:
    """Hands the pages of all mapped files back to the system, which keeps them in its cache while it has room.

    Args:
        above: bytes of files that may stay mapped, those of libraries among them, where the system counts them.
    """
    if above and _resident() <= above:
        return
    for mapped in list(_maps):
        _advise(mapped, "MADV_DONTNEED")


def _resident() -> int:
    """Bytes of mapped files in this process's memory; the highest number where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[2]) * mmap.PAGESIZE
    except OSError:
        return sys.maxsize


def _note(array: np.memmap) -> None:
    """Remembers a mapping for `release`."""
    mapped: mmap.mmap = array._mmap  # type: ignore[attr-defined]
    _maps.add(mapped)
    # Else a touch maps two megabytes at any time, not only where the cache happens to hold them in one piece.
    _advise(mapped, "MADV_NOHUGEPAGE")


def _advise(mapped: mmap.mmap, advice: str) -> None:
    """Gives advice on a mapping where the system takes it; elsewhere it keeps pages as it likes."""
    if hasattr(mmap, advice):
        mapped.madvise(getattr(mmap, advice))


class TensorFolder:
    """A folder of tensors, each a ``.npy`` file, and a JSON description.

    Mapped files are read a page at a time when they are used; `release` hands pages back, so that the resident memory
    of a process stays far below the size of the files. Tensors from a folder are for reading: what is written to them
    never reaches the file, and is lost when pages are handed back. Nothing is pickled.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._goal = self.path

    @classmethod
    def create(cls, path: str | Path) -> "TensorFolder":
        """A new folder, which lies beside the path, named ``.part``, until `describe` is called.

        Raises:
            DataError: there is something at the path already.
        """
        path = Path(path)
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
        if path.exists():
            raise _exists(path)
        folder = cls(path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.part"))
        folder._goal = path
        folder.path.mkdir(parents=True)
        return folder

    def full(self, name: str, shape: tuple[int, ...], dtype: Any, value: float | int) -> np.ndarray:
        """A new array on disk, filled with a value."""
        array = np.lib.format.open_memmap(self._file(name), mode="w+", dtype=dtype, shape=shape)
        _note(array)
        if value != 0:
            rows = max(1, _PIECE // max(1, array[:1].nbytes))
            for start in range(0, len(array), rows):
                array[start : start + rows] = value
                release()
        return array

    def append(self, name: str, array: np.ndarray, length: int) -> None:
        """Appends to a file that will hold `length` entries of the array's kind in all."""
        path = self._file(name)
        fresh = not path.exists()
        with path.open("ab") as file:
            if fresh:
                about = np.lib.format.header_data_from_array_1_0(array) | {"shape": (length, *array.shape[1:])}
                np.lib.format.write_array_header_2_0(file, about)
            array.tofile(file)

    def write(self, name: str, tensor: Tensor) -> None:
        """Writes a tensor."""
        np.save(self._file(name), tensor.detach().cpu().numpy(), allow_pickle=False)

    def read(self, name: str) -> Tensor:
        """A tensor mapped from its file, for reading.

        Raises:
            DataError: there is no such file, or it is no array.
        """
        try:
            array = np.load(self._file(name), mmap_mode="c", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(f"{self._file(name)}: not a readable array ({error}). Build the store again.") from error
        if isinstance(array, np.memmap):
            _note(array)
        return torch.from_numpy(array)

    def describe(self, description: Mapping[str, Any], or_there: bool = False) -> None:
        """Writes the description, and moves the folder, which is whole with it, to its path.

        Args:
            description: plain values.
            or_there: give way to a store that another process has put there meanwhile.

        Raises:
            DataError: something has come to lie at the path meanwhile.
        """
        (self.path / "store.json").write_text(json.dumps({"format": _FORMAT, **description}, indent=1))
        try:
            os.rename(self.path, self._goal)
        except OSError as error:
            self.discard()
            if not (or_there and (self._goal / "store.json").exists()):
                raise _exists(self._goal) from error
        self.path = self._goal

    def description(self, kind: str) -> dict[str, Any]:
        """The description of a whole folder.

        Raises:
            DataError: the folder is no such store, was not finished, or is of another format.
        """
        try:
            description = json.loads((self.path / "store.json").read_text())
        except (OSError, ValueError) as error:
            raise DataError(f"{self.path}: no finished store ({error}). Build it again.") from error
        if description.get("kind") != kind:
            raise DataError(f"{self.path} holds {description.get('kind')!r}, not {kind!r}.")
        if description.get("format") != _FORMAT:
            raise DataError(f"{self.path} was written by another version of qtorch. Build it again.")
        return description

    def discard(self) -> None:
        """Removes the folder."""
        shutil.rmtree(self.path)

    def _file(self, name: str) -> Path:
        return self.path / f"{name}.npy"


def _exists(path: Path) -> DataError:
    return DataError(f"{path} exists already. Remove it or name another folder; qtorch overwrites no store.")
