"""How a night can end: exit codes, and the errors that lead to them."""

from enum import IntEnum

from qtorch.errors import BriefInNotebooks


class ExitCode(IntEnum):
    """Exit codes of `qtorch nightly`; 2 is the command line's own, for unusable arguments."""

    DONE = 0
    ERROR = 1
    SOME_FAILED = 3
    REFUSED = 4
    NOT_A_SESSION = 5


class Refused(BriefInNotebooks, Exception):
    """The data do not pass a check; nothing was written."""


class NotASession(BriefInNotebooks, Exception):
    """No exchange of the data has a session on the as-of date; nothing was written."""
