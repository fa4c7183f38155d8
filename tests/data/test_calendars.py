import exchange_calendars
import numpy as np
import pandas as pd
import pytest

from qtorch.data import Calendar, DataError, Panel, State, sessions


def day(text: str) -> pd.Timestamp:
    return pd.Timestamp(text)


@pytest.mark.parametrize(
    ("exchange", "date", "close"),
    [
        ("XNYS", "2021-03-12", "2021-03-12 21:00"),  # winter time
        ("XNYS", "2021-03-15", "2021-03-15 20:00"),  # the US on summer time, Europe not yet
        ("XLON", "2021-03-15", "2021-03-15 16:30"),
        ("XLON", "2021-03-29", "2021-03-29 15:30"),  # Europe on summer time
        ("XNYS", "2020-11-27", "2020-11-27 18:00"),  # the day after Thanksgiving closes early
        ("XTKS", "2020-11-27", "2020-11-27 06:00"),
        ("XECB", "2021-03-26", "2021-03-26 15:00"),
        ("XECB", "2021-03-29", "2021-03-29 14:00"),
    ],
)
def test_closes_follow_daylight_saving_and_early_closes(exchange, date, close):
    calendar = sessions(exchange, day(date), day(date))
    assert calendar.days[0] == day(date)
    assert calendar.closes[0] == pd.Timestamp(close, tz="UTC")


def test_the_ecb_does_not_publish_on_target_holidays():
    year = sessions("XECB", day("2019-01-01"), day("2019-12-31")).days
    weekdays = pd.bdate_range("2019-01-01", "2019-12-31")
    closed = weekdays.difference(year)
    expected = ["2019-01-01", "2019-04-19", "2019-04-22", "2019-05-01", "2019-12-25", "2019-12-26"]
    assert list(closed) == [day(d) for d in expected]


def test_us_and_ecb_holidays_differ_on_207_days():
    us, ecb = (sessions(code, day("2000-01-01"), day("2022-12-31")).days for code in ("XNYS", "XECB"))
    us, ecb = us[us <= "2022-12-31"], ecb[ecb <= "2022-12-31"]
    assert (len(us.difference(ecb)), len(ecb.difference(us))) == (53, 154)


def test_a_day_without_session_has_the_usual_close():
    calendar = sessions("XNYS", day("2018-06-01"), day("2018-12-31"))
    usual = calendar.close_of(pd.DatetimeIndex(["2018-07-04", "2018-12-05"]))  # after an early close; in winter
    assert list(usual) == [pd.Timestamp("2018-07-04 20:00", tz="UTC"), pd.Timestamp("2018-12-05 21:00", tz="UTC")]


def test_an_unknown_code_is_named():
    with pytest.raises(DataError, match="unknown exchange code 'XXXX'.*XNYS"):
        sessions("XXXX", day("2020-01-01"), day("2020-02-01"))


def test_dates_before_the_calendar_are_refused():
    with pytest.raises(DataError, match="XTKS.*1990-01-03.*known from 1997-01-01"):
        sessions("XTKS", day("1990-01-03"), day("2001-01-01"))


def test_aliases_work():
    assert sessions("NYSE", day("2020-01-02"), day("2020-01-31")).days[0] == day("2020-01-02")


@pytest.mark.slow
@pytest.mark.parametrize("exchange", exchange_calendars.get_calendar_names(include_aliases=False))
def test_every_exchange_has_its_sessions_and_closes(exchange):
    earliest = exchange_calendars.get_calendar(exchange).first_session  # Riyadh's calendar begins in 2021
    start, end = max(day("2019-03-04"), earliest), day("2021-11-30")
    known = sessions(exchange, start, end)
    calendar = exchange_calendars.get_calendar(exchange, start=max(day("2019-03-01"), earliest), end="2021-12-31")
    expected = calendar.sessions[(calendar.sessions >= start) & (calendar.sessions <= "2021-12-31")]
    assert list(known.days) == list(expected)
    assert list(known.closes) == [calendar.session_close(session) for session in expected]
    assert known.days[-1] > end


def test_weekend_sessions_are_there():
    """They vanish where exchange_calendars meets a pandas that it does not know."""
    assert day("2021-01-03") in sessions("XTAE", day("2021-01-01"), day("2021-01-31")).days  # a Sunday in Tel Aviv
    assert day("2025-02-01") in sessions("XBOM", day("2025-01-27"), day("2025-02-10")).days  # Mumbai's budget Saturday


def test_lost_weekend_sessions_are_refused(monkeypatch):
    from exchange_calendars.exchange_calendar_xbom import XBOMExchangeCalendar

    weekmask = pd.tseries.offsets.CustomBusinessDay(weekmask="1111100")
    monkeypatch.setattr(XBOMExchangeCalendar, "day", property(lambda self: weekmask))
    with pytest.raises(DataError, match="XBOM: its session on Saturday, 01 February 2025 is lost.*pandas below 3.1"):
        sessions("XBOM", day("2025-02-05"), day("2025-02-10"))  # of other years than above: one calendar is kept


@pytest.mark.parametrize(
    ("exchange", "date", "close"),
    [
        ("24/7", "2021-01-02", "2021-01-03 00:00"),  # a Saturday
        ("24/5", "2021-01-04", "2021-01-05 00:00"),
        ("FX", "2021-03-12", "2021-03-12 22:00"),
        ("FX", "2021-03-15", "2021-03-15 21:00"),  # the US on summer time
        ("TARGET", "2021-03-26", "2021-03-26 17:00"),
        ("TARGET", "2021-03-29", "2021-03-29 16:00"),
    ],
)
def test_markets_around_the_clock_and_target(exchange, date, close):
    calendar = sessions(exchange, day(date), day(date))
    assert (calendar.days[0], calendar.closes[0]) == (day(date), pd.Timestamp(close, tz="UTC"))


def test_a_calendar_of_ones_own():
    desk = Calendar(
        "DESK",
        close="15:30",
        zone="Asia/Kolkata",
        weekdays="Mon Tue Wed Thu Fri Sat",
        holidays=("2021-01-26",),
        early_closes={"2021-01-25": "12:00"},
        first="2021-01-01",
        last="2021-12-31",
    )
    known = sessions(desk, day("2021-01-23"), day("2021-01-27"))
    assert list(known.days[:3]) == [day("2021-01-23"), day("2021-01-25"), day("2021-01-27")]
    assert list(known.closes[:2]) == [pd.Timestamp(t, tz="UTC") for t in ("2021-01-23 10:00", "2021-01-25 06:30")]
    with pytest.raises(DataError, match="DESK: the data span 2020-12-01.*known from 2021-01-01 to 2021-12-31"):
        sessions(desk, day("2020-12-01"), day("2021-02-01"))
    dates = pd.to_datetime(["2021-01-25", "2021-01-26", "2021-01-27"])
    frame = pd.DataFrame({"A": [1.0, np.nan, 2.0], "B": [1.0, 2.0, 3.0]}, index=dates)
    panel = Panel.from_frame(frame, exchange={"A": "DESK", "B": "XNYS"}, calendars=[desk])
    assert panel.state[:, 0].tolist() == [State.OBSERVED, State.CLOSED, State.OBSERVED]
    own = exchange_calendars.get_calendar("XLON", start="2021-01-01", end="2021-12-31")
    panel = Panel.from_frame(frame, exchange="XLON", calendars=[own])
    assert panel.as_of[0] == pd.Timestamp("2021-01-25 16:30", tz="UTC")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"close": "25:00"}, "'25:00' is not a time of day"),
        ({"zone": "Europe/Atlantis"}, "no time zone 'Europe/Atlantis'"),
        ({"weekdays": "Mon Tues"}, "weekdays='Mon Tues' must name some of Mon"),
        ({"holidays": ("soon",)}, "calendar DESK: holiday soon is no date. Give dates such as"),
        ({"holidays": ("2021-01-26T00:00:00Z",)}, "holiday 2021-01-26T00:00:00Z is no date.*without .* time zone"),
        ({"holidays": (pd.Timestamp("2021-01-26", tz="UTC"),)}, r"holiday 2021-01-26 00:00:00\+00:00 is no date"),
        ({"holidays": ("2021-01-04", day("2021-01-26 12:00"))}, "holiday 2021-01-26 12:00:00 is no date"),
        ({"first": pd.Timestamp("2021-01-04", tz="UTC")}, r"first 2021-01-04 00:00:00\+00:00 is no date"),
        ({"first": "2021-01-05", "last": "2021-01-04"}, "first 2021-01-05 is after last 2021-01-04"),
        ({"early_closes": {"2021-01-25 12:00": "12:00"}}, "early close 2021-01-25 12:00 is no date"),
        ({"early_closes": {"2021-01-24": "12:00"}}, r"early close 2021-01-24 \(Sunday\) is no session. Leave it out"),
        (
            {"early_closes": {"2021-01-25": "12:00"}, "holidays": ("2021-01-25",)},
            r"2021-01-25 \(Monday\) is no session",
        ),
    ],
)
def test_an_impossible_calendar_is_refused(settings, words):
    with pytest.raises(DataError, match=words):
        Calendar("DESK", **settings)


def test_holidays_of_every_form_are_kept_and_early_closes_out_of_bounds_are_of_no_consequence():
    holidays = ("2021-01-26", day("2021-01-27"), "28 January 2021")
    desk = Calendar("DESK", holidays=holidays, early_closes={"2020-12-26": "12:00"}, first="2021-01-01")
    assert list(sessions(desk, day("2021-01-25"), day("2021-01-29")).days[:2]) == [day("2021-01-25"), day("2021-01-29")]


@pytest.mark.parametrize("exchange", ["XNYS", Calendar("DESK")])
def test_a_span_that_ends_before_it_starts_or_is_not_of_dates_is_refused(exchange):
    with pytest.raises(DataError, match=r"start 2021-01-27 is after end 2020-01-27. Give the earlier one first"):
        sessions(exchange, day("2021-01-27"), day("2020-01-27"))
    with pytest.raises(DataError, match="end 2021-01-27 .* is no date"):
        sessions(exchange, day("2021-01-26"), pd.Timestamp("2021-01-27", tz="UTC"))


@pytest.mark.parametrize("code", ["XNYS", "XTKS", "XHKG"])
def test_opens_follow_daylight_saving_and_late_opens(code):
    known = sessions(code, day("2018-01-02"), day("2018-12-31"))
    calendar = exchange_calendars.get_calendar(code, start="2018-01-01", end="2019-02-28")
    assert list(known.opens) == [calendar.session_open(session) for session in known.days]


def test_a_calendar_of_ones_own_opens_at_its_hours():
    desk = Calendar("DESK", "16:00", "Europe/London", open="08:00", late_opens={"2021-03-30": "10:00"})
    assert list(desk.between(day("2021-03-26"), day("2021-03-30")).opens) == [
        pd.Timestamp(text, tz="UTC") for text in ("2021-03-26 08:00", "2021-03-29 07:00", "2021-03-30 09:00")
    ]
    assert Calendar("DESK").between(day("2021-03-26"), day("2021-03-30")).opens is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"open": "17:00"}, "the usual session opens at or after its close"),
        ({"open": "09:00", "early_closes": {"2021-12-24": "08:00"}}, "2021-12-24 opens at or after its close"),
        ({"late_opens": {"2021-12-24": "10:00"}}, "late opens and no open"),
        ({"open": "09:00", "late_opens": {"2021-12-25": "10:00"}}, "late open 2021-12-25 .Saturday. is no session"),
        ({"open": "nine"}, "not a time of day"),
    ],
)
def test_opens_that_cannot_be_are_refused(settings, message):
    with pytest.raises(DataError, match=message):
        Calendar("DESK", **settings)
