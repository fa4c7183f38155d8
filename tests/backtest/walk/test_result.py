"""The tidy frame of a walk: when each row was known, of which refit it is, and what is in it."""

import exchange_calendars
import numpy as np
import pandas as pd
import pytest

from qtorch.backtest import walk_forward
from qtorch.data import Panel, WindowSpec
from qtorch.models import RiskMetrics
from tests.conftest import make_prices

EXCHANGES = {"NY": "XNYS", "TOKYO": "XTKS", "LONDON": "XLON"}
CODES = list(EXCHANGES.values())
MODEL = RiskMetrics(WindowSpec(horizons=(1, 5)))


def make_model() -> RiskMetrics:
    return MODEL


@pytest.fixture(scope="module")
def prices() -> pd.DataFrame:
    return make_prices(EXCHANGES, "2019-01-02", "2019-12-30")


@pytest.fixture(scope="module")
def walk(prices):
    return walk_forward(Panel.from_frame(prices), make_model, "month", start="2019-06-03")


def test_a_row_is_known_at_the_last_close_of_its_date(walk):
    """By exchange_calendars alone, early closes among them; where New York is closed it waits for its usual close."""
    closes = pd.DataFrame({c: exchange_calendars.get_calendar(c).closes["2019-06-03":"2019-12-30"] for c in CODES})
    assert list(walk.dates) == list(closes.index)
    known = pd.Series(walk.known_at, walk.dates)
    last = closes.max(axis=1).astype(known.dtype)
    open_ = closes["XNYS"].notna()
    assert (known[open_] == last[open_]).all()
    assert known["2019-11-29"] == pd.Timestamp("2019-11-29 18:00", tz="UTC")
    usual = {"2019-07-04": 20, "2019-09-02": 20, "2019-11-28": 21, "2019-12-25": 21}
    assert [f"{day:%Y-%m-%d}" for day in known.index[~open_]] == list(usual)
    assert list(known[~open_].dt.hour) == list(usual.values())
    frame = walk.to_frame()
    assert (frame["known_at"] == frame["date"].map(known)).all()
    assert str(frame["known_at"].dt.tz) == "UTC"


def test_a_desk_knows_at_its_own_time(prices):
    walk = walk_forward(Panel.from_frame(prices, as_of="16:30 Europe/London"), make_model, 20, start="2019-06-03")
    expected = [pd.Timestamp(f"{day:%Y-%m-%d} 16:30", tz="Europe/London").tz_convert("UTC") for day in walk.dates]
    assert list(walk.known_at) == expected
    assert walk.known_at.hour.nunique() == 2


def test_the_frame_is_the_forecasts_with_two_columns_more(walk):
    frame = walk.to_frame(levels=[0.99])
    assert list(frame.columns[:5]) == ["date", "asset", "known_at", "refit", "horizon"]
    pd.testing.assert_frame_equal(frame.drop(columns=["known_at", "refit"]), walk.forecast.to_frame([0.99]))
    assert (frame["refit"] <= frame["date"]).all()
    assert len(walk.refits.unique()) == 7
    ends = frame.groupby("refit")["date"].max().to_numpy()[:-1]
    before = walk.dates[walk.dates.get_indexer(walk.refits.unique()[1:]) - 1]
    assert np.array_equal(ends, before.to_numpy())
    assert repr(walk) == f"Walk(forecasts of {len(walk.dates)} dates 2019-06-03..2019-12-30, 7 refits)"


def test_parquet_gives_the_frame_back(walk, tmp_path):
    for levels in ([0.99], [0.95, 0.99]):
        walk.to_parquet(tmp_path / "walk.parquet", levels)
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "walk.parquet"), walk.to_frame(levels))
    assert [file.name for file in tmp_path.iterdir()] == ["walk.parquet"]
