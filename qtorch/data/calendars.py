"""Exchange sessions and the UTC instants at which their closes are known."""

from dataclasses import dataclass
from functools import cache

import pandas as pd

from qtorch.data.errors import DataError

DAYS_AHEAD = 31  # the longest closure of any exchange is shorter (XSHG's and XHKG's New Year weeks, 9/11: a week)


@dataclass(frozen=True)
class Sessions:
    """An exchange's sessions from `start` to `end` and the first few after it.

    Attributes:
        exchange: the ISO 10383 market identifier code (MIC).
        days: session labels, tz-naive, ascending; they reach beyond `end` by up to a month.
        closes: the UTC instant of each session's close, daylight saving and early closes included.
    """

    exchange: str
    days: pd.DatetimeIndex
    closes: pd.DatetimeIndex

    def close_of(self, days: pd.DatetimeIndex) -> pd.DatetimeIndex:
        """The UTC close of any days: a session's own; on another day, the exchange's usual wall-clock close."""
        zone = _calendar_class(self.exchange).tz
        local = self.closes.tz_convert(zone).tz_localize(None) - self.days
        usual = (days + local.value_counts().index[0]).tz_localize(zone, nonexistent="shift_forward", ambiguous=True)
        own = self.days.get_indexer(days)
        return usual.tz_convert("UTC").where(own < 0, self.closes[own])


def sessions(exchange: str, start: pd.Timestamp, end: pd.Timestamp) -> Sessions:
    """The sessions of an exchange from `start` to `end`, and those of the month after it where known.

    The codes are those of the exchange_calendars package (MICs such as ``XNYS``), and ``XECB`` for the ECB's
    euro reference rates, which appear at 16:00 Frankfurt time on TARGET days.

    Raises:
        DataError: the code is unknown, or the calendar does not reach from `start` to `end`.
    """
    import exchange_calendars

    calendar = _calendar_class(exchange)
    low, high = calendar.bound_min(), calendar.bound_max()
    if (low is not None and start < low) or (high is not None and end > high):
        raise DataError(
            f"{exchange}: the data span {start:%Y-%m-%d} to {end:%Y-%m-%d}, but its calendar is known from "
            f"{'the beginning' if low is None else f'{low:%Y-%m-%d}'} to "
            f"{'the end' if high is None else f'{high:%Y-%m-%d}'}. Cut the data to that span, or upgrade "
            "exchange_calendars."
        )
    last = end + pd.Timedelta(days=DAYS_AHEAD)
    # A month before the start is asked for too, because a calendar refuses a span without a session.
    first = start - pd.Timedelta(days=DAYS_AHEAD)
    built = exchange_calendars.get_calendar(
        exchange,
        start=first if low is None else max(first, low),
        end=last if high is None else min(last, high),
    )
    inside = slice(built.sessions.searchsorted(start), None)
    return Sessions(
        exchange,
        built.sessions[inside].as_unit("us"),
        pd.DatetimeIndex(built.closes.iloc[inside]).as_unit("us"),
    )


@cache
def _calendar_class(exchange: str):  # type: ignore[no-untyped-def]
    """The exchange_calendars class of a code, ours among them."""
    import exchange_calendars
    from exchange_calendars.errors import InvalidCalendarName

    dispatcher = exchange_calendars.calendar_utils.global_calendar_dispatcher
    if "XECB" not in dispatcher._calendar_factories:
        exchange_calendars.register_calendar_type("XECB", _ecb_calendar())
    try:
        name = exchange_calendars.resolve_alias(exchange)
    except InvalidCalendarName:
        name = None
    if name not in dispatcher._calendar_factories:
        known = ", ".join(sorted(dispatcher._calendar_factories))
        raise DataError(f"unknown exchange code {exchange!r}. Known codes: {known}.")
    return dispatcher._calendar_factories[name]


def _ecb_calendar():  # type: ignore[no-untyped-def]
    """The days on which the ECB publishes its euro reference rates: TARGET's, as they have been since 1999."""
    import datetime
    from zoneinfo import ZoneInfo

    from exchange_calendars import ExchangeCalendar
    from exchange_calendars.exchange_calendar import HolidayCalendar
    from pandas.tseries.holiday import EasterMonday, GoodFriday, Holiday

    def fixed(name: str, month: int, day: int, start: str | None = None) -> Holiday:
        return Holiday(name, month=month, day=day, start_date=start and pd.Timestamp(start))

    def since_2000(holiday: Holiday) -> Holiday:
        return Holiday(holiday.name, month=1, day=1, offset=holiday.offset, start_date=pd.Timestamp("2000-01-01"))

    class EcbReferenceRates(ExchangeCalendar):
        """ECB euro reference rates (MIC XECB), published at 16:00 Frankfurt time on TARGET days."""

        name = "XECB"
        tz = ZoneInfo("Europe/Berlin")
        open_times = ((None, datetime.time(9)),)
        close_times = ((None, datetime.time(16)),)

        @classmethod
        def bound_min(cls) -> pd.Timestamp:
            return pd.Timestamp("1999-01-04")

        @property
        def regular_holidays(self) -> HolidayCalendar:
            return HolidayCalendar(
                [
                    fixed("New Year", 1, 1),
                    since_2000(GoodFriday),
                    since_2000(EasterMonday),
                    fixed("Labour Day", 5, 1, "2000-01-01"),
                    fixed("Christmas", 12, 25),
                    fixed("Christmas Holiday", 12, 26, "2000-01-01"),
                ]
            )

        @property
        def adhoc_holidays(self) -> list[pd.Timestamp]:
            return [pd.Timestamp("1999-12-31"), pd.Timestamp("2001-12-31")]

    return EcbReferenceRates
