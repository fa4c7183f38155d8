"""Exchange sessions and the UTC instants at which their closes are known."""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Union
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import pandas as pd
from pandas.tseries.holiday import AbstractHolidayCalendar, EasterMonday, GoodFriday, Holiday

from qtorch.data.errors import DataError

if TYPE_CHECKING:
    from exchange_calendars import ExchangeCalendar

DAYS_AHEAD = 31  # the longest closure of any exchange is shorter (XSHG's and XHKG's New Year weeks, 9/11: a week)
NO_SESSION = int(np.iinfo(np.int32).min)  # the day number, earlier than any date's, of a cell without a session's close
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


@dataclass(frozen=True)
class Sessions:
    """An exchange's sessions from `start` to `end` and the first few after it.

    Attributes:
        exchange: the ISO 10383 market identifier code (MIC), or the code of a calendar of the user's.
        days: session labels, tz-naive, ascending; they reach beyond `end` by up to a month.
        closes: the UTC instant of each session's close, daylight saving and early closes included.
        zone: the exchange's time zone.
        opens: the UTC instant of each session's open, late opens included; None where the calendar knows none.
    """

    exchange: str
    days: pd.DatetimeIndex
    closes: pd.DatetimeIndex
    zone: str
    opens: pd.DatetimeIndex | None = None

    def close_of(self, days: pd.DatetimeIndex) -> pd.DatetimeIndex:
        """The UTC close of any days: a session's own; on another day, the exchange's usual wall-clock close."""
        local = self.closes.tz_convert(self.zone).tz_localize(None) - self.days
        usual = _localize(days + local.value_counts().index[0], self.zone)
        own = self.days.get_indexer(days)
        return usual.where(own < 0, self.closes[own])


@dataclass(frozen=True)
class Calendar:
    """A market that `exchange_calendars` does not know: a currency market, a fixing, a desk's own.

    Attributes:
        code: what the data's exchange column calls it.
        close: wall-clock "HH:MM" at which a session's price is known; "24:00" is the midnight that ends the day.
        zone: its time zone.
        weekdays: on which there are sessions, of Mon, Tue, Wed, Thu, Fri, Sat and Sun.
        holidays: dates without a session, or pandas' rules for them.
        early_closes: wall-clock "HH:MM" by date.
        first: the first date for which the calendar holds; None has no bound.
        last: the last date for which it holds; None has no bound.
        open: wall-clock "HH:MM" at which a session opens; None where that is not known, or on the day before.
        late_opens: wall-clock "HH:MM" by date.

    Raises:
        DataError: a time, zone, weekday or date cannot be read; a date has a time of day or a time zone; `first` is
            after `last`; an early close or late open between them is on a day without a session; a session opens after
            its close, or late without a usual open.

    Example:
        >>> crypto = Calendar("COIN", close="24:00", weekdays="Mon Tue Wed Thu Fri Sat Sun")
        >>> sessions(crypto, pd.Timestamp("2021-01-01"), pd.Timestamp("2021-01-03")).closes[0]
        Timestamp('2021-01-02 00:00:00+0000', tz='UTC')
    """

    code: str
    close: str = "17:00"
    zone: str = "UTC"
    weekdays: str = "Mon Tue Wed Thu Fri"
    holidays: tuple[str | pd.Timestamp, ...] | AbstractHolidayCalendar = ()
    early_closes: Mapping[str, str] = field(default_factory=dict)
    first: str | pd.Timestamp | None = None
    last: str | pd.Timestamp | None = None
    open: str | None = None
    late_opens: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Checks the settings."""
        for text in (self.close, *self.early_closes.values(), self.open, *self.late_opens.values()):
            if text is not None:
                clock(text)
        unknown = set(self.weekdays.split()) - set(_WEEKDAYS)
        if unknown or not self.weekdays.split():
            raise DataError(
                f"calendar {self.code}: weekdays={self.weekdays!r} must name some of {' '.join(_WEEKDAYS)}."
            )
        check_zone(self.zone)
        where, (low, high) = f"calendar {self.code}", _bounds(self)
        if low is not None and high is not None and low > high:
            raise DataError(f"{where}: first {low:%Y-%m-%d} is after last {high:%Y-%m-%d}. Give the earlier one first.")
        if not isinstance(self.holidays, AbstractHolidayCalendar):
            for day in self.holidays:
                _date(day, f"{where}: holiday")
        for kind, special in (("early close", self.early_closes), ("late open", self.late_opens)):
            dates = [_date(day, f"{where}: {kind}") for day in special]
            open_days = self._days(min(dates), max(dates)) if dates else ()
            for day in dates:
                if day not in open_days and (low is None or low <= day) and (high is None or day <= high):
                    raise DataError(
                        f"{where}: {kind} {day:%Y-%m-%d} ({day:%A}) is no session. Leave it out, or correct the date, "
                        "the weekdays or the holidays."
                    )
        self._check_opens(where)

    def _check_opens(self, where: str) -> None:
        """Refuses opens at or after their closes."""
        if self.open is None:
            if self.late_opens:
                raise DataError(f"{where}: it has late opens and no open. Give the usual one too, open='09:30'.")
            return
        days = pd.DatetimeIndex(sorted({pd.Timestamp(day) for day in (*self.early_closes, *self.late_opens)}))
        opens = self._wall(days, self.open, self.late_opens)
        bad = days[opens >= self._wall(days, self.close, self.early_closes)]
        if len(bad) or clock(self.open) >= clock(self.close):
            day = f"{bad[0]:%Y-%m-%d}" if len(bad) else "the usual session"
            raise DataError(f"{where}: {day} opens at or after its close. A session opens before, on the same date.")

    def between(self, start: pd.Timestamp, end: pd.Timestamp) -> Sessions:
        """The sessions from `start` to `end`."""
        days = self._days(start, end)
        closes = _localize(self._wall(days, self.close, self.early_closes), self.zone)
        opens = None if self.open is None else _localize(self._wall(days, self.open, self.late_opens), self.zone)
        return Sessions(self.code, days, closes, self.zone, opens)

    def _wall(self, days: pd.DatetimeIndex, usual: str, special: Mapping[str, str]) -> pd.DatetimeIndex:
        """Wall-clock times of days."""
        wall = pd.Series(days + clock(usual), index=days)
        for day, text in special.items():
            wall[days == pd.Timestamp(day)] = pd.Timestamp(day) + clock(text)
        return pd.DatetimeIndex(wall)

    def _days(self, start: pd.Timestamp, end: pd.Timestamp) -> pd.DatetimeIndex:
        """The labels of the sessions from `start` to `end`."""
        days = pd.date_range(start, end, unit="us")
        open_days = [_WEEKDAYS.index(name) for name in self.weekdays.split()]
        if isinstance(self.holidays, AbstractHolidayCalendar):
            closed = self.holidays.holidays(start, end)
        else:
            closed = pd.DatetimeIndex([pd.Timestamp(day) for day in self.holidays])
        return days[days.day_of_week.isin(open_days) & ~days.isin(closed)]


AnyCalendar = Union[str, Calendar, "ExchangeCalendar"]


def sessions(exchange: AnyCalendar, start: pd.Timestamp, end: pd.Timestamp) -> Sessions:
    """The sessions of an exchange from `start` to `end`, and those of the month after it where known.

    Args:
        exchange: a code, or a calendar: a `Calendar` or one of the exchange_calendars package. The codes are that
            package's (MICs such as ``XNYS``; ``24/7`` and ``24/5``, whose days end at midnight UTC), and ``FX`` for
            currencies around the clock from Monday to Friday, closing at 17:00 in New York; ``TARGET`` for the euro
            system's payments, closing at 18:00 in Frankfurt; ``XECB`` for the ECB's euro reference rates, which
            appear at 16:00 there on the same days.
        start: the first date.
        end: the last date.

    Raises:
        DataError: the code is unknown; `start` is after `end`, or one has a time of day or a time zone; or the calendar
            does not reach from `start` to `end`.

    Example:
        >>> london = sessions("XLON", pd.Timestamp("2021-03-26"), pd.Timestamp("2021-03-29"))
        >>> [f"{close:%d %b %H:%M}" for close in london.closes[:2]]
        ['26 Mar 16:30', '29 Mar 15:30']
    """
    calendar = _BUILT_IN.get(exchange, exchange) if isinstance(exchange, str) else exchange
    code, (low, high) = code_of(exchange), _bounds(calendar)
    start, end = _date(start, f"{code}: start"), _date(end, f"{code}: end")
    if start > end:
        raise DataError(f"{code}: start {start:%Y-%m-%d} is after end {end:%Y-%m-%d}. Give the earlier one first.")
    if (low is not None and start < low) or (high is not None and end > high):
        raise DataError(
            f"{code}: the data span {start:%Y-%m-%d} to {end:%Y-%m-%d}, but its calendar is known from "
            f"{'the beginning' if low is None else f'{low:%Y-%m-%d}'} to "
            f"{'the end' if high is None else f'{high:%Y-%m-%d}'}. Cut the data to that span, pass a calendar that "
            "covers it, or upgrade exchange_calendars."
        )
    # A month before the start is asked for too, because a calendar refuses a span without a session.
    first, last = start - pd.Timedelta(days=DAYS_AHEAD), end + pd.Timedelta(days=DAYS_AHEAD)
    first = first if low is None else max(first, low)
    last = last if high is None else min(last, high)
    built = calendar.between(first, last) if isinstance(calendar, Calendar) else _of_package(calendar, first, last)
    inside = slice(built.days.searchsorted(start), None)
    opens = None if built.opens is None else built.opens[inside]
    return Sessions(code, built.days[inside], built.closes[inside], built.zone, opens)


def code_of(exchange: AnyCalendar) -> str:
    """The code by which the data know a calendar."""
    if isinstance(exchange, str):
        return exchange
    return exchange.code if isinstance(exchange, Calendar) else exchange.name


def clock(text: str) -> pd.Timedelta:
    """A wall-clock time "HH:MM" as the time since midnight.

    Raises:
        DataError: the text is no such time.
    """
    match = re.fullmatch(r"(\d{1,2}):([0-5]\d)", text)
    if match is None or int(match[1]) * 60 + int(match[2]) > 24 * 60:
        raise DataError(f'{text!r} is not a time of day "HH:MM", such as "16:30" or "24:00".')
    return pd.Timedelta(hours=int(match[1]), minutes=int(match[2])).as_unit("us")


def check_zone(zone: str) -> None:
    """Refuses the name of a time zone that does not exist.

    Raises:
        DataError: there is no such zone.
    """
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise DataError(f"no time zone {zone!r}. Name one of the IANA database, such as Europe/London.") from error


def at_clock(dates: pd.DatetimeIndex, text: str) -> pd.DatetimeIndex:
    """The UTC instants of a wall-clock time ``"HH:MM Zone"`` on some dates.

    Raises:
        DataError: the text is no such time.
    """
    parts = text.split()
    if len(parts) != 2:
        raise DataError(f'as_of={text!r} is not "HH:MM Zone", such as "16:30 Europe/London".')
    check_zone(parts[1])
    return _localize(dates + clock(parts[0]), parts[1])


def day_number(dates: Any) -> np.ndarray:
    """Days since 1970 of dates."""
    return np.asarray(dates).astype("M8[D]").astype(np.int64)


def dates_of(days: Any) -> np.ndarray:
    """The inverse of `day_number`."""
    return np.asarray(days).astype("M8[D]").astype("M8[us]")


def _localize(wall: pd.DatetimeIndex, zone: str) -> pd.DatetimeIndex:
    """UTC instants of wall-clock times; of an hour that is skipped the end, of one that comes twice the first."""
    return wall.tz_localize(zone, nonexistent="shift_forward", ambiguous=True).tz_convert("UTC").as_unit("us")


def _date(value: Any, what: str) -> pd.Timestamp:
    """A date, for which anything with a time of day or a time zone is refused: no session label would equal it."""
    date = None
    with suppress(TypeError, ValueError):
        date = pd.Timestamp(value)
    if not isinstance(date, pd.Timestamp) or date.tz is not None or date != date.normalize():
        raise DataError(f"{what} {value} is no date. Give dates such as 2021-01-04, without time of day or time zone.")
    return date


def _bounds(calendar: AnyCalendar) -> tuple[pd.Timestamp | None, pd.Timestamp | None]:
    """The first and the last date for which a calendar holds; None where it has no bound."""
    if isinstance(calendar, Calendar):
        first, last = (
            None if day is None else _date(day, f"calendar {calendar.code}: {name}")
            for name, day in (("first", calendar.first), ("last", calendar.last))
        )
        return first, last
    if isinstance(calendar, str):
        known = _package_class(calendar)
        return known.bound_min(), known.bound_max()
    return calendar.first_session, calendar.last_session


def _of_package(calendar: Union[str, "ExchangeCalendar"], first: pd.Timestamp, last: pd.Timestamp) -> Sessions:
    import exchange_calendars

    try:
        built = (
            exchange_calendars.get_calendar(calendar, *_whole_years(calendar, first, last))
            if isinstance(calendar, str)
            else calendar
        )
    except (NotImplementedError, ValueError) as error:
        raise DataError(
            f"{code_of(calendar)}: exchange_calendars fails to build it ({error!s:.200}). {_REMEDY}"
        ) from error
    _check_special_weeks(built)
    inside = slice(built.sessions.searchsorted(first), built.sessions.searchsorted(last, side="right"))
    closes, opens = (pd.DatetimeIndex(times.iloc[inside]).as_unit("us") for times in (built.closes, built.opens))
    return Sessions(built.name, built.sessions[inside].as_unit("us"), closes, str(built.tz), opens)


def _whole_years(code: str, first: pd.Timestamp, last: pd.Timestamp) -> tuple[pd.Timestamp, pd.Timestamp]:
    """The years around a span, within the calendar's bounds: the package keeps the last calendar that it built."""
    (low, high), year = _bounds(code), pd.offsets.YearEnd()
    first, last = pd.Timestamp(first.year, 1, 1), year.rollforward(last)
    return first if low is None else max(first, low), last if high is None else min(last, high)


_REMEDY = "Its versions to 4.13 do not work with pandas 3.1: install pandas below 3.1, or a later exchange_calendars."


def _check_special_weeks(calendar: "ExchangeCalendar") -> None:
    """Refuses a calendar whose spells of other working weeks are lost, as happens with a pandas that it does not know.

    They count as lost when none of the days that they open has a session.
    """
    spells = [pd.DatetimeIndex([])]
    for start, end, mask in getattr(calendar, "special_weekmasks", ()):
        low = calendar.first_session if start is None else max(start, calendar.first_session)
        high = calendar.last_session if end is None else min(end, calendar.last_session)
        days = pd.date_range(low, high)
        extra = [i for i, (special, usual) in enumerate(zip(mask, calendar.weekmask, strict=True)) if special > usual]
        spells.append(days[days.day_of_week.isin(extra)])
    opened = spells[0].append(spells[1:]).difference(pd.DatetimeIndex(calendar.adhoc_holidays))
    if len(opened) and not opened.isin(calendar.sessions).any():
        raise DataError(f"{calendar.name}: its session on {opened[-1]:%A, %d %B %Y} is lost. {_REMEDY}")


@cache
def _package_class(exchange: str):  # type: ignore[no-untyped-def]
    """The exchange_calendars class of a code."""
    import exchange_calendars
    from exchange_calendars.errors import InvalidCalendarName

    factories = exchange_calendars.calendar_utils.global_calendar_dispatcher._calendar_factories
    try:
        name = exchange_calendars.resolve_alias(exchange)
    except InvalidCalendarName:
        name = None
    if name not in factories:
        known = ", ".join(sorted((*factories, *_BUILT_IN)))
        raise DataError(
            f"unknown exchange code {exchange!r}. Known codes: {known}. Pass calendars=[Calendar({exchange!r}, ...)] "
            "for a market of your own."
        )
    return factories[name]


class _Target(AbstractHolidayCalendar):
    """The euro system's TARGET days, as they have been since 1999 (ECB, T2 calendar)."""

    rules = [
        Holiday("New Year", month=1, day=1),
        *(
            Holiday(rule.name, month=1, day=1, offset=rule.offset, start_date=pd.Timestamp("2000-01-01"))
            for rule in (GoodFriday, EasterMonday)
        ),
        Holiday("Labour Day", month=5, day=1, start_date=pd.Timestamp("2000-01-01")),
        Holiday("Christmas", month=12, day=25),
        Holiday("Christmas Holiday", month=12, day=26, start_date=pd.Timestamp("2000-01-01")),
        Holiday("Euro changeover", year=1999, month=12, day=31),
        Holiday("Euro cash changeover", year=2001, month=12, day=31),
    ]


_BUILT_IN = {
    calendar.code: calendar
    for calendar in (
        Calendar("FX", "17:00", "America/New_York"),
        Calendar("TARGET", "18:00", "Europe/Berlin", holidays=_Target(), first="1999-01-04"),
        Calendar("XECB", "16:00", "Europe/Berlin", holidays=_Target(), first="1999-01-04"),
    )
}
