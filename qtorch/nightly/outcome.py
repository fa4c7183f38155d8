"""How a night can end: exit codes, and the errors that lead to them."""

from collections.abc import Iterable
from enum import IntEnum

from qtorch.errors import BriefInNotebooks


class ExitCode(IntEnum):
    """Exit codes of `qtorch nightly`; a number never changes its meaning."""

    DONE = 0
    ERROR = 1
    UNUSABLE = 2
    SOME_FAILED = 3
    REFUSED = 4
    NOT_A_SESSION = 5
    HELD_BY_DATA = 6
    HELD_BY_DRIFT = 7
    LOCKED = 8


_FROM_GOOD_TO_BAD = (
    ExitCode.DONE,
    ExitCode.NOT_A_SESSION,
    ExitCode.SOME_FAILED,
    ExitCode.HELD_BY_DRIFT,
    ExitCode.HELD_BY_DATA,
    ExitCode.LOCKED,
    ExitCode.REFUSED,
    ExitCode.UNUSABLE,
    ExitCode.ERROR,
)


def worst(codes: Iterable[ExitCode]) -> ExitCode:
    """The code that tells of many nights: that of the one that needs attention most; `DONE` of none."""
    return max(codes, key=_FROM_GOOD_TO_BAD.index, default=ExitCode.DONE)


class Refused(BriefInNotebooks, Exception):
    """The data do not pass a check; nothing was written."""


class NotASession(BriefInNotebooks, Exception):
    """No exchange of the data has a session on the as-of date; nothing was written."""


class Locked(BriefInNotebooks, Exception):
    """Another process is at work on the same night; nothing was written."""
