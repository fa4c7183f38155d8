"""How rows of prices are read."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from qtorch.data.adjust import UNADJUSTED
from qtorch.data.calendars import AnyCalendar
from qtorch.data.clean import BadRows
from qtorch.data.errors import DataError, listing
from qtorch.data.rows import ACTIONS, FIELDS, KEYS, Rows, label


@dataclass(frozen=True)
class Rules:
    """How rows are read; see `qtorch.data.Panel.from_frame`."""

    exchange: str | Mapping[Any, str] | None = None
    calendars: Iterable[AnyCalendar] = ()
    as_of: str | None = None
    bad_rows: BadRows = "raise"
    off_calendar: Literal["keep", "drop", "raise"] = "keep"
    adjust: bool = True
    fields: Sequence[str] = ()
    delisted: Mapping[Any, str | pd.Timestamp] | None = None
    jump: float = 0.5

    def __post_init__(self) -> None:
        """Checks the settings."""
        for name, allowed in (("bad_rows", ("raise", "quarantine")), ("off_calendar", ("keep", "drop", "raise"))):
            if getattr(self, name) not in allowed:
                raise DataError(f"{name}={getattr(self, name)!r} is none of {', '.join(map(repr, allowed))}.")

    def kept_fields(self, rows: Rows) -> list[str]:
        """The numeric columns that the panel keeps."""
        reserved = [name for name in self.fields if name in (*KEYS, *ACTIONS, "row")]
        if reserved or len(set(self.fields)) < len(self.fields):
            raise DataError(
                f"fields={tuple(self.fields)}: each further numeric column once, and none of "
                f"{listing((*KEYS, *ACTIONS, 'row'), most=10)}. Give a copy of such a column another name to keep it."
            )
        absent = [name for name in self.fields if name not in rows.columns]
        if absent:
            raise DataError(f"no column {listing(map(repr, absent))} of fields={tuple(self.fields)}.")
        actions = self.actions(rows)
        if actions and UNADJUSTED in rows.columns:
            raise DataError(
                f"a column {UNADJUSTED!r} beside {listing(map(repr, actions))}: prices that are adjusted already would "
                f"be adjusted again. Drop {UNADJUSTED!r} if the prices are as they were traded, else pass adjust=False."
            )
        return [name for name in FIELDS if name in rows.columns] + [name for name in self.fields if name not in FIELDS]

    def delistings(self, known: set[str]) -> dict[str, pd.Timestamp] | None:
        """The last date of each asset that is known to have been delisted; None where nothing is known of them."""
        if self.delisted is None:
            return None
        unknown = [asset for asset in self.delisted if str(asset) not in known]
        if unknown:
            raise DataError(
                f"no row is of {listing(map(repr, unknown))} in delisted. Correct the names, or leave them out."
            )
        return {str(asset): label(date, f"delisted[{asset!r}]") for asset, date in self.delisted.items()}

    def actions(self, rows: Rows) -> list[str]:
        """The columns of corporate actions that prices are adjusted by."""
        return [name for name in ACTIONS if self.adjust and name in rows.columns]
