"""What the server writes of each request: a line of JSON, without payloads and tokens."""

import json
import re
import sys
import uuid
from datetime import UTC, datetime
from typing import Any, Protocol, runtime_checkable

_SANE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=-]{0,127}", re.ASCII)
_LONGEST = 2000  # characters of a text


def request_id(given: str | None) -> str:
    """The sender's own id of a request if it is fit for a log, a new one if not."""
    return given if given is not None and _SANE.fullmatch(given) else uuid.uuid4().hex


@runtime_checkable
class Stream(Protocol):
    """What takes text."""

    def write(self, text: str, /) -> Any:
        """Takes it."""

    def flush(self) -> Any:
        """Hands it on."""


class Log:
    """Writes events, a line of JSON each.

    Args:
        stream: of text; standard error if None.
    """

    def __init__(self, stream: Stream | None = None) -> None:
        self.stream: Stream = sys.stderr if stream is None else stream

    def __call__(self, event: str, **facts: Any) -> None:
        """Writes a line.

        Args:
            event: what happened.
            **facts: plain values; long texts are cut.
        """
        told = {name: value[:_LONGEST] if isinstance(value, str) else value for name, value in facts.items()}
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        self.stream.write(json.dumps({"time": time, "event": event} | told) + "\n")
        self.stream.flush()
