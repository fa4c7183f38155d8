"""Plain values as JSON that tells when it was altered: read strictly, with its SHA-256 in it."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from qtorch.errors import ArgumentError

MOST = 1 << 25  # bytes; the names of 100,000 assets take 3 MB


def sealed(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Values as JSON keeps them, with their SHA-256.

    Raises:
        TypeError: a value is not plain.
        ValueError: a number is not finite.

    Example:
        >>> sealed({"horizons": (1, 5)})["horizons"]
        [1, 5]
    """
    try:
        text = json.dumps(dict(plain), allow_nan=False)
    except TypeError as error:
        raise TypeError(f"{error}: give str, int, float, bool, None, lists and dicts, such as str(date).") from error
    except ValueError as error:
        raise ArgumentError(f"{error}: only finite numbers are kept. Leave the others out, or give None.") from error
    kept: dict[str, Any] = json.loads(text)
    return kept | {"sha256": digest(kept)}


def digest(plain: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical form, which depends on neither the order of keys nor white space, without the digest."""
    rest = {name: value for name, value in plain.items() if name != "sha256"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def parsed(raw: bytes) -> dict[str, Any]:
    """A JSON object, read strictly.

    Raises:
        ValueError: it is none, or too large, a key stands twice, or a number is not finite.
        RecursionError: it is nested too deeply.
    """
    if len(raw) > MOST:
        raise ArgumentError(f"it is larger than {MOST:,} bytes")
    found = json.loads(raw.decode(), object_pairs_hook=_unique, parse_constant=_refused)
    if not isinstance(found, dict):
        raise ArgumentError(f"it holds a {type(found).__name__}, not an object")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ArgumentError("a key stands twice in one object")
    return found


def _refused(name: str) -> Any:
    raise ArgumentError(f"{name} is no number")
