"""Builds a panel's tensors from rows of prices: a survey of what is there, then one pass that puts it in place."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch

from qtorch.data import clean
from qtorch.data.adjust import UNADJUSTED, Events, adjust
from qtorch.data.calendars import AnyCalendar, Sessions, at_clock, code_of, sessions
from qtorch.data.clean import BadRows, finding
from qtorch.data.errors import DataError, listing, name_rows
from qtorch.data.rows import ACTIONS, FIELDS, KEYS, Rows, label
from qtorch.data.sinks import DiskSink, MemorySink
from qtorch.data.states import last_listed_row, last_price, states

EPOCH = pd.Timestamp("1970-01-01")
_REFUSED = -2  # the position of a cell that two rows claim


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


@dataclass
class Survey:
    """What rows hold: which assets, on which exchanges and days; and rows whose dates were out of order."""

    code_of: dict[str, int] = field(default_factory=dict)
    exchange_of: list[str] = field(default_factory=list)
    days: dict[str, np.ndarray] = field(default_factory=dict)
    findings: list[pd.DataFrame] = field(default_factory=list)
    silent: set[str] = field(default_factory=set)

    def codes(self, assets: pd.Series) -> np.ndarray:
        """The number of each row's asset, -1 if it has no price anywhere."""
        own = np.array([self.code_of.get(str(name), -1) for name in assets.cat.categories], dtype=np.int64)
        return own[assets.cat.codes.to_numpy()]


def build(rows: Rows, rules: Rules, sink: MemorySink | DiskSink, advance: Callable[[int], None]) -> dict[str, Any]:
    """The attributes of a panel.

    Args:
        rows: the prices.
        rules: how they are read.
        sink: takes the panel's large tensors, all assets at once in memory or some at a time on disk.
        advance: told how many rows have been read; each is read twice.

    Raises:
        DataError: see `qtorch.data.Panel.from_frame`.
    """
    survey = _survey(rows, rules, advance)
    assets = tuple(survey.code_of)
    delisted = None if rules.delisted is None else _delistings(rules.delisted, {*assets, *survey.silent})
    supplied = {code_of(calendar): calendar for calendar in rules.calendars}
    calendars = {
        code: sessions(supplied.get(code, code), _date(days.min()), _date(days.max()))
        for code, days in survey.days.items()
    }
    dates = _union(survey, calendars, rules.off_calendar)
    as_of = _as_of(dates, calendars, rules.as_of)
    grids = [_Grid.of(calendar, as_of, survey.days[code]) for code, calendar in calendars.items()]
    exchange_index = [list(calendars).index(code) for code in survey.exchange_of]
    grid_of = dict(zip(calendars, grids, strict=True))
    is_session = torch.from_numpy(np.stack([grid.has_session for grid in grids], axis=1))
    observed = torch.zeros(len(dates), len(assets), dtype=torch.bool)
    findings = [clean.no_findings(), *survey.findings]
    fields = _fields(rows, rules)
    columns = (*KEYS, *fields, *ACTIONS)
    with sink.blocks(rows, survey.codes, len(assets), columns) as blocks:
        for block, part in blocks:
            target = _Target.of(rows, rules, fields, (len(dates), block.stop - block.start))
            for _, chunk in part.chunks(columns):
                _place(chunk, rules, survey, block.start, grid_of, as_of, target)
                advance(len(chunk))
            names = assets[block]
            target.drop_superseded(names)
            if target.adjusts:
                adjust(target.values, target.fields, target.actions(names, rules.bad_rows), names, dates)
            close = target.values[:, :, target.fields.index("close")]
            target.note_jumps(close, rules.jump, names)
            target.note_delisted(delisted or {}, names)
            observed[:, block] = torch.from_numpy(~np.isnan(close))
            findings += target.findings
            sink.put("values", target.values, len(assets))
            sink.put("session_day", target.day, len(assets))
    kept = _kept_rows(observed, is_session)
    price = last_price(observed[kept])
    last_row = None if delisted is None else last_listed_row(delisted, assets, dates[kept], price)
    return {
        "values": sink.tensor("values")[kept],
        "state": states(observed[kept], is_session[kept], exchange_index, last_row),
        "dates": dates[kept],
        "assets": assets,
        "fields": tuple(target.fields),
        "exchanges": tuple(survey.exchange_of),
        "as_of": as_of[kept],
        "session_day": sink.tensor("session_day")[kept],
        "exchange_codes": tuple(calendars),
        "exchange_is_session": is_session[kept],
        "exchange_next_day": torch.from_numpy(np.stack([grid.next_day for grid in grids], axis=1))[kept],
        "delisted": None if delisted is None else {asset: str(date) for asset, date in delisted.items()},
        "findings": pd.concat(findings, ignore_index=True),
    }


def _fields(rows: Rows, rules: Rules) -> list[str]:
    """The numeric columns that the panel keeps."""
    reserved = [name for name in rules.fields if name in (*KEYS, *ACTIONS, "row")]
    if reserved or len(set(rules.fields)) < len(rules.fields):
        raise DataError(
            f"fields={tuple(rules.fields)}: each further numeric column once, and none of "
            f"{listing((*KEYS, *ACTIONS, 'row'), most=10)}. Give a copy of such a column another name to keep it."
        )
    absent = [name for name in rules.fields if name not in rows.columns]
    if absent:
        raise DataError(f"no column {listing(map(repr, absent))} of fields={tuple(rules.fields)}.")
    actions = [name for name in ACTIONS if rules.adjust and name in rows.columns]
    if actions and UNADJUSTED in rows.columns:
        raise DataError(
            f"a column {UNADJUSTED!r} beside {listing(map(repr, actions))}: prices that are adjusted already would be "
            f"adjusted again. Drop {UNADJUSTED!r} if the prices are as they were traded, else pass adjust=False."
        )
    return [name for name in FIELDS if name in rows.columns] + [name for name in rules.fields if name not in FIELDS]


def _delistings(delisted: Mapping[Any, str | pd.Timestamp], known: set[str]) -> dict[str, pd.Timestamp]:
    """The last date of each asset that is known to have been delisted."""
    unknown = [asset for asset in delisted if str(asset) not in known]
    if unknown:
        raise DataError(
            f"no row is of {listing(map(repr, unknown))} in delisted. Correct the names, or leave them out."
        )
    return {str(asset): label(date, f"delisted[{asset!r}]") for asset, date in delisted.items()}


def _survey(rows: Rows, rules: Rules, advance: Callable[[int], None]) -> Survey:
    """Reads who trades where and when; the assets in alphabetical order."""
    pairs: set[tuple[str, str]] = set()
    days: dict[str, list[np.ndarray]] = {}
    found = Survey()
    last: dict[str, int] = {}
    part = -1
    for number, chunk in rows.chunks((*KEYS, "close")):
        advance(len(chunk))
        if number != part:
            part, last = number, {}
        kept, _ = clean.usable(chunk, ["close"], rules.exchange, rules.bad_rows)
        _note_order(kept, last, found, rules.bad_rows)
        there = kept[kept["close"].notna()]
        found.silent.update(kept["asset"].cat.categories)
        asset, code = there["asset"].cat, there["exchange"].cat
        seen_pairs = pd.unique(asset.codes.to_numpy().astype(np.int64) * len(code.categories) + code.codes.to_numpy())
        for k in map(int, seen_pairs):
            pairs.add((asset.categories[k // len(code.categories)], code.categories[k % len(code.categories)]))
        for i, name in enumerate(code.categories):
            seen = np.unique(day_number(there["date"].to_numpy()[code.codes.to_numpy() == i]))
            if len(seen):
                days.setdefault(name, []).append(seen)
    if not pairs:
        raise DataError("no row holds a close: nothing to build a panel from.")
    ordered = sorted(pairs)
    names = [asset for asset, _ in ordered]
    clean.one_exchange(names, np.array([name in names[:i][-1:] for i, name in enumerate(names)]))
    found.code_of = {asset: i for i, asset in enumerate(names)}
    found.exchange_of = [code for _, code in ordered]
    found.days = {code: np.unique(np.concatenate(days[code])) for code in dict.fromkeys(found.exchange_of)}
    found.silent -= set(names)
    if found.silent:
        empty = pd.DataFrame({"asset": sorted(found.silent), "detail": "no row of it holds a close"})
        found.findings.append(finding("no_price", empty.assign(date=pd.Series(pd.NaT, index=empty.index), row=-1)))
    return found


def _note_order(rows: pd.DataFrame, last: dict[str, int], found: Survey, bad_rows: BadRows) -> None:
    """Refuses or notes rows whose date is before that of the asset's row above."""
    codes = rows["asset"].cat.codes.to_numpy()
    day = day_number(rows["date"].to_numpy())
    order = np.argsort(codes, kind="stable")
    first = np.flatnonzero(np.diff(codes[order], prepend=-1))
    before = np.empty(len(day), dtype=np.int64)
    before[order] = np.concatenate([[0], day[order][:-1]])
    categories = rows["asset"].cat.categories
    for i in first:
        before[order[i]] = last.get(categories[codes[order[i]]], day[order[i]])
    ends = np.append(first[1:], len(order)) - 1
    for i in ends if len(order) else ():
        last[categories[codes[order[i]]]] = int(day[order[i]])
    backwards = rows[day < before]
    if len(backwards) and bad_rows == "raise":
        raise DataError(
            f"dates out of order: {name_rows(backwards)}. "
            "Sort with frame.sort_values(['asset', 'date']), or pass bad_rows='quarantine' to have it sorted."
        )
    if len(backwards):
        found.findings.append(finding("sorted", backwards.assign(detail="its date was before the row's above")))


@dataclass(frozen=True)
class _Grid:
    """How one exchange's sessions fall on the panel's rows; by day from `first` on."""

    first: int
    row: np.ndarray  # the first row that knows the close of each day; T if none does
    close: np.ndarray  # the UTC instant of the close of each day, in microseconds
    is_session_day: np.ndarray
    has_session: np.ndarray  # by row
    next_day: np.ndarray  # by row

    @classmethod
    def of(cls, calendar: Sessions, as_of: pd.DatetimeIndex, days: np.ndarray) -> "_Grid":
        first = int(days.min())
        every = pd.date_range(_date(first), _date(days.max()), unit="us")
        close = calendar.close_of(every)
        known = as_of.searchsorted(calendar.closes)  # the first row that knows each close
        has_session = np.zeros(len(as_of), dtype=bool)
        has_session[known[known < len(as_of)]] = True
        upcoming = calendar.closes.searchsorted(as_of, side="right")  # the first session not yet known
        beyond = upcoming >= len(calendar.days)
        next_day = day_number(calendar.days)[np.minimum(upcoming, len(calendar.days) - 1)]
        if beyond.any():  # the calendar ends with the data: the next weekday is the best that is known
            today = day_number(as_of.tz_localize(None).normalize())
            weekday = (today + 3) % 7  # 1970-01-01 was a Thursday; Monday is 0
            next_day = np.where(beyond, today + np.where(weekday == 4, 3, np.where(weekday == 5, 2, 1)), next_day)
        return cls(
            first,
            as_of.searchsorted(close),
            close.asi8,
            every.isin(calendar.days),
            has_session,
            next_day.astype(np.int32),
        )


@dataclass
class _Target:
    """The arrays that rows are put into."""

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
    def of(cls, rows: Rows, rules: Rules, fields: list[str], shape: tuple[int, int]) -> "_Target":
        actions = [name for name in ACTIONS if rules.adjust and name in rows.columns]
        fields = fields + ([UNADJUSTED] if actions else [])
        return cls(
            fields,
            np.full((*shape, len(fields)), np.nan),
            np.full(shape, -1, dtype=np.int32),
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
        earlier = rows.iloc[at].assign(row=self.position.ravel()[there], date=_dates(held_day))
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
        self.day[self.position == _REFUSED] = -1
        if self.known is None:
            return
        latest = np.maximum.accumulate(self.day, axis=0)
        before = np.vstack([np.full((1, latest.shape[1]), -1, dtype=latest.dtype), latest[:-1]])
        t, n = np.nonzero((self.day >= 0) & (self.day <= before))
        detail = np.where(self.day[t, n] == before[t, n], "a revision of a known close", "known after a later close")
        if len(t):
            late = pd.DataFrame({"asset": np.array(assets, dtype=object)[n], "date": _dates(self.day[t, n])})
            self.findings.append(finding("superseded", late.assign(row=self.position[t, n], detail=detail)))
            self.values[t, n] = np.nan
            self.day[t, n] = -1

    def actions(self, assets: Sequence[str], bad_rows: BadRows) -> dict[str, np.ndarray]:
        """The corporate actions as `adjust` takes them, none from a refused row."""

        def refuse(rows: pd.DataFrame, kind: str) -> None:
            """Raises for rows that state the same action, or notes each."""
            self._refuse_twice(rows.assign(asset=np.array(assets, dtype=object)[rows["n"]]), bad_rows, kind)

        noted = pd.concat([clean.no_findings(), *self.findings])
        refused = noted.loc[noted["kind"] == "refused", "row"]
        priced = ~np.isnan(self.values[:, :, self.fields.index("close")])
        since = _dates(self.day[priced.argmax(0), np.arange(priced.shape[1])])
        grids = self.events.grids(self.day.shape, since, refused, refuse)
        return grids if self.ratio is None else {**grids, "adj_close": self.ratio}

    def note_delisted(self, last: Mapping[str, pd.Timestamp], assets: Sequence[str]) -> None:
        """Lists prices after the last date of assets that are known to have been delisted."""
        limit = day_number([last.get(asset, pd.Timestamp.max) for asset in assets])
        t, n = np.nonzero(self.day > limit)
        late = pd.DataFrame({"asset": np.array(assets, dtype=object)[n], "date": _dates(self.day[t, n])})
        detail = [f"a price after its delisting on {last[asset]:%Y-%m-%d}" for asset in late["asset"]]
        self.findings.append(finding("after_delisting", late.assign(row=self.position[t, n], detail=detail)))

    def note_jumps(self, close: np.ndarray, limit: float, assets: Sequence[str]) -> None:
        """Lists one-session moves beyond a limit."""
        found = []
        latest = np.full(close.shape[1], np.nan)
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
        jumps = pd.DataFrame({"asset": np.array(assets, dtype=object)[columns], "date": _dates(self.day[at])})
        detail = [f"a return of {size:+.1%}" for size in sizes]
        self.findings.append(finding("jump", jumps.assign(row=self.position[at], detail=detail)))


def _place(
    chunk: pd.DataFrame,
    rules: Rules,
    survey: Survey,
    first: int,
    grids: Mapping[str, _Grid],
    as_of: pd.DatetimeIndex,
    target: _Target,
) -> None:
    """Checks a chunk's rows and puts them where they become known."""
    actions = [name for name in ACTIONS if name in chunk and rules.adjust]
    given = [name for name in target.fields if name in chunk]
    rows, refused = clean.usable(chunk, [*given, *actions], rules.exchange, rules.bad_rows)
    if actions:
        rows = rows.assign(**{UNADJUSTED: rows["close"]})
    target.findings.append(refused)
    n = survey.codes(rows["asset"]) - first  # below 0 where an asset has no price anywhere
    priced = rows["close"].notna().to_numpy()
    eventful = np.zeros(len(rows), dtype=bool)
    for name in {"split", "dividend"} & set(actions):
        eventful |= rows[name].fillna(0).to_numpy() > 0
    wanted = (n >= 0) & (priced | eventful)
    rows, n, priced = rows[wanted], n[wanted], priced[wanted]
    day = day_number(rows["date"].to_numpy())
    t = np.empty(len(rows), dtype=np.int64)
    stray = np.zeros(len(rows), dtype=bool)
    codes = rows["exchange"].cat
    for i, name in enumerate(codes.categories):
        of = np.flatnonzero(codes.codes.to_numpy() == i)
        if not len(of):
            continue
        grid = grids[name]
        within = np.clip(day[of] - grid.first, 0, len(grid.row) - 1)  # an event without a price may lie outside
        t[of] = grid.row[within]
        stray[of] = ~grid.is_session_day[within]
        if "known_at" in rows:
            instant = np.maximum(grid.close[within], rows["known_at"].iloc[of].astype("int64").to_numpy())
            t[of] = as_of.asi8.searchsorted(instant)
        t[of[day[of] - grid.first >= len(grid.row)]] = len(as_of)  # an event still to come, after the last price
    stray &= priced
    if stray.any():
        if rules.off_calendar == "raise":
            raise DataError(
                f"prices on days on which the exchange is closed: {name_rows(rows[stray])}. "
                "Correct the exchange code or the dates, or pass off_calendar='keep' or 'drop'."
            )
        detail = (
            f"a price on a day on which the exchange is closed, {'dropped' if rules.off_calendar == 'drop' else 'kept'}"
        )
        target.findings.append(finding("off_calendar", rows[stray].assign(detail=detail)))
    late = (t == len(as_of)) & priced
    if late.any():
        detail = f"it is known after {as_of[-1]:%Y-%m-%d %H:%M} UTC"
        target.findings.append(finding("not_yet_known", rows[late].assign(detail=detail)))
    on_time = t < len(as_of)
    target.events.note(rows[on_time], t[on_time], n[on_time])
    put = on_time & priced & ~(stray & (rules.off_calendar == "drop"))
    target.put(rows[put], t[put], n[put], rules.bad_rows)


def _union(
    survey: Survey, calendars: Mapping[str, Sessions], off_calendar: Literal["keep", "drop", "raise"]
) -> pd.DatetimeIndex:
    """All sessions of all exchanges between the first and the last price, and the days of prices off the calendar."""
    own = {code: days[np.isin(days, day_number(calendars[code].days))] for code, days in survey.days.items()}
    days = np.unique(np.concatenate(list((own if off_calendar == "drop" else survey.days).values())))
    if not len(days):
        raise DataError("every price is on a day on which its exchange is closed. Correct the exchange codes.")
    for calendar in calendars.values():
        sessions_of = day_number(calendar.days)
        days = np.union1d(days, sessions_of[(sessions_of >= days[0]) & (sessions_of <= days[-1])])
    return pd.DatetimeIndex(_dates(days), name="date")


def _as_of(dates: pd.DatetimeIndex, calendars: Mapping[str, Sessions], as_of: str | None) -> pd.DatetimeIndex:
    if as_of is not None:
        return at_clock(dates, as_of)
    closes = np.stack([calendar.close_of(dates).asi8 for calendar in calendars.values()])
    return pd.DatetimeIndex(closes.max(axis=0).astype("M8[us]"), tz="UTC")


def _kept_rows(observed: torch.Tensor, is_session: torch.Tensor) -> slice | np.ndarray:
    """The rows from the first price to the last that are a session or hold a price."""
    priced = observed.any(1)
    rows = priced.nonzero().flatten()
    if not len(rows):
        raise DataError("no price is known at any as-of date. Give more dates, or a later as_of.")
    span = slice(int(rows[0]), int(rows[-1]) + 1)
    empty = ~(priced | is_session.any(1))[span]
    return np.arange(span.start, span.stop)[~empty.numpy()] if empty.any() else span


def day_number(dates: Any) -> np.ndarray:
    """Days since 1970."""
    return np.asarray(dates).astype("M8[D]").astype(np.int64)


def _date(day: Any) -> pd.Timestamp:
    return EPOCH + pd.Timedelta(days=int(day))


def _dates(days: np.ndarray) -> np.ndarray:
    return days.astype("M8[D]").astype("M8[us]")
