"""A file and the description that names its SHA-256, replaced together: whole or not at all."""

import hashlib
import os
from pathlib import Path

from qtorch.deploy.regular_files import opened
from qtorch.deploy.sealed_json import MOST, parsed


def replace(file: Path, content: bytes, description: Path, text: str, key: str) -> None:
    """Writes both, so that a kill at any moment, and another of the next attempt, leaves the old pair or the new one.

    The content is put aside under a second name; the description takes its place in one step, and from then on
    `content_of` finds the file whose SHA-256 it names, aside or in its place. What an attempt that was killed left
    aside is put in its place first, if the description names it.

    Args:
        file: that the description names.
        content: of the file.
        description: in the same folder, a JSON object.
        text: of the description.
        key: under which it has the file's SHA-256.
    """
    aside, part = _aside(file), description.with_name(f"{description.name}.part")
    if os.path.lexists(aside) and _sha256(aside) == _named(description, key):
        os.replace(aside, file)
    _write(aside, content)
    _write(part, text.encode())
    os.replace(part, description)
    os.replace(aside, file)


def content_of(file: Path, sha256: str, root: Path) -> bytes | None:
    """The content that has this SHA-256, aside or in its place, read once; None where there is none.

    Args:
        file: as of `replace`.
        sha256: that its description names.
        root: within which it is.

    Raises:
        OSError: there is no file, or it can't be read.
    """
    for each in (_aside(file), file):
        if each == file or os.path.lexists(each):
            try:
                with opened(each, root) as stream:
                    content = stream.read()
            except FileNotFoundError:
                if each == file:
                    raise
                continue  # it was put in its place meanwhile
            if hashlib.sha256(content).hexdigest() == sha256:
                return content
    return None


def _aside(file: Path) -> Path:
    return file.with_name(f"{file.name}.new")


def _sha256(file: Path) -> str | None:
    try:
        with opened(file, file.parent) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return None  # a link or a pipe, which is none of ours and is not read either


def _named(description: Path, key: str) -> str | None:
    """The SHA-256 that a description names; None where it is missing or unreadable, by which nothing can be found."""
    try:
        with opened(description, description.parent) as stream:
            named = parsed(stream.read(MOST + 1)).get(key)
    except (OSError, ValueError, RecursionError):
        return None
    return named if isinstance(named, str) else None


def _write(file: Path, content: bytes) -> None:
    with file.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
