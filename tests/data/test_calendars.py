import pandas as pd
import pytest

from qtorch.data import DataError, sessions


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
