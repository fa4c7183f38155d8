"""Files of a folder, opened with no trust in them."""

import os
import stat
from io import BufferedReader
from pathlib import Path


def opened(file: Path, root: Path) -> BufferedReader:
    """A regular file for reading: a pipe, which would be waited for, a device or a link out of a folder is none.

    Raises:
        OSError: it is missing, not regular or elsewhere, or can't be read.
    """
    # pathlib raises no OSError for a link to itself before Python 3.13.
    if not Path(os.path.realpath(file, strict=True)).is_relative_to(os.path.realpath(root)):
        raise OSError(f"{file} is a link to a file outside {root}")
    stream = open(file, "rb", opener=_at_once)  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise OSError(f"{file} is no regular file")
    return stream


def _at_once(path: str, flags: int) -> int:
    """Opens without waiting for a pipe's other end."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
