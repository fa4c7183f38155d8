"""How our errors look in a notebook: the user's own lines and the message, without the library's frames."""

import sys
import sysconfig
import traceback
from pathlib import Path
from typing import Any

_MOST = 2000  # characters of a message
_LINES = 3  # of the user's own
_ALL = "All frames: %tb Verbose"


class BriefInNotebooks:
    """An exception that IPython shows in a few lines; everywhere else, and in its `__traceback__`, it is as any other.

    IPython asks an exception for its traceback by the method `_render_traceback_`. ``%tb Verbose`` and ``%xmode
    Verbose`` show all frames, as of any other exception, and ``%debug`` goes into them.
    """

    def _render_traceback_(self: Any) -> list[str]:
        """The lines that IPython shows."""
        shell = _shell()
        if shell is not None and shell.InteractiveTB.mode == "Verbose":
            whole: list[str] = shell.InteractiveTB.structured_traceback(type(self), self, self.__traceback__)
            return whole
        message = str(self)
        if len(message) > _MOST:
            message = f"{message[:_MOST]}… ({len(message) - _MOST:,} characters more)"
        lines = _own_lines(self)
        if (cause := self.__cause__) is not None:
            lines += [each for each in _own_lines(cause) if each not in lines]
            lines.append(f"caused by {type(cause).__name__}: {str(cause)[:200]}")
        return [*lines, f"{type(self).__name__}: {message}", *getattr(self, "__notes__", ()), "", _ALL]


class ArgumentError(BriefInNotebooks, ValueError):
    """An argument that cannot be used; the message names it, its value and what to do."""


class NonFiniteError(BriefInNotebooks, FloatingPointError):
    """A training whose numbers are no longer finite; the message says where, and what to do."""


def _own_lines(error: BaseException) -> list[str]:
    """The last lines of the traceback that stand neither in this package nor in an installed one."""
    paths = sysconfig.get_paths()
    foreign = (str(Path(__file__).parent), *(paths[name] for name in ("stdlib", "purelib", "platlib")))
    every = traceback.extract_tb(error.__traceback__)
    # Code that is made at run time, such as a dataclass's __init__, has no line to show.
    own = (frame for frame in every if not any(Path(frame.filename).is_relative_to(folder) for folder in foreign))
    frames = [frame for frame in own if frame.line]
    return [f"{_place(frame)}\n    {frame.line}" for frame in frames[-_LINES:]]


def _place(frame: traceback.FrameSummary) -> str:
    """Where a line stands; of a cell, its number."""
    shell = _shell()
    cell = None if shell is None else shell.compile.format_code_name(frame.filename)
    where = frame.filename if cell is None else " ".join(cell)
    return f"{where}, line {frame.lineno}"


def _shell() -> Any:
    """The running IPython, or None."""
    return getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
