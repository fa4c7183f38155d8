"""The saved models of a folder, by name and version: found, loaded and kept."""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from qtorch.deploy.description import BundleError
from qtorch.deploy.server.model_folder import Key, Stamp, found, stamp_of
from qtorch.deploy.server.protocol import Limits, RequestError, checked_name, checked_version
from qtorch.deploy.server.protocol.tensors import shown
from qtorch.deploy.server.served_model import ServedModel
from qtorch.deploy.server.warm_up import warm_up


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

    new: tuple[Key, ...]
    changed: tuple[Key, ...]
    removed: tuple[Key, ...]
    ignored: tuple[tuple[str, str], ...]


@dataclass(frozen=True, eq=False)
class _Version:
    """What is known of a version.

    Attributes:
        stamp: of the files that were read last.
        state: whether it answers.
        reason: why it does not, or why what answers is not what the folder holds.
        model: what answers.
    """

    stamp: Stamp
    state: State
    reason: str = ""
    model: ServedModel | None = None


class Repository:
    """Models in a folder: ``DIR/<model>/<version>/`` is a bundle each, versions whole numbers from 1.

    Safe to be used from several threads. A version is loaded whole before it answers, and one that `get` has given
    stays whole for whoever holds it, also when it is unloaded or replaced meanwhile. A bundle that cannot be used makes
    its version unavailable, with the reason in the index; where an older state of the version answers, that goes on.

    Args:
        folder: the models.
        allow: packages beside qtorch whose classes and functions the bundles may name.
        limits: what a request may be at most.
        pinned: the default version of models by name; of the others it is the highest that is ready.

    Example:
        >>> repository = Repository("models")
        >>> repository.refresh().new
        ()
        >>> repository.ready("spx")
        False
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
        self._table: dict[Key, _Version] = {}
        self._lock = threading.Lock()  # of the table
        self._loading = threading.RLock()  # one thread loads at a time

    def scan(self) -> Changes:
        """Looks at the folder, and loads nothing."""
        there, ignored = found(self.folder)
        with self._lock:
            known = dict(self._table)
        return Changes(
            tuple(sorted(there.keys() - known.keys(), key=_order)),
            tuple(sorted((k for k, stamp in there.items() if k in known and known[k].stamp != stamp), key=_order)),
            tuple(sorted(known.keys() - there.keys(), key=_order)),
            tuple(ignored),
        )

    def refresh(self) -> Changes:
        """Looks at the folder, and loads what is new or changed and unloads what is removed; for a poll.

        A version that was unloaded by `unload` stays so until its files change or `load` names it.

        Returns:
            What was found to differ.
        """
        with self._loading:
            changes = self.scan()
            for key in changes.new:  # all at once: while one is loaded, the others are not yet ready, and not unknown
                self._set(key, _Version((), State.LOADING, "waits to be loaded"))
            for key in (*changes.new, *changes.changed):
                self._load(key)
            with self._lock:
                for key in changes.removed:
                    del self._table[key]
        return changes

    def seek(self, name: str, version: str | None = None) -> None:
        """Loads what the folder has of a name and is not known yet, since a request may come before the next look.

        Nothing else is loaded, and while another thread loads nothing at all: whoever asks for what is not there never
        waits for what is.
        """
        if not self._loading.acquire(blocking=False):
            return
        try:
            for key in self.scan().new:
                if key[0] == name and version in (None, key[1]):
                    self._load(key)
        finally:
            self._loading.release()

    def load(self, name: str, version: str | None = None) -> None:
        """Loads a version, or all of a model, anew; what is served goes on until the new one is whole.

        Raises:
            RequestError: 404 there is none; 400 it is no usable bundle.
        """
        with self._loading:
            there, _ = found(self.folder)
            keys = self._named(name, version, there)
            for key in keys:
                self._load(key)
            with self._lock:
                bad = [(key, self._table[key].reason) for key in keys if self._table[key].reason]
        if bad:
            raise RequestError(400, "; ".join(f"{name} version {version}: {why}" for (name, version), why in bad))

    def unload(self, name: str, version: str | None = None) -> None:
        """Serves a version, or all of a model, no longer; requests that hold it end as they would.

        Raises:
            RequestError: 404 there is none.
        """
        with self._loading, self._lock:
            for key in self._named(name, version, self._table):
                self._table[key] = _Version(self._table[key].stamp, State.UNAVAILABLE, "unloaded")

    def index(self) -> list[Entry]:
        """Every version that is known, by name and version."""
        with self._lock:
            known = sorted(self._table.items(), key=lambda item: _order(item[0]))
        return [Entry(name, version, one.state, one.reason) for (name, version), one in known]

    def versions(self, name: str) -> list[str]:
        """The versions of a model that are ready, ascending."""
        with self._lock:
            ready = [
                version for (model, version), one in self._table.items() if model == name and one.model is not None
            ]
        return sorted(ready, key=int)

    def ready(self, name: str, version: str | None = None) -> bool:
        """Whether requests of a model and version are answered."""
        try:
            self.get(name, version)
        except RequestError:
            return False
        return True

    def get(self, name: str, version: str | None = None) -> ServedModel:
        """The model that answers requests of a name and version.

        Raises:
            RequestError: 404 there is none, 503 it is loading or unavailable.
        """
        name, version = checked_name(name), checked_version(version)
        wanted = self.pinned.get(name) if version is None else version
        with self._lock:
            known = {key: one for key, one in self._table.items() if key[0] == name}
        keys = self._named(name, wanted, known)
        ready = [key for key in keys if known[key].model is not None]
        if not ready:
            states = "; ".join(f"version {key[1]} is {known[key].state.value} ({known[key].reason})" for key in keys)
            raise RequestError(503, f"model {name!r} is not ready: {states}.")
        model = known[max(ready, key=_order)].model
        assert model is not None
        return model

    def _named(self, name: str, version: str | None, there: Iterable[Key]) -> list[Key]:
        """Those of some keys that are of a name and version.

        Raises:
            RequestError: 404, none is.
        """
        name, version = checked_name(name), checked_version(version)
        of_name = sorted((key for key in there if key[0] == name), key=_order)
        keys = [key for key in of_name if version in (None, key[1])]
        if keys:
            return keys
        if of_name:
            raise RequestError(
                404, f"model {name!r} has no version {version}. There are {', '.join(key[1] for key in of_name)}."
            )
        raise RequestError(404, f"there is no model {shown(name)}. POST /v2/repository/index lists what there is.")

    def _load(self, key: Key) -> None:
        """Loads a version, warms it up, and then routes to it."""
        with self._lock:
            before = self._table.get(key)
        path = self.folder.joinpath(*key)
        stamp = stamp_of(path)  # before its files are read, so that a change meanwhile is seen at the next look
        older = None if before is None else before.model
        if older is None:
            self._set(key, _Version(stamp, State.LOADING, "loading"))
        try:
            model = ServedModel(path, self.allow, self.limits)
            warm_up(model)
            self._set(key, _Version(stamp, State.READY, "", model))
        except (BundleError, ValueError, TypeError, OSError) as error:
            reason = str(error) or type(error).__name__
            if older is None:
                self._set(key, _Version(stamp, State.UNAVAILABLE, reason))
            else:
                self._set(key, _Version(stamp, State.READY, f"an older state answers, since: {reason}", older))

    def _set(self, key: Key, version: _Version) -> None:
        with self._lock:
            self._table[key] = version


def _order(key: Key) -> tuple[str, int]:
    return key[0], int(key[1])
