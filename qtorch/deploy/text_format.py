"""Configurations in protobuf's text format, as Triton keeps them: read as plain values, and one setting changed."""

import re
from collections.abc import Iterator
from typing import Any

from qtorch.errors import ArgumentError

_TOKEN = re.compile(
    r"""\s+|\#[^\n]*|(?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')|(?P<word>[\w.+-]+)|(?P<mark>[][{}<>:,;])"""
)
_CLOSING = {"{": "}", "<": ">"}
_DEEPEST = 50


def parsed_text(text: str) -> dict[str, list[Any]]:
    """The fields of a message: for each name the values that it has, in their order; numbers and words as text.

    Raises:
        ValueError: it is no such text.

    Example:
        >>> parsed_text('name: "risk"  input [ { dims: [ -1, 17 ] } ]  # a comment')
        {'name': ['risk'], 'input': [{'dims': ['-1', '17']}]}
    """
    return _message([(kind, value) for kind, value, _ in _tokens(text)][::-1], None, 0)


def with_setting(text: str, name: str, value: str) -> str:
    r"""A configuration with another value of a setting of one word, which is put at its end where it has none.

    Raises:
        ValueError: it is no such text.

    Example:
        >>> with_setting("max_batch_size: 8 # of us\n", "max_batch_size", "16")
        'max_batch_size: 16 # of us\n'
    """
    depth, before = 0, ["", ""]
    for _, token, (start, end) in _tokens(text):
        if depth == 0 and before == [name, ":"]:
            return f"{text[:start]}{value}{text[end:]}"
        depth += (token in ("{", "[", "<")) - (token in ("}", "]", ">"))
        before = [before[1], token]
    return f"{text.rstrip()}\n{name}: {value}\n"


def _tokens(text: str) -> Iterator[tuple[str, str, tuple[int, int]]]:
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            line = text.count("\n", 0, at) + 1
            raise ArgumentError(f"line {line} is not readable at {text[at : at + 20]!r}")
        if found.lastgroup is not None:
            yield found.lastgroup, found.group(), found.span()
        at = found.end()


def _message(tokens: list[tuple[str, str]], closing: str | None, depth: int) -> dict[str, list[Any]]:
    """Fields up to the mark that closes them, which are taken from the end of the list."""
    fields: dict[str, list[Any]] = {}
    while True:
        kind, name = tokens.pop() if tokens else ("mark", None)
        if kind == "mark":
            if name == closing:
                return fields
            if name in (",", ";"):
                continue
            raise ArgumentError(f"{name or 'its end'} stands where the name of a setting should")
        if tokens and tokens[-1] == ("mark", ":"):
            tokens.pop()
        elif not tokens or tokens[-1][1] not in ("{", "<", "["):
            raise ArgumentError(f"{name} has no value")
        fields.setdefault(str(name), []).extend(_values(tokens, depth))


def _values(tokens: list[tuple[str, str]], depth: int) -> list[Any]:
    if depth > _DEEPEST:
        raise ArgumentError(f"it is nested more than {_DEEPEST} deep")
    kind, token = tokens.pop() if tokens else ("mark", "its end")
    if token in _CLOSING and kind == "mark":
        return [_message(tokens, _CLOSING[token], depth + 1)]
    if kind == "mark" and token == "[":
        found: list[Any] = []
        while tokens and tokens[-1] != ("mark", "]"):
            if tokens[-1] == ("mark", ","):
                tokens.pop()
            else:
                found += _values(tokens, depth + 1)
        if not tokens:
            raise ArgumentError("a list has no end")
        tokens.pop()
        return found
    if kind == "mark":
        raise ArgumentError(f"{token} stands where a value should")
    if kind == "word":
        return [token]
    text = token[1:-1]
    while tokens and tokens[-1][0] == "text":  # strings side by side are one
        text += tokens.pop()[1][1:-1]
    return [text]
