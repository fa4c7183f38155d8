"""What a night came to, for whoever runs it: its exit code, and all that one JSON document tells."""

import json
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qtorch.data import DataError
from qtorch.nightly.outcome import ExitCode, Locked, NotASession, Refused
from qtorch.nightly.places import MANIFEST
from qtorch.nightly.sinks import SinkError


@dataclass(frozen=True)
class Ended:
    """What a night came to.

    Attributes:
        code: its exit code.
        as_of: YYYY-MM-DD; None where the night did not come so far.
        folder: of its files; None where there are none.
        error: in words, why there are none; None where there are.
        there_already: whether the night was there, made of the same inputs.
        manifest: of the night; empty where there is none.
    """

    code: ExitCode
    as_of: str | None = None
    folder: Path | None = None
    error: str | None = None
    there_already: bool = False
    manifest: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path, *, there_already: bool = False) -> "Ended":
        """The night of a folder."""
        manifest = json.loads((folder / MANIFEST).read_text())
        code = ExitCode(manifest["exit_code"])
        return cls(code, manifest["as_of"], folder, None, there_already, manifest)

    @property
    def failed(self) -> dict[str, str]:
        """Why each asset that is due has no forecast."""
        found: dict[str, str] = self.manifest.get("failed_assets", {})
        return found

    def summary(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "as_of": self.as_of,
            "exit_code": int(self.code),
            "outcome": self.code.name.lower(),
            "error": self.error,
            "folder": None if self.folder is None else str(self.folder),
            "held_back": self.code in (ExitCode.HELD_BY_DATA, ExitCode.HELD_BY_DRIFT),
            "there_already": self.there_already,
            "counts": self.manifest.get("counts", {}),
            "failed_assets": self.failed,
            "alarms": [each for each in self.manifest.get("gates", []) if each["alarm"]],
            "seconds": self.manifest.get("seconds", {}),
        }

    def __str__(self) -> str:
        """One line."""
        words = self.code.name.lower().replace("_", " ")
        told = "there already" if self.there_already else self.error
        return f"{self.as_of or 'no night'}  {int(self.code)} {words}" + (f"  ({told})" if told else "")


def attempt(make: Callable[[], Ended], as_of: str | None, complain: Callable[[str], None]) -> Ended:
    """What a night comes to, an error among it.

    Args:
        make: makes the night.
        as_of: its date, where it is known.
        complain: receives the traceback of an error that is not the data's or the configuration's.
    """
    try:
        return make()
    except (DataError, Refused) as error:
        return Ended(ExitCode.REFUSED, as_of, error=f"refused: {error}")
    except NotASession as error:
        return Ended(ExitCode.NOT_A_SESSION, as_of, error=f"not a session: {error}")
    except Locked as error:
        return Ended(ExitCode.LOCKED, as_of, error=f"locked: {error}")
    except SinkError as error:
        return Ended(ExitCode.ERROR, as_of, error=str(error))
    except ValueError as error:
        return Ended(ExitCode.UNUSABLE, as_of, error=f"unusable arguments or configuration: {error}")
    except Exception as error:  # noqa: BLE001  a scheduler is to be told, and a backfill may go on
        complain(traceback.format_exc())
        return Ended(ExitCode.ERROR, as_of, error=f"{type(error).__name__}: {error}")
