"""The cells of a panel while it is built: where several rows want one, which of them it holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from qtorch.data import clean
from qtorch.data.adjust import UNADJUSTED, Events
from qtorch.data.calendars import NO_SESSION, dates_of, day_number
from qtorch.data.clean import BadRows, finding
from qtorch.data.errors import DataError, name_rows
from qtorch.data.rows import Rows
from qtorch.data.rules import Rules

_REFUSED = -2  # the position of a cell that two rows claim


@dataclass
class Cells:
    """The cells of some assets, `[T, n]`: their values, and the day and the position of the row that each holds."""

    fields: list[str]
    values: np.ndarray
    day: np.ndarray
    position: np.ndarray
    known: np.ndarray | None
    adjusts: bool
    ratio: np.ndarray | None  # of adj_close to close
    events: Events
    findings: list[pd.DataFrame] = field(default_factory=list)

    @classmethod
    def empty(cls, rows: Rows, rules: Rules, fields: list[str], shape: tuple[int, int]) -> "Cells":
        """Without a row yet."""
        actions = rules.actions(rows)
        fields = fields + ([UNADJUSTED] if actions else [])
        return cls(
            fields,
            np.full((*shape, len(fields)), np.nan),
            np.full(shape, NO_SESSION, dtype=np.int32),
            np.full(shape, -1, dtype=np.int32 if len(rows) < 2**31 else np.int64),
            np.full(shape, np.iinfo(np.int64).min) if "known_at" in rows.columns else None,
            bool(actions),
            np.full(shape, np.nan) if "adj_close" in actions else None,
            Events([name for name in actions if name != "adj_close"]),
        )

    def put(self, rows: pd.DataFrame, t: np.ndarray, n: np.ndarray, bad_rows: BadRows) -> None:
        """Puts rows into their cells; where several want one, the latest session wins, then the latest known."""
        cell = t * self.day.shape[1] + n
        day = day_number(rows["date"].to_numpy())
        known = rows["known_at"].astype("int64").to_numpy() if self.known is not None else np.zeros(len(rows), np.int64)
        wins = np.ones(len(rows), dtype=bool)
        crowded = np.flatnonzero(pd.Series(cell).duplicated(keep=False).to_numpy())
        if len(crowded):
            order = crowded[np.lexsort((known[crowded], day[crowded], cell[crowded]))]
            same = cell[order][1:] == cell[order][:-1]
            wins[order[:-1][same]] = False
            twice = same & (day[order][1:] == day[order][:-1]) & (known[order][1:] == known[order][:-1])
            claimed = np.zeros(len(rows), dtype=bool)
            claimed[order[1:][twice]] = claimed[order[:-1][twice]] = True
            if claimed.any():
                there = cell[claimed]
                held = self.position.ravel()[there]
                prior = rows[claimed].assign(row=held)[(held >= 0) & (self.day.ravel()[there] == day[claimed])]
                self._refuse_twice(pd.concat([prior.drop_duplicates("row"), rows[claimed]]), bad_rows)
                wins &= ~claimed
                self.position.ravel()[there] = _REFUSED
                self.day.ravel()[there] = day[claimed]
                self.values.reshape(-1, len(self.fields))[there] = np.nan
            self._note_superseded(rows[~wins & ~claimed])
        held = self.position.ravel()[cell] != -1
        at = np.flatnonzero(wins & held)
        if len(at):
            self._meet(rows, cell, day, known, at, wins, bad_rows)
        cell, day, kept = cell[wins], day[wins], rows[wins]
        self.values.reshape(-1, len(self.fields))[cell] = kept[self.fields].to_numpy()
        self.day.ravel()[cell] = day
        self.position.ravel()[cell] = kept["row"].to_numpy()
        if self.known is not None:
            self.known.ravel()[cell] = known[wins]
        if self.ratio is not None:
            self.ratio.ravel()[cell] = (kept["adj_close"] / kept["close"]).to_numpy()

    def _meet(
        self,
        rows: pd.DataFrame,
        cell: np.ndarray,
        day: np.ndarray,
        known: np.ndarray,
        at: np.ndarray,
        wins: np.ndarray,
        bad_rows: BadRows,
    ) -> None:
        """Settles between rows and those of earlier chunks in the same cells; `wins` is changed in place."""
        there = cell[at]
        held_day = self.day.ravel()[there].astype(np.int64)
        held_known = self.known.ravel()[there] if self.known is not None else np.zeros(len(at), np.int64)
        twice = (held_day == day[at]) & (held_known == known[at])
        older = (day[at] < held_day) | ((day[at] == held_day) & (known[at] < held_known))
        wins[at[older | twice]] = False
        earlier = rows.iloc[at].assign(row=self.position.ravel()[there], date=dates_of(held_day))
        if twice.any():
            first = earlier[twice & (self.position.ravel()[there] >= 0)]
            self._refuse_twice(pd.concat([first, rows.iloc[at[twice]]]), bad_rows)
            self.position.ravel()[there[twice]] = _REFUSED
            self.values.reshape(-1, len(self.fields))[there[twice]] = np.nan
        lost = earlier[~older & ~twice]
        self._note_superseded(pd.concat([rows.iloc[at[older]], lost[lost["row"] >= 0]]))

    def _refuse_twice(self, rows: pd.DataFrame, bad_rows: BadRows, kind: str = "row") -> None:
        what = f"more than one {kind} for a date and asset"
        if bad_rows == "raise":
            remedy = "Give their sum" if kind == "dividend" else "Keep one of each"
            raise DataError(f"{what}: {name_rows(rows)}. {remedy}, or pass bad_rows='quarantine' to leave them out.")
        self.findings.append(finding("refused", rows.assign(detail=what)))

    def _note_superseded(self, rows: pd.DataFrame) -> None:
        if len(rows):
            self.findings.append(finding("superseded", rows.assign(detail="a later close is known at the same as-of")))

    def drop_superseded(self, assets: Sequence[str]) -> None:
        """Takes out what became known only after a later session, or is known already: a row never goes back in time.

        That happens where rows are known late (`known_at`).
        """
        self.day[self.position == _REFUSED] = NO_SESSION
        if self.known is None:
            return
        latest = np.maximum.accumulate(self.day, axis=0)
        before = np.vstack([np.full((1, latest.shape[1]), NO_SESSION, dtype=latest.dtype), latest[:-1]])
        t, n = np.nonzero((self.day != NO_SESSION) & (self.day <= before))
        detail = np.where(self.day[t, n] == before[t, n], "a revision of a known close", "known after a later close")
        if len(t):
            late = pd.DataFrame({"asset": np.array(assets, dtype=object)[n], "date": dates_of(self.day[t, n])})
            self.findings.append(finding("superseded", late.assign(row=self.position[t, n], detail=detail)))
            self.values[t, n] = np.nan
            self.day[t, n] = NO_SESSION

    def actions(self, assets: Sequence[str], bad_rows: BadRows) -> dict[str, np.ndarray]:
        """The corporate actions as `adjust` takes them, none from a refused row."""

        def refuse(rows: pd.DataFrame, kind: str) -> None:
            """Raises for rows that state the same action, or notes each."""
            self._refuse_twice(rows.assign(asset=np.array(assets, dtype=object)[rows["n"]]), bad_rows, kind)

        noted = pd.concat([clean.no_findings(), *self.findings])
        refused = noted.loc[noted["kind"] == "refused", "row"]
        priced = ~np.isnan(self.values[:, :, self.fields.index("close")])
        since = dates_of(self.day[priced.argmax(0), np.arange(priced.shape[1])])
        grids = self.events.grids(self.day.shape, since, refused, refuse)
        return grids if self.ratio is None else {**grids, "adj_close": self.ratio}

    def note_delisted(self, last: Mapping[str, pd.Timestamp], assets: Sequence[str]) -> None:
        """Lists prices after the last date of assets that are known to have been delisted."""
        limit = day_number([last.get(asset, pd.Timestamp.max) for asset in assets])
        t, n = np.nonzero(self.day > limit)
        late = pd.DataFrame({"asset": np.array(assets, dtype=object)[n], "date": dates_of(self.day[t, n])})
        detail = [f"a price after its delisting on {last[asset]:%Y-%m-%d}" for asset in late["asset"]]
        self.findings.append(finding("after_delisting", late.assign(row=self.position[t, n], detail=detail)))

    def note_jumps(
        self, close: np.ndarray, limit: float, assets: Sequence[str], latest: np.ndarray | None = None
    ) -> None:
        """Lists one-session moves beyond a limit; `latest` are the closes before the first row."""
        found = []
        latest = np.full(close.shape[1], np.nan) if latest is None else latest
        for t in range(0, len(close), 512):
            block = close[t : t + 512]
            filled = np.where(np.isnan(block), 0, np.arange(1, len(block) + 1)[:, None])
            filled = np.maximum.accumulate(filled, axis=0)  # 0 is the close carried from the block before
            stacked = np.vstack([latest, block])
            carried = np.take_along_axis(stacked, np.vstack([np.zeros((1, close.shape[1]), int), filled]), axis=0)
            returns = block / carried[:-1] - 1
            with np.errstate(invalid="ignore"):
                row, n = np.nonzero(np.abs(returns) > limit)
            found.append((row + t, n, returns[row, n]))
            latest = carried[-1]
        rows, columns, sizes = (np.concatenate(parts) for parts in zip(*found, strict=True))
        at = (rows, columns)
        jumps = pd.DataFrame({"asset": np.array(assets, dtype=object)[columns], "date": dates_of(self.day[at])})
        detail = [f"a return of {size:+.1%}" for size in sizes]
        self.findings.append(finding("jump", jumps.assign(row=self.position[at], detail=detail)))
