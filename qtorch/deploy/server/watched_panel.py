"""A file of prices, read once and again when it changes."""

import threading
from pathlib import Path
from typing import TypeAlias

from qtorch.data import DataError, Panel
from qtorch.errors import ArgumentError
from qtorch.nightly.config import NightlyData
from qtorch.nightly.gates import read_panel

Stamp: TypeAlias = tuple[tuple[str, int, int], ...]  # name, size and time of each file


class WatchedPanel:
    """The panel of a file or a partitioned dataset; safe to be used from several threads.

    Args:
        data: where prices are and how strictly they are read, as of the nightly job.
    """

    def __init__(self, data: NightlyData) -> None:
        self.data = data
        self._lock = threading.Lock()
        self._read: tuple[Stamp, Panel | DataError | ArgumentError] | None = None

    def current(self) -> tuple[Stamp, Panel]:
        """The panel, and what changes when its files do.

        Raises:
            DataError: the prices cannot be used; a file is not read again until it changes.
            ValueError: a setting cannot be used.
        """
        with self._lock:
            stamp = _stamp(Path(self.data.path))
            if self._read is None or self._read[0] != stamp:
                try:
                    panel: Panel | DataError | ArgumentError = read_panel(self.data, None)
                except (DataError, ArgumentError) as error:
                    panel = error
                self._read = stamp, panel
            stamp, panel = self._read
        if not isinstance(panel, Panel):
            raise panel
        return stamp, panel


def _stamp(path: Path) -> Stamp:
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    parts = []
    for file in files:
        try:
            stat = file.stat()
        except OSError as error:
            raise DataError(f"{file}: not readable ({error.strerror}).") from error
        parts.append((str(file), stat.st_size, stat.st_mtime_ns))
    return tuple(parts)
