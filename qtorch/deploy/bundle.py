"""Saved models: safetensors, JSON and SHA-256; nothing is unpickled."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, overload

import lightning
import torch
from safetensors import SafetensorError

from qtorch.data.window import WindowSpec
from qtorch.deploy import weights
from qtorch.deploy.allocators import allocator_parts, built_allocator
from qtorch.deploy.allowed import check_features, check_modules
from qtorch.deploy.bounded import Bounded
from qtorch.deploy.description import FILE, FORMAT, BundleError, read, text_of, warn_of_older_torch
from qtorch.deploy.schema import inputs_of
from qtorch.deploy.sealed_json import sealed
from qtorch.errors import ArgumentError
from qtorch.nn import build, describe
from qtorch.training import Allocator, Forecaster
from qtorch.training.refit import modules
from qtorch.training.trained_on import TrainedOn

_LONGEST = 1 << 15  # sessions of a context or horizon: more than a century of trading days

Model = TypeVar("Model", bound=Forecaster | Allocator)


def save(
    model: Forecaster | Allocator,
    path: str | Path,
    metadata: Mapping[str, Any] | None = None,
    *,
    metrics: Mapping[str, float] | None = None,
) -> None:
    """Writes a model to a folder: `weights.safetensors`, and `model.json`, which says all about it.

    That is: of which classes it is made and their arguments; its inputs in their order, with what each is and its unit;
    the exchanges and calendar effects; what each fit showed it (universe, span, validation score), which the model
    remembers; the metrics and metadata given here; versions; and the SHA-256 of the weights and of the description.

    Args:
        model: a trained model. Of an allocator all is kept that its weights depend on, and costs, but not its
            objective and schedule, which only training needs.
        path: a folder, made if needed. A model in it is replaced whole: a process that is killed leaves the one or the
            other. Other files in it stay.
        metadata: plain values to keep beside the model, such as the desk that owns it.
        metrics: numbers by name that tell how good the model is, such as those of `qtorch.training.evaluate` on a
            test; the validation scores of its fits are kept already.

    Raises:
        TypeError: a part of the model or of the metadata is not of plain values.
        ValueError: a weight, a metric or a number in the metadata is not finite.
    """
    about = described(model, metadata, metrics)

    def description_of(sha256: str) -> tuple[str, str]:
        return FILE, text_of(sealed(about | {weights.SHA256: sha256}))

    weights.write(modules(model), Path(path), description_of)


@overload
def load(
    path: str | Path, *, allow: Iterable[str] = (), sha256: str | None = None
) -> tuple[Forecaster, dict[str, Any]]: ...


@overload
def load(
    path: str | Path, kind: type[Model], *, allow: Iterable[str] = (), sha256: str | None = None
) -> tuple[Model, dict[str, Any]]: ...


def load(
    path: str | Path,
    kind: Any = Forecaster,
    *,
    allow: Iterable[str] = (),
    sha256: str | None = None,
) -> tuple[Forecaster | Allocator, dict[str, Any]]:
    """Reads a model that `save` wrote.

    The file's own SHA-256 tells damage from a whole file, and not a friend from a foe, who can compute it too. Give
    `sha256`, noted where the model was saved, to load that model and no other.

    Args:
        path: the folder.
        kind: what is wanted, `Forecaster` or `Allocator`.
        allow: packages beside qtorch whose classes and functions the bundle may name.
        sha256: of the bundle, as `bundle_digest` gave it; None takes any.

    Returns:
        The model in evaluation mode, and the metadata saved beside it.

    Raises:
        BundleError: it is a model of the other kind, a file is missing, truncated, altered, of another format or of a
            newer qtorch, it names a class not allowed, or its weights do not fit or are not finite.
    """
    return load_within(Path(path), kind, allow=allow, sha256=sha256)


def load_within(
    folder: Path, kind: Any, *, allow: Iterable[str], sha256: str | None, root: Path | None = None
) -> tuple[Any, dict[str, Any]]:
    """As `load`, of files that may be links to others in a folder `root`, as those of a download are."""
    if isinstance(allow, str):
        raise ArgumentError(f"allow={allow!r}: give a list of packages, such as [{allow!r}].")
    allow, root = tuple(allow), root or folder
    description = read(folder, root)
    if sha256 is not None and description["sha256"] != sha256:
        raise BundleError(
            f"{folder}: its SHA-256 is {description['sha256']}, but {sha256} is wanted. Fetch that model, or ask who "
            "changed it."
        )
    found = description["kind"]
    if found != kind.__name__:
        raise BundleError(f"{folder}: it holds a model of kind {found}, but {kind.__name__} is wanted: give its path.")
    try:
        content = weights.content_of(folder, description["weights_sha256"], root)
        with torch.random.fork_rng(devices=[]), Bounded(len(content)):
            model = _built(description, allow)
        if (model.network.layout if kind is Forecaster else None) != description.get("layout"):
            raise ArgumentError(f"its layout is {description['layout']!r}, but its encoder's is not")
        model.trained_on = tuple(TrainedOn.from_dict(each) for each in description["trained_on"])
        if [each.name for each in inputs_of(model.spec)] != [each["name"] for each in description["inputs"]]:
            raise ArgumentError("the names of its inputs are not those of its features; they may have changed since")
        weights.put(modules(model), content)
    except Exception as error:  # whatever constructors raise for arguments of any kind
        raise _unusable(folder, error) from error
    warn_of_older_torch(folder / FILE, description["versions"])
    return model.eval(), description["metadata"]


def load_weights(model: Forecaster | Allocator, path: str | Path) -> None:
    """Puts the weights of a saved model into one that is made alike.

    Raises:
        BundleError: a file is missing, truncated, altered or of another format, or the weights do not fit.
    """
    folder = Path(path)
    description = read(folder)
    try:
        weights.put(modules(model), weights.content_of(folder, description["weights_sha256"], folder))
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise _unusable(folder, error) from error


def inspect_bundle(path: str | Path) -> dict[str, Any]:
    """The description of a saved model, without its weights.

    Raises:
        BundleError: it is missing, unreadable, altered, of another format or of a newer qtorch.
    """
    return read(Path(path))


def bundle_digest(path: str | Path) -> str:
    """The SHA-256 that stands for a saved model: of its description, in which that of its weights is.

    Raises:
        BundleError: as of `inspect_bundle`.
    """
    digest: str = read(Path(path))["sha256"]
    return digest


def described(
    model: Forecaster | Allocator, metadata: Mapping[str, Any] | None = None, metrics: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """All that a bundle says of a model, but for the digests.

    Raises:
        TypeError: a part of the model is not of plain values.
    """
    inputs = inputs_of(model.spec)
    exchanges = {code for each in model.trained_on for code in each.exchanges}
    return parts_of(model) | {
        "format": FORMAT,
        "inputs": [each._asdict() for each in inputs],
        "calendars": {
            "exchanges": sorted(exchanges),
            "effects": [each.name for each in inputs if each.source == "calendar"],
        },
        "trained_on": [each.to_dict() for each in model.trained_on],
        "metrics": {name: float(value) for name, value in (metrics or {}).items()},
        "metadata": dict(metadata or {}),
        "versions": versions(),
    }


def parts_of(model: Forecaster | Allocator) -> dict[str, Any]:
    """What a model is made of, but its weights, in plain values.

    Raises:
        TypeError: a part cannot be described so.
    """
    if isinstance(model, Allocator):
        parts = allocator_parts(model)
    else:
        parts = {
            "kind": Forecaster.__name__,
            "layout": model.network.layout,
            "encoder": describe(model.network.encoder),
            "head": describe(model.network.head),
        }
    return parts | {"windows": model.spec.to_dict()}


def versions() -> dict[str, str]:
    """Versions of what computes forecasts."""
    import platform
    from importlib.metadata import version

    import numpy as np
    import pandas as pd

    return {
        "qtorch": version("qtorch-finance"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "pandas": pd.__version__,
        "numpy": np.__version__,
        "exchange_calendars": version("exchange_calendars"),
    }


def _built(description: dict[str, Any], allow: tuple[str, ...]) -> Forecaster | Allocator:
    """A fresh model of what its description says."""
    spec = built_windows(description["windows"], allow)
    if description["kind"] == Allocator.__name__:
        return built_allocator(description, spec, allow)
    for part in ("encoder", "head"):
        check_modules(description[part], allow)
    return Forecaster(build(description["encoder"], allow=allow), build(description["head"], allow=allow), spec)


def built_windows(plain: Mapping[str, Any], allow: Iterable[str]) -> WindowSpec:
    """The windows of a description that need not be true.

    Raises:
        ValueError: a setting is missing, of another type or absurd, or a feature is not allowed.
    """
    if plain.keys() != {"context", "horizons", "features"} or not isinstance(plain["horizons"], list):
        raise ArgumentError("windows have a context, horizons and features")
    for number in (plain["context"], *plain["horizons"]):
        if type(number) is not int:
            raise ArgumentError(f"the context and horizons of windows are whole numbers, not {number!r}")
        if number > _LONGEST:
            raise ArgumentError(f"a context or horizon of {number:,} sessions is above {_LONGEST:,}")
    check_features(plain["features"], allow)
    return WindowSpec.from_dict(plain)


def _unusable(folder: Path, error: Exception) -> BundleError:
    told = str(error).rstrip(".") or type(error).__name__
    return BundleError(f"{folder}: not a usable model ({told}). Fetch it again, or train the model anew.")
