"""The description of a saved model: read within bounds, and told from an altered one by its SHA-256."""

import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from qtorch.deploy.regular_files import opened
from qtorch.deploy.sealed_json import MOST, digest, parsed
from qtorch.errors import ArgumentError, BriefInNotebooks

FORMAT = 2
FILE = "model.json"

_FIELDS: dict[str, type] = {
    "calendars": dict,
    "format": int,
    "inputs": list,
    "kind": str,
    "metadata": dict,
    "metrics": dict,
    "sha256": str,
    "trained_on": list,
    "versions": dict,
    "weights_sha256": str,
    "windows": dict,
}
_OF_KIND: dict[str, dict[str, type]] = {
    "Forecaster": {"encoder": dict, "head": dict, "layout": str},
    "Allocator": {
        "network": dict,
        "allocation": dict,
        "half_lives": list,
        "graphs": dict,
        "costs": dict,
        "settings": dict,
    },
}


class BundleError(BriefInNotebooks, ValueError):
    """A saved model that cannot be trusted or used; the message says why."""


def text_of(description: Mapping[str, Any]) -> str:
    """A sealed description as it is written.

    Raises:
        ValueError: it is too large.
    """
    text = json.dumps(description, indent=2, sort_keys=True) + "\n"
    if len(text) > MOST:
        raise ArgumentError(f"the description takes {len(text):,} bytes, more than {MOST:,}. Give less metadata.")
    return text


def read(folder: Path, root: Path | None = None) -> dict[str, Any]:
    """The description in a folder.

    Args:
        folder: of the bundle.
        root: within which its files are; the folder by default.

    Raises:
        BundleError: it is missing, unreadable, altered, of another format or of a newer qtorch.
    """
    file = folder / FILE
    try:
        with opened(file, root or folder) as stream:
            raw = stream.read(MOST + 1)
        found = parsed(raw)
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{file}: not readable ({error}). Fetch it again, or train the model anew.") from error
    if type(found.get("format")) is not int:
        raise BundleError(f"{file}: not a saved model. Give the folder that qtorch.deploy.save wrote.")
    if found["format"] != FORMAT:
        remedy = "Upgrade qtorch" if found["format"] > FORMAT else "Save it anew with this qtorch, or train it anew"
        raise BundleError(f"{file}: not a model of format {FORMAT} but of {found['format']}. {remedy}.")
    try:
        _check(found)
        computed = digest(found)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{file}: {error}. Fetch it again, or train the model anew.") from error
    if found["sha256"] != computed:
        raise BundleError(
            f"{file}: it was altered, as its SHA-256 is {computed} and not the one it names. Fetch it again, or save "
            "it anew."
        )
    _refuse_newer(file, found["versions"])
    return found


def warn_of_older_torch(file: Path, versions: Mapping[str, Any]) -> None:
    """Warns where the torch here is older than that which wrote a model."""
    here = torch.__version__
    if _minor(str(versions.get("torch"))) > _minor(here):
        warnings.warn(
            f"{file}: written with torch {versions['torch']}, and read with {here}: forecasts may differ. Upgrade "
            "torch, or compare some before they are used.",
            stacklevel=3,
        )


def _check(found: dict[str, Any]) -> None:
    kind = found.get("kind")
    if not isinstance(kind, str) or kind not in _OF_KIND:
        raise ArgumentError(f"it holds a model of kind {kind!r}, which is none of {', '.join(_OF_KIND)}")
    expected = _FIELDS | _OF_KIND[kind]
    for what, names in (("lacks", expected.keys() - found.keys()), ("has unknown", found.keys() - expected.keys())):
        if names:
            raise ArgumentError(f"it {what} {', '.join(sorted(names))}")
    for name, type_ in expected.items():
        if not isinstance(found[name], type_):
            raise ArgumentError(f"its {name} is a {type(found[name]).__name__}, not a {type_.__name__}")
    for name, value in found["metrics"].items():
        if type(value) is not float:
            raise ArgumentError(f"its metric {name} is {value!r}, and no number")
    calendars = found["calendars"]
    if calendars.keys() != {"exchanges", "effects"} or not all(_texts(each) for each in calendars.values()):
        raise ArgumentError(f"its calendars have exchanges and effects, and not {str(calendars)[:80]}")
    columns = {"name", "what", "unit", "source"}
    for each in found["inputs"]:
        if not (isinstance(each, dict) and each.keys() == columns and _texts(list(each.values()))):
            raise ArgumentError(f"its inputs have {', '.join(sorted(columns))}, and not {str(each)[:80]}")


def _texts(part: Any) -> bool:
    return isinstance(part, list) and all(isinstance(each, str) for each in part)


def _refuse_newer(file: Path, versions: Mapping[str, Any]) -> None:
    from importlib.metadata import version

    wrote, here = str(versions.get("qtorch")), version("qtorch-finance")
    if _minor(wrote) == (0, 0):
        raise BundleError(f"{file}: the version of the qtorch that wrote it is {wrote!r}. Save it anew.")
    if _minor(wrote) > _minor(here):
        raise BundleError(
            f"{file}: written by qtorch {wrote}, which is newer than {here} here and may compute otherwise. Upgrade "
            "qtorch."
        )


def _minor(version: str) -> tuple[int, int]:
    """Major and minor version; zeros where it is none."""
    found = re.match(r"(\d{1,6})\.(\d{1,6})(?!\d)", version)
    return (int(found[1]), int(found[2])) if found else (0, 0)
