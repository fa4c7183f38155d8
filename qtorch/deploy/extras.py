"""Libraries that only some ways out of the notebook need."""

from importlib import import_module
from typing import Any


def needed(library: str, extra: str, what: str) -> Any:
    """A library's module.

    Args:
        library: as it is imported.
        extra: of ours that installs it.
        what: needs it.

    Raises:
        ImportError: it is not installed.
    """
    try:
        return import_module(library)
    except ImportError as error:
        raise ImportError(f"{what} needs {library}: pip install 'qtorch-finance[{extra}]'.") from error
