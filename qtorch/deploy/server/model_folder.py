"""A folder of saved models: which paths are versions of models, and when their files change."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from qtorch.deploy.server.protocol.names import is_name, is_version

Key: TypeAlias = tuple[str, str]  # name and version of a model
Stamp: TypeAlias = tuple[tuple[str, int, int, int], ...]  # name, inode, size and time of each file of a bundle

_FILES = ("model.json", "weights.safetensors")


def found(folder: Path) -> tuple[dict[Key, Stamp], list[tuple[str, str]]]:
    """The versions of a folder, with the stamps of their files, and what else is there, with the reason.

    Hidden names, which mounts and copies make, are left alone.
    """
    versions: dict[Key, Stamp] = {}
    ignored: list[tuple[str, str]] = []
    root = folder.resolve()
    for model in _folders(folder, root, ignored):
        if not is_name(model.name):
            ignored.append((str(model), "not the name of a model: letters, digits, dots, hyphens and underscores"))
            continue
        for version in _folders(model, root, ignored):
            if not is_version(version.name):
                ignored.append((str(version), "not a version: a whole number from 1"))
            elif outside := [name for name in _FILES if not _within(version / name, root)]:
                ignored.append((str(version), f"{outside[0]} links out of {root}"))
            else:
                versions[model.name, version.name] = stamp_of(version)
    return versions, ignored


def stamp_of(version: Path) -> Stamp:
    """What changes when the files of a bundle do."""
    parts = []
    for name in _FILES:
        try:
            stat = (version / name).stat()
        except OSError:
            parts.append((name, 0, 0, 0))  # not there, or not yet
        else:
            parts.append((name, stat.st_ino, stat.st_size, stat.st_mtime_ns))
    return tuple(parts)


def _folders(path: Path, root: Path, ignored: list[tuple[str, str]]) -> Iterator[Path]:
    try:
        entries = sorted(os.scandir(path), key=lambda entry: entry.name)
    except OSError as error:
        ignored.append((str(path), f"not readable ({error.strerror})"))
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        there = Path(entry.path)
        if not _within(there, root):
            ignored.append((str(there), f"links out of {root}"))
        elif not there.is_dir():
            ignored.append((str(there), "no folder"))
        else:
            yield there


def _within(path: Path, root: Path) -> bool:
    return path.resolve().is_relative_to(root)
