"""Saved models: safetensors, JSON and SHA-256; nothing is unpickled."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, overload

import lightning
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from qtorch.data.window import WindowSpec
from qtorch.deploy.allocators import allocator_parts, built_allocator
from qtorch.errors import BriefInNotebooks
from qtorch.nn import build, describe
from qtorch.training import Allocator, Forecaster
from qtorch.training.refit import modules

FORMAT = 1
Model = TypeVar("Model", bound=Forecaster | Allocator)


class BundleError(BriefInNotebooks, ValueError):
    """A saved model that cannot be trusted or used; the message says why."""


def save(model: Forecaster | Allocator, path: str | Path, metadata: Mapping[str, Any] | None = None) -> None:
    """Writes a model to a folder: `weights.safetensors` and `model.json`, which holds the weights' SHA-256.

    Args:
        model: a trained model. Of an allocator all is kept that its weights depend on, and costs, but not its
            objective and schedule, which only training needs.
        path: a folder, made if needed; files of an earlier model in it are replaced.
        metadata: plain values to keep beside the model, such as the span it was trained on.

    Raises:
        TypeError: a part of the model cannot be described in plain values.
    """
    parts = parts_of(model)
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().cpu().contiguous() for name, value in modules(model).state_dict().items()}
    save_file(state, folder / "weights.safetensors")
    description = parts | {
        "format": FORMAT,
        "weights_sha256": _sha256(folder / "weights.safetensors"),
        "metadata": dict(metadata or {}),
        "versions": versions(),
    }
    text = json.dumps(description, indent=2, sort_keys=True)
    # The description is written last and whole, so a folder without it is no bundle.
    aside = folder / "model.json.part"
    aside.write_text(text + "\n")
    os.replace(aside, folder / "model.json")


@overload
def load(path: str | Path, *, allow: Iterable[str] = ()) -> tuple[Forecaster, dict[str, Any]]: ...


@overload
def load(path: str | Path, kind: type[Model], *, allow: Iterable[str] = ()) -> tuple[Model, dict[str, Any]]: ...


def load(
    path: str | Path, kind: Any = Forecaster, *, allow: Iterable[str] = ()
) -> tuple[Forecaster | Allocator, dict[str, Any]]:
    """Reads a model that `save` wrote.

    Args:
        path: the folder.
        kind: what is wanted, `Forecaster` or `Allocator`.
        allow: packages beside qtorch whose classes and functions the bundle may name.

    Returns:
        The model in evaluation mode, and the metadata saved beside it.

    Raises:
        BundleError: it is a model of the other kind, a file is missing, truncated, altered, of another format, or names
            a class not allowed.
    """
    folder, allow = Path(path), tuple(allow)
    description = inspect_bundle(folder)
    # Bundles without a kind were written when there were forecasters only.
    found = description.get("kind", Forecaster.__name__)
    if found != kind.__name__:
        raise BundleError(f"{folder}: it holds a model of kind {found}, but {kind.__name__} is wanted: give its path.")
    try:
        spec = WindowSpec.from_dict(description["windows"])
        model: Forecaster | Allocator
        if kind is Allocator:
            model = built_allocator(description, spec, allow)
        else:
            model = Forecaster(
                build(description["encoder"], allow=allow), build(description["head"], allow=allow), spec
            )
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise BundleError(f"{folder}: not a usable model ({error}). Train the model anew.") from error
    load_weights(model, folder)
    return model.eval(), description["metadata"]


def load_weights(model: Forecaster | Allocator, path: str | Path) -> None:
    """Puts the weights of a saved model into one that is made alike.

    Raises:
        BundleError: a file is missing, truncated, altered or of another format, or the weights do not fit.
    """
    folder = Path(path)
    description, weights = inspect_bundle(folder), folder / "weights.safetensors"
    try:
        if _sha256(weights) != description["weights_sha256"]:
            raise BundleError(f"{weights}: its SHA-256 is not the one in model.json. Train the model anew.")
        modules(model).load_state_dict(load_file(weights), strict=True)
    except BundleError:
        raise
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise BundleError(f"{folder}: not a usable model ({error}). Train the model anew.") from error


def inspect_bundle(path: str | Path) -> dict[str, Any]:
    """The description of a saved model, without its weights.

    Raises:
        BundleError: it is missing, unreadable or of another format.
    """
    file = Path(path) / "model.json"
    try:
        description = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise BundleError(f"{file}: not readable ({error}). Train the model anew.") from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise BundleError(f"{file}: not a model of format {FORMAT}. Train the model anew.")
    return description


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


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
