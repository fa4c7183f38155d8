"""Builds a panel's tensors from rows of prices: a survey of what is there, then one pass that puts it in place."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch

from qtorch.data import clean
from qtorch.data.adjust import UNADJUSTED, adjust
from qtorch.data.calendars import NO_SESSION, Sessions, at_clock, code_of, dates_of, day_number, sessions
from qtorch.data.cells import Cells
from qtorch.data.clean import finding
from qtorch.data.errors import DataError, name_rows
from qtorch.data.rows import ACTIONS, KEYS, Rows
from qtorch.data.rules import Rules
from qtorch.data.sinks import DiskSink, MemorySink
from qtorch.data.states import last_listed_row, last_price, states
from qtorch.data.survey import Survey, survey


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
    return assemble(survey(rows, rules, advance), rows, rules, sink, advance)


def assemble(
    found: Survey, rows: Rows, rules: Rules, sink: MemorySink | DiskSink, advance: Callable[[int], None]
) -> dict[str, Any]:
    """The same, of rows that have been surveyed."""
    assets = tuple(found.code_of)
    delisted = rules.delistings({*assets, *found.silent})
    axis = Axis.of(found, rules)
    dates, is_session = axis.dates, torch.from_numpy(axis.is_session)
    observed = torch.zeros(len(dates), len(assets), dtype=torch.bool)
    findings = [clean.no_findings(), *found.findings]
    fields = rules.kept_fields(rows)
    columns = (*KEYS, *fields, *ACTIONS)
    with sink.blocks(rows, found.codes, len(assets), columns) as blocks:
        for block, part in blocks:
            cells = Cells.empty(rows, rules, fields, (len(dates), block.stop - block.start))
            for _, chunk in part.chunks(columns):
                place(chunk, rules, found, block.start, axis, cells)
                advance(len(chunk))
            names = assets[block]
            cells.drop_superseded(names)
            if cells.adjusts:
                adjust(cells.values, cells.fields, cells.actions(names, rules.bad_rows), names, dates)
            close = cells.values[:, :, cells.fields.index("close")]
            cells.note_jumps(close, rules.jump, names)
            cells.note_delisted(delisted or {}, names)
            observed[:, block] = torch.from_numpy(~np.isnan(close))
            findings += cells.findings
            sink.put("values", cells.values, len(assets))
            sink.put("session_day", cells.day, len(assets))
    kept = kept_rows(observed, is_session)
    values, session_day = (sink.tensor(name)[kept] for name in ("values", "session_day"))
    return attributes(found, axis, kept, observed[kept], values, session_day, tuple(cells.fields), delisted, findings)


def attributes(
    found: Survey,
    axis: "Axis",
    kept: slice | np.ndarray,
    observed: torch.Tensor,
    values: torch.Tensor,
    session_day: torch.Tensor,
    fields: tuple[str, ...],
    delisted: Mapping[str, pd.Timestamp] | None,
    findings: list[pd.DataFrame],
) -> dict[str, Any]:
    """A panel's attributes from the tensors of its rows, which are some of the axis's."""
    assets, codes = tuple(found.code_of), tuple(axis.grids)
    is_session = torch.from_numpy(axis.is_session[kept])
    exchange_index = [codes.index(code) for code in found.exchange_of]
    last_row = None
    if delisted is not None:
        last_row = last_listed_row(delisted, assets, axis.dates[kept], last_price(observed))
    return {
        "values": values,
        "state": states(observed, is_session, exchange_index, last_row),
        "dates": axis.dates[kept],
        "assets": assets,
        "fields": fields,
        "exchanges": tuple(found.exchange_of),
        "as_of": axis.as_of[kept],
        "session_day": session_day,
        "exchange_codes": codes,
        "exchange_is_session": is_session,
        "exchange_next_day": torch.from_numpy(axis.next_day[kept]),
        "exchange_close": torch.from_numpy(axis.close[kept]),
        "delisted": None if delisted is None else {asset: str(date) for asset, date in delisted.items()},
        "findings": pd.concat(findings, ignore_index=True),
    }


@dataclass(frozen=True)
class Axis:
    """The rows that a panel may have, and how each exchange's sessions fall on them.

    Attributes:
        dates: of the rows.
        as_of: UTC instants up to which they know the world.
        grids: by exchange code.
    """

    dates: pd.DatetimeIndex
    as_of: pd.DatetimeIndex
    grids: Mapping[str, "_Grid"]

    @classmethod
    def of(cls, found: Survey, rules: Rules) -> "Axis":
        """All dates between the first price and the last."""
        supplied = {code_of(calendar): calendar for calendar in rules.calendars}
        calendars = {code: sessions(supplied.get(code, code), *_span(days)) for code, days in found.days.items()}
        dates = _union(found, calendars, rules.off_calendar)
        as_of = _as_of(dates, calendars, rules.as_of)
        grids = {code: _Grid.of(calendar, as_of, found.days[code]) for code, calendar in calendars.items()}
        return cls(dates, as_of, grids)

    def first_row(self, days: Mapping[str, np.ndarray]) -> int:
        """The first row that knows a close of some days, given by exchange."""
        return min(int(self.grids[code].row[of - self.grids[code].first].min()) for code, of in days.items())

    @property
    def is_session(self) -> np.ndarray:
        """By row and exchange."""
        return np.stack([grid.has_session for grid in self.grids.values()], axis=1)

    @property
    def next_day(self) -> np.ndarray:
        """By row and exchange."""
        return np.stack([grid.next_day for grid in self.grids.values()], axis=1)

    @property
    def close(self) -> np.ndarray:
        """By row and exchange."""
        return np.stack([grid.latest for grid in self.grids.values()], axis=1)


@dataclass(frozen=True)
class _Grid:
    """How one exchange's sessions fall on the panel's rows; by day from `first` on."""

    first: int
    row: np.ndarray  # the first row that knows the close of each day; T if none does
    close: np.ndarray  # the UTC instant of the close of each day, in microseconds
    is_session_day: np.ndarray
    has_session: np.ndarray  # by row
    next_day: np.ndarray  # by row
    latest: np.ndarray  # the instant of the last close known, in minutes; by row

    @classmethod
    def of(cls, calendar: Sessions, as_of: pd.DatetimeIndex, days: np.ndarray) -> "_Grid":
        first = int(days.min())
        every = pd.date_range(*_span(days), unit="us")
        close = calendar.close_of(every)
        known = as_of.searchsorted(calendar.closes)  # the first row that knows each close
        has_session = np.zeros(len(as_of), dtype=bool)
        has_session[known[known < len(as_of)]] = True
        upcoming = calendar.closes.searchsorted(as_of, side="right")  # the first session not yet known
        minutes = (calendar.closes.asi8 // 60_000_000).astype(np.int32)
        latest = np.where(upcoming > 0, minutes[np.maximum(upcoming, 1) - 1], NO_SESSION)
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
            latest,
        )


def place(
    chunk: pd.DataFrame, rules: Rules, found: Survey, first: int, axis: Axis, cells: Cells, first_row: int = 0
) -> None:
    """Checks a chunk's rows and puts them where they become known.

    Args:
        chunk: rows as they were read.
        rules: how they are read.
        found: by the survey of all rows.
        first: the number of the cells' first asset.
        axis: of all rows.
        cells: take the rows.
        first_row: the row of the axis that is the cells' first; no price belongs before.
    """
    as_of, grids = axis.as_of, axis.grids
    actions = [name for name in ACTIONS if name in chunk and rules.adjust]
    given = [name for name in cells.fields if name in chunk]
    rows, refused = clean.usable(chunk, [*given, *actions], rules.exchange, rules.bad_rows)
    if actions:
        rows = rows.assign(**{UNADJUSTED: rows["close"]})
    cells.findings.append(refused)
    n = found.codes(rows["asset"]) - first  # below 0 where an asset has no price anywhere
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
        cells.findings.append(finding("off_calendar", rows[stray].assign(detail=detail)))
    late = (t == len(as_of)) & priced
    if late.any():
        detail = f"it is known after {as_of[-1]:%Y-%m-%d %H:%M} UTC"
        cells.findings.append(finding("not_yet_known", rows[late].assign(detail=detail)))
    on_time = t < len(as_of)
    cells.events.note(rows[on_time], t[on_time], n[on_time])
    put = on_time & priced & ~(stray & (rules.off_calendar == "drop"))
    cells.put(rows[put], t[put] - first_row, n[put], rules.bad_rows)


def _union(
    found: Survey, calendars: Mapping[str, Sessions], off_calendar: Literal["keep", "drop", "raise"]
) -> pd.DatetimeIndex:
    """All sessions of all exchanges between the first and the last price, and the days of prices off the calendar."""
    own = {code: days[np.isin(days, day_number(calendars[code].days))] for code, days in found.days.items()}
    days = np.unique(np.concatenate(list((own if off_calendar == "drop" else found.days).values())))
    if not len(days):
        raise DataError("every price is on a day on which its exchange is closed. Correct the exchange codes.")
    for calendar in calendars.values():
        sessions_of = day_number(calendar.days)
        days = np.union1d(days, sessions_of[(sessions_of >= days[0]) & (sessions_of <= days[-1])])
    return pd.DatetimeIndex(dates_of(days), name="date")


def _as_of(dates: pd.DatetimeIndex, calendars: Mapping[str, Sessions], as_of: str | None) -> pd.DatetimeIndex:
    if as_of is not None:
        return at_clock(dates, as_of)
    closes = np.stack([calendar.close_of(dates).asi8 for calendar in calendars.values()])
    return pd.DatetimeIndex(closes.max(axis=0).astype("M8[us]"), tz="UTC")


def kept_rows(observed: torch.Tensor, is_session: torch.Tensor) -> slice | np.ndarray:
    """The rows from the first price to the last that are a session or hold a price."""
    priced = observed.any(1)
    rows = priced.nonzero().flatten()
    if not len(rows):
        raise DataError("no price is known at any as-of date. Give more dates, or a later as_of.")
    span = slice(int(rows[0]), int(rows[-1]) + 1)
    empty = ~(priced | is_session.any(1))[span]
    return np.arange(span.start, span.stop)[~empty.numpy()] if empty.any() else span


def _span(days: np.ndarray) -> tuple[pd.Timestamp, pd.Timestamp]:
    """The first and the last date of days."""
    first, last = dates_of([days.min(), days.max()])
    return pd.Timestamp(first), pd.Timestamp(last)
