"""A folder of nights, on this machine or in an object store."""

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
from pyarrow import fs

from qtorch.errors import ArgumentError

MANIFEST = "manifest.json"
_GONE = ".gone"


@dataclass(frozen=True)
class Place:
    """A folder that files are put into and taken from by their names below it.

    Attributes:
        url: as it was given, without a password.
        filesystem: that it is in.
        path: in it.
    """

    url: str
    filesystem: fs.FileSystem
    path: str

    @classmethod
    def of(cls, where: "str | os.PathLike[str] | Place") -> "Place":
        """The place of a path or URL.

        ``s3://``, ``gs://`` and ``abfs://`` are pyarrow's own file systems, which take credentials from the usual
        environment, and options from the URL: ``s3://bucket/nights?endpoint_override=http://minio:9000``. Other
        schemes are those of fsspec.

        Raises:
            ValueError: there is no such scheme, or the URL does not fit.
        """
        if isinstance(where, Place):
            return where
        url = os.fspath(where)
        shown = re.sub(r"(://[^/@]*):[^/@]*@", r"\1:***@", url)
        if "://" not in url:
            return cls(url, fs.LocalFileSystem(), str(Path(url).expanduser().resolve()))
        try:
            try:
                found, path = fs.FileSystem.from_uri(url)
            except pa.ArrowInvalid as error:
                if "nrecognized filesystem type" not in str(error):
                    raise
                other, path = fsspec.core.url_to_fs(url)
                found = fs.PyFileSystem(fs.FSSpecHandler(other))
        except (ValueError, ImportError, OSError) as error:
            raise ArgumentError(f"{shown}: not a place of nights ({error}).") from error
        return cls(shown, found, path.rstrip("/"))

    @property
    def local(self) -> bool:
        """Whether it is on this machine, where a rename is one step."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    def __truediv__(self, name: str) -> "Place":
        return Place(f"{self.url.rstrip('/')}/{name}", self.filesystem, self.at(name))

    def at(self, name: str) -> str:
        """The path of a name below it."""
        return f"{self.path}/{name}"

    def exists(self, name: str = "") -> bool:
        """Whether a file or folder is there."""
        kind = self.filesystem.get_file_info(self.at(name) if name else self.path).type
        return bool(kind != fs.FileType.NotFound)

    def names(self) -> dict[str, int | None]:
        """What is directly in it, with the bytes of files and None for folders; nothing where there is no folder."""
        found = self.filesystem.get_file_info(fs.FileSelector(self.path, allow_not_found=True))
        return {each.base_name: each.size if each.is_file else None for each in found}

    def folders(self, beginning: str) -> dict[str, dict[str, int]]:
        """The files of each folder in it whose name begins so: their bytes by name, in the order of the folders."""
        found: dict[str, dict[str, int]] = {}
        if self.local:
            for name in sorted(self.names()):
                if name.startswith(beginning):
                    found[name] = {file: size for file, size in (self / name).names().items() if size is not None}
            return found
        # One listing of an object store's keys, and not one for each folder.
        for each in self.filesystem.get_file_info(fs.FileSelector(self.path, recursive=True, allow_not_found=True)):
            folder, _, file = each.path.removeprefix(self.path + "/").partition("/")
            if each.is_file and file and folder.startswith(beginning):
                found.setdefault(folder, {})[file] = each.size
        return dict(sorted(found.items()))

    def read(self, name: str) -> bytes:
        """A file's content."""
        with self.filesystem.open_input_stream(self.at(name)) as stream:
            return bytes(stream.read())

    @contextmanager
    def output(self, name: str) -> Iterator[Any]:
        """A stream into a file, which may be there in part if the process dies: nothing should name it before."""
        if self.local:
            Path(self.at(name)).parent.mkdir(parents=True, exist_ok=True)
        with self.filesystem.open_output_stream(self.at(name)) as stream:
            yield stream
        self._flush(self.at(name))

    def write(self, name: str, content: bytes) -> None:
        """Puts a small file there, or in the place of one, in one step."""
        if not self.local:  # an object is there once it is complete
            with self.output(name) as stream:
                stream.write(content)
            return
        target = Path(self.at(name))
        part = target.with_name(f".{target.name}.part")
        with self.output(f"{Path(name).parent}/{part.name}") as stream:
            stream.write(content)
        os.replace(part, target)
        self._flush(str(target.parent))

    def remove(self, name: str) -> None:
        """Removes a file."""
        self.filesystem.delete_file(self.at(name))

    def remove_files(self, folder: str, names: list[str], manifest: str) -> None:
        """Removes files of a night, unless another night has taken its place.

        Args:
            folder: the night's.
            names: of the files.
            manifest: SHA-256 of the night's manifest.
        """
        if not (self.local and os.unlink in os.supports_dir_fd):
            if digest(self.read(f"{folder}/{MANIFEST}")) == manifest:
                for name in names:
                    self.remove(f"{folder}/{name}")
            return
        # By the opened folder, which stays the one whose manifest was read though another is exchanged for it.
        opened = os.open(self.at(folder), os.O_RDONLY)
        try:
            with open(os.open(MANIFEST, os.O_RDONLY, dir_fd=opened), "rb") as stream:
                if digest(stream.read()) != manifest:
                    return
            for name in names:
                os.unlink(name, dir_fd=opened)
        finally:
            os.close(opened)

    def remove_night(self, folder: str) -> None:
        """Removes a night's folder so that none sees a part of it: first out of sight, then its files."""
        if self.local:
            gone = Path(self.at(f".{folder}{_GONE}"))
            if gone.exists():
                shutil.rmtree(gone)
            os.rename(self.at(folder), gone)
            shutil.rmtree(gone)
        else:
            if self.exists(f"{folder}/{MANIFEST}"):
                self.remove(f"{folder}/{MANIFEST}")
            self.remove_folder(folder)

    def remove_folder(self, name: str) -> None:
        """Removes a folder with all that is in it."""
        self.filesystem.delete_dir(self.at(name))

    def sweep(self) -> None:
        """Ends what `remove_night` began before its process died."""
        if self.local:
            for rest in Path(self.path).glob(f".as_of=*{_GONE}"):
                shutil.rmtree(rest)

    def _flush(self, path: str) -> None:
        """Asks the system to put a file or folder on disk, so that what names it does not outrun it."""
        if self.local:
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def digest(content: bytes) -> str:
    """SHA-256."""
    return hashlib.sha256(content).hexdigest()
