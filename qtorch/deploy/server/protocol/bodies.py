"""Bodies of HTTP requests: decompressed within a bound, and read as JSON without surprises."""

import json
import zlib
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, TypeVar

from qtorch.deploy.server.protocol.errors import RequestError
from qtorch.deploy.server.protocol.messages import Limits
from qtorch.deploy.server.protocol.tensors import shown

T = TypeVar("T", bound=Hashable)
_WINDOW = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
_MOST_CONTAINERS = 250_000  # lists and objects; each costs far more time to read than its bytes say


def header(headers: Mapping[str, str], name: str) -> str | None:
    """The value of a header, whatever the case of its name."""
    return next((value for key, value in headers.items() if key.lower() == name.lower()), None)


def decompressed(body: bytes, headers: Mapping[str, str], limits: Limits) -> bytes:
    """A body as it was before its ``Content-Encoding``; no more than the limit is ever held.

    Raises:
        RequestError: 400 it is truncated or no such encoding, 413 it is too large, 415 the encoding is not known.
    """
    if len(body) > limits.max_bytes:
        raise RequestError(
            413, f"the body has {len(body)} bytes, over the limit of {limits.max_bytes}. Send fewer windows."
        )
    encoding = (header(headers, "Content-Encoding") or "identity").strip().lower()
    if encoding == "identity":
        return body
    if encoding not in _WINDOW:
        raise RequestError(415, f"Content-Encoding {shown(encoding)} is none of gzip, deflate and identity. Use one.")
    decoder = zlib.decompressobj(_WINDOW[encoding])
    try:
        plain = decoder.decompress(body, limits.max_bytes + 1)
    except zlib.error as error:
        raise RequestError(400, f"the body is no {encoding} stream ({error}). Compress it anew.") from error
    if len(plain) > limits.max_bytes:
        raise RequestError(413, f"the body decompresses to more than {limits.max_bytes} bytes. Send fewer windows.")
    if not decoder.eof:
        raise RequestError(400, f"the body's {encoding} stream is truncated. Send it whole.")
    if decoder.unused_data:
        raise RequestError(
            400, f"{len(decoder.unused_data)} bytes follow the body's {encoding} stream. Send one stream."
        )
    return plain


def json_object(text: bytes) -> dict[str, Any]:
    """The JSON object of some bytes.

    Raises:
        RequestError: 400, it is no JSON in UTF-8, no object, too deep, of too many parts, or a key is
            there twice.
    """
    containers = text.count(b"[") + text.count(b"{")
    if containers > _MOST_CONTAINERS:
        raise RequestError(
            400,
            f"the JSON has {containers} brackets, over the limit of {_MOST_CONTAINERS}. Give data flat, or as bytes.",
        )
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=_without_duplicates)
    except UnicodeDecodeError as error:
        raise RequestError(400, f"the JSON is not UTF-8: byte {error.start} ({error.reason}).") from error
    except RecursionError as error:
        raise RequestError(400, "the JSON is nested too deeply. Give data nested as their shape, or flat.") from error
    except json.JSONDecodeError as error:
        raise RequestError(400, f"the body is no JSON: {error}.") from error
    except ValueError as error:  # a number of more digits than Python reads
        raise RequestError(400, f"the JSON holds a number that cannot be read: {str(error)[:200]}.") from error
    if not isinstance(value, dict):
        raise RequestError(400, f"the JSON is {shown(value)}. Give an object.")
    return value


def first_repeated(names: Iterable[T]) -> T | None:
    """The first of some names that was there before; None if each is there once.

    Example:
        >>> first_repeated(["inputs", "mask", "inputs"])
        'inputs'
    """
    seen: set[T] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        twice = first_repeated(key for key, _ in pairs)
        raise RequestError(400, f"the JSON has the key {shown(twice)} twice in one object. Give it once.")
    return value
