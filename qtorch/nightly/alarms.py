"""What the gates measured tonight, and what is done about it."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from qtorch.nightly.gate_config import Action
from qtorch.nightly.outcome import ExitCode


@dataclass(frozen=True)
class Reading:
    """What a gate measured.

    Attributes:
        kind: data, before the forecast; or drift, of the forecasts.
        name: of the gate, as the configuration has it.
        action: what an alarm does.
        alarm: whether what was measured is beyond the limit.
        words: what was measured, for whom reads the page.
        values: the numbers; empty where nothing could be measured.
    """

    kind: Literal["data", "drift"]
    name: str
    action: Action
    alarm: bool
    words: str
    values: dict[str, float | None]

    @property
    def holds(self) -> bool:
        """Whether it holds the night back."""
        return self.alarm and self.action == "hold"

    def __str__(self) -> str:
        """One line."""
        return f"{self.kind} gate {self.name}: {self.words}"

    def plain(self) -> dict[str, Any]:
        """As the manifest has it."""
        values = {name: x if x is not None and math.isfinite(x) else None for name, x in self.values.items()}
        return vars(self) | {"values": values, "held_back": self.holds}


def held_by(readings: Iterable[Reading]) -> ExitCode | None:
    """The exit code of a night that is held back; None of one that is not. Data come before drift."""
    kinds = {reading.kind for reading in readings if reading.holds}
    if not kinds:
        return None
    return ExitCode.HELD_BY_DATA if "data" in kinds else ExitCode.HELD_BY_DRIFT
