import numpy as np
import pandas as pd
import pytest
import torch
from exchange_calendars import get_calendar

from qtorch.backtest import Signals
from qtorch.data import Calendar, DataError, Panel
from qtorch.distributions import StudentT
from qtorch.forecast import Forecast
from tests.conftest import make_prices

NAN = float("nan")


@pytest.fixture(scope="module")
def two() -> Panel:
    return Panel.from_frame(make_prices({"US": "XNYS", "JP": "XTKS"}, "2019-06-03", "2019-06-28"))


def long(**changes: object) -> pd.DataFrame:
    frame = pd.DataFrame(
        {
            "date": pd.to_datetime(["2019-06-04", "2019-06-03", "2019-06-03"]),
            "asset": ["US", "US", "JP"],
            "value": [0.5, 0.25, 0.75],
            "known_at": pd.to_datetime(["2019-06-04 20:00", "2019-06-03 20:00", "2019-06-03 06:00"], utc=True),
            "exchange": ["XNYS", "XNYS", "XTKS"],
        }
    )
    return frame.assign(**changes)


def same(a: Signals, b: Signals) -> None:
    np.testing.assert_array_equal(a.values, b.values)
    there = ~np.isnan(a.values)
    np.testing.assert_array_equal(a.known_at[there], b.known_at[there])
    assert a.dates.equals(b.dates)
    assert (a.assets, a.exchanges, a.fill, a.sizing) == (b.assets, b.exchanges, b.fill, b.sizing)


def test_a_long_frame_goes_in_and_out():
    signals = Signals.from_frame(long())
    assert signals.assets == ("US", "JP")
    np.testing.assert_array_equal(signals.values, [[0.25, 0.75], [0.5, NAN]])
    frame = signals.to_frame()
    assert frame["known_at"].tolist() == list(long()["known_at"].iloc[[1, 2, 0]])
    same(Signals.from_frame(frame), signals)


def test_a_wide_frame_takes_instants_of_dates_or_cells():
    wide = pd.DataFrame({"US": [0.1, 0.2], "JP": [0.3, NAN]}, pd.to_datetime(["2019-06-03", "2019-06-04"]))
    stamps = pd.DatetimeIndex(["2019-06-03 17:00", "2019-06-04 17:00"], tz="America/New_York")
    codes = {"US": "XNYS", "JP": "XTKS"}
    by_date = Signals.from_frame(wide, known_at=stamps, exchange=codes)
    assert by_date.known_at[1, 0] == np.datetime64("2019-06-04T21:00")
    cells = pd.DataFrame({"JP": stamps, "US": stamps}, wide.index)
    same(Signals.from_frame(wide, known_at=cells, exchange=codes), by_date)


def test_parquet_loses_nothing(two, tmp_path):
    values = torch.full((4, 2), NAN).double()
    values[1, 0], values[2, 1] = 0.1 + 0.2, -1e-17
    signals = Signals.from_panel(two, values, two.dates[:4], fill="next_open", sizing="known")
    signals.to_parquet(tmp_path / "signals.parquet")
    same(Signals.from_parquet(tmp_path / "signals.parquet"), signals)
    two.to_frame().to_parquet(tmp_path / "prices.parquet")
    with pytest.raises(DataError, match=r"not a file of Signals\.to_parquet"):
        Signals.from_parquet(tmp_path / "prices.parquet")
    with pytest.raises(DataError, match="not a readable Parquet file"):
        Signals.from_parquet(tmp_path / "none.parquet")


def test_calendars_of_the_users_are_given_again(tmp_path):
    desk = Calendar("DESK", open="09:00")
    signals = Signals.from_frame(long(exchange="DESK"), calendars=[desk])
    assert signals.exchanges == (desk, desk)
    signals.to_parquet(tmp_path / "signals.parquet")
    same(Signals.from_parquet(tmp_path / "signals.parquet", calendars=[desk]), signals)
    with pytest.raises(DataError, match="unknown exchange code 'DESK'"):
        Signals.from_parquet(tmp_path / "signals.parquet")
    tokyo = get_calendar("XTKS", start="2019-01-01", end="2019-12-31")
    assert Signals.from_frame(long(exchange="XTKS"), calendars=[tokyo]).exchanges == (tokyo, tokyo)


def test_rows_of_a_panel_are_known_at_its_as_of_or_their_own_closes(two):
    weights = pd.DataFrame({"JP": [0.5], "US": [0.5]}, ["2019-06-05"])
    signals = Signals.from_panel(two, weights)
    assert signals.assets == ("JP", "US")
    assert (signals.known_at == np.datetime64("2019-06-05T20:00")).all()
    own = Signals.from_panel(two, weights, known_at="close")
    assert own.known_at.tolist() == [[pd.Timestamp("2019-06-05 06:00"), pd.Timestamp("2019-06-05 20:00")]]


def test_a_measure_of_a_forecast_is_a_signal(two):
    law = StudentT(torch.tensor(4.0), torch.zeros(1, 2, 2), torch.tensor([0.01, 0.02]))
    there = torch.tensor([[True, False]])
    forecast = Forecast(law, there, there.byte(), pd.DatetimeIndex(["2019-06-05"]), ("US", "JP"), (1, 5))
    mean = Signals.from_forecast(forecast, two)
    np.testing.assert_array_equal(mean.values, [[0.0, NAN]])
    risk = Signals.from_forecast(forecast, two, forecast.value_at_risk(0.99), horizon=5, fill="next_open")
    assert risk.values[0, 0] == forecast.value_at_risk(0.99)[0, 1, 0].item()
    assert risk.fill == "next_open"
    with pytest.raises(ValueError, match="horizon=2"):
        Signals.from_forecast(forecast, two, horizon=2)


def test_the_repr_says_what_there_is():
    assert repr(Signals.from_frame(long())) == (
        "Signals(2 dates 2019-06-03..2019-06-04, 2 assets, 2 exchanges; 3 values, fill next_close, sizing fill)"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"known_at": pd.to_datetime(["2019-06-05"] * 3)}, "without a time zone.*utc=True"),
        ({"known_at": pd.to_datetime(["2019-06-05", None, "2019-06-05"], utc=True)}, "without known_at: US 2019-06-03"),
        ({"asset": ["US", "JP", "JP"], "exchange": "XNYS"}, "more than one value.*JP 2019-06-03"),
        (
            {"date": pd.to_datetime(["2019-06-04", "2019-06-02", "2019-06-03"])},
            "no session of XNYS, XTKS on 2019-06-02",
        ),
        ({"date": pd.to_datetime(["2019-06-04 16:00"] * 3), "asset": list("abc")}, "time of day.*2019-06-04 16:00"),
        ({"date": pd.to_datetime(["2019-06-04"] * 3, utc=True)}, "without a time zone"),
        ({"date": ["2019-06-04", "soon", "2019-06-03"]}, "dates that cannot be read"),
        ({"value": [0.1, float("inf"), 0.2]}, "infinite values: US 2019-06-03"),
        (
            {"known_at": pd.to_datetime(["2019-06-03 09:59"] * 3, utc=True)},
            "known before their date begins.*US 2019-06-04",
        ),
        ({"exchange": ["XNYS", "XLON", "XTKS"]}, "more than one exchange: US"),
        ({"exchange": ["XNYS", "XNYS", None]}, "no exchange of JP"),
    ],
)
def test_what_is_wrong_is_named(changes, message):
    with pytest.raises(DataError, match=message):
        Signals.from_frame(long(**changes))


def test_columns_and_arguments_that_are_missing_are_named():
    wide = pd.DataFrame({"US": [0.1]}, pd.to_datetime(["2019-06-03"]))
    with pytest.raises(DataError, match="no column 'value'"):
        Signals.from_frame(long().drop(columns="value"))
    with pytest.raises(DataError, match="no column 'exchange'"):
        Signals.from_frame(long().drop(columns="exchange"))
    with pytest.raises(DataError, match="when its values were known"):
        Signals.from_frame(wide, exchange="XNYS")
    with pytest.raises(DataError, match="no exchanges"):
        Signals.from_frame(wide, known_at=pd.DatetimeIndex(["2019-06-03 21:00"], tz="UTC"))
    stamps = pd.DatetimeIndex(["2019-06-03 21:00"] * 2, tz="UTC")
    with pytest.raises(DataError, match="2 instants known_at for 1 dates"):
        Signals.from_frame(wide, known_at=stamps, exchange="XNYS")


def test_dates_and_assets_of_the_panel_alone(two):
    weights = torch.full((1, 2), 0.5)
    with pytest.raises(DataError, match="not in the panel: XX"):
        Signals.from_panel(two, pd.DataFrame({"XX": [0.1]}, ["2019-06-05"]))
    with pytest.raises(DataError, match="2019-06-09 is not a date"):
        Signals.from_panel(two, weights, ["2019-06-09"])
    with pytest.raises(DataError, match=r"no dates\. Give dates"):
        Signals.from_panel(two, weights)


def test_a_close_of_a_closed_exchange_is_refused():
    panel = Panel.from_frame(make_prices({"US": "XNYS", "JP": "XTKS"}, "2019-07-01", "2019-07-12"))
    weights = torch.full((1, 2), 0.5)
    with pytest.raises(DataError, match="a close of XNYS on days on which it is closed: US 2019-07-04"):
        Signals.from_panel(panel, weights, ["2019-07-04"], fill="this_close")
    Signals.from_panel(panel, weights, ["2019-07-04"], fill="next_close")
