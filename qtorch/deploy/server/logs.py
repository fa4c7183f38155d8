"""What the server writes of each request: a line of JSON, without payloads and tokens."""

import json
import logging
import re
import sys
import traceback
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


class LibraryLog(logging.Handler):
    """Writes what libraries tell Python's logging into a log, in its form.

    Args:
        log: that takes it.
    """

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self.log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a line."""
        facts = {"logger": record.name, "level": record.levelname.lower(), "message": record.getMessage()}
        if record.exc_info and record.exc_info[1] is not None:
            facts["traceback"] = "".join(traceback.format_exception(record.exc_info[1]))[-_LONGEST:]
        self.log("library", **facts)

    def take_over(self) -> None:
        """Takes the place of all that writes to standard error or output by Python's logging, and its warnings."""
        logging.captureWarnings(True)
        root = logging.getLogger()
        known = [logging.getLogger(name) for name in logging.root.manager.loggerDict]
        for logger in [root, *known]:
            for handler in list(logger.handlers):
                # Those into files write elsewhere.
                if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
                    logger.removeHandler(handler)
                    logger.propagate = True
        if self not in root.handlers:
            root.addHandler(self)
