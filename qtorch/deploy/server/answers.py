"""What a worker answers beside responses; needs no torch, so that whoever asks need not have it."""

from dataclasses import dataclass

from qtorch.errors import BriefInNotebooks


@dataclass(frozen=True)
class Fault:
    """An error that is no refusal: a fault of a model or of ours.

    Attributes:
        traceback: for the server's log, not for who asked.
    """

    traceback: str


class FaultError(BriefInNotebooks, RuntimeError):
    """A fault in a worker; its message is the traceback."""


@dataclass(frozen=True)
class VersionState:
    """A version that a worker knows.

    Attributes:
        name: of the model.
        version: of it.
        state: READY, LOADING or UNAVAILABLE.
        reason: why it does not answer; "" where it does.
    """

    name: str
    version: str
    state: str
    reason: str


@dataclass(frozen=True)
class WorkerState:
    """What a worker knows.

    Attributes:
        index: every version.
        problem: why its last look at the folder failed; "" if it did not.
        process: its number.
    """

    index: list[VersionState]
    problem: str
    process: int
