"""The saved models of a folder, by name and version: found, loaded and kept."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from qtorch.deploy.server.protocol import Limits
from qtorch.deploy.server.served_model import ServedModel


class State(StrEnum):
    """Of a version, as the protocol's repository index tells it."""

    READY = "READY"
    LOADING = "LOADING"
    UNAVAILABLE = "UNAVAILABLE"


@dataclass(frozen=True)
class Entry:
    """A version in the repository index.

    Attributes:
        name: of the model.
        version: of it.
        state: whether it answers.
        reason: why it does not; "" where it does.
    """

    name: str
    version: str
    state: State
    reason: str = ""


@dataclass(frozen=True)
class Changes:
    """What differs between the folder and what is known of it: (name, version) each.

    Attributes:
        new: in the folder, not yet known.
        changed: its files are others than those that were read.
        removed: no longer in the folder.
        ignored: paths that are neither models nor versions, with the reason.
    """

    new: tuple[tuple[str, str], ...]
    changed: tuple[tuple[str, str], ...]
    removed: tuple[tuple[str, str], ...]
    ignored: tuple[tuple[str, str], ...]


class Repository:
    """Models in a folder: ``DIR/<model>/<version>/`` is a bundle each, versions whole numbers from 1.

    Safe to be used from several threads. A model that `get` has given stays whole for whoever holds it, also when it is
    unloaded or replaced meanwhile.

    Args:
        folder: the models.
        allow: packages beside qtorch whose classes and functions the bundles may name.
        limits: what a request may be at most.
        pinned: the default version of models by name; of the others it is the highest that is ready.
    """

    def __init__(
        self,
        folder: str | Path,
        allow: Iterable[str] = (),
        limits: Limits | None = None,
        pinned: Mapping[str, str] | None = None,
    ) -> None:
        self.folder, self.allow = Path(folder), tuple(allow)
        self.limits = Limits() if limits is None else limits
        self.pinned = dict(pinned or {})

    def scan(self) -> Changes:
        """Looks at the folder, and loads nothing."""
        raise NotImplementedError

    def refresh(self) -> Changes:
        """Looks at the folder, and loads what is new or changed and unloads what is removed; for a poll.

        A version that was unloaded by `unload` stays so until its files change or `load` names it.
        """
        raise NotImplementedError

    def load(self, name: str, version: str | None = None) -> None:
        """Loads a version, or all of a model, anew; what is served goes on until the new one is whole.

        Raises:
            RequestError: 404 there is none; 400 it is no usable bundle.
        """
        raise NotImplementedError

    def unload(self, name: str, version: str | None = None) -> None:
        """Serves a version, or all of a model, no longer.

        Raises:
            RequestError: 404 there is none.
        """
        raise NotImplementedError

    def index(self) -> list[Entry]:
        """Every version that is known, by name and version."""
        raise NotImplementedError

    def versions(self, name: str) -> list[str]:
        """The versions of a model that are ready, ascending."""
        raise NotImplementedError

    def ready(self, name: str, version: str | None = None) -> bool:
        """Whether requests of a model and version are answered."""
        raise NotImplementedError

    def get(self, name: str, version: str | None = None) -> ServedModel:
        """The model that answers requests of a name and version.

        Raises:
            RequestError: 404 there is none, 503 it is loading or unavailable.
        """
        raise NotImplementedError
