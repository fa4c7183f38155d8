"""The dates that every model is asked about: one reading, which never moves a day."""

import datetime
import itertools

import numpy as np
import pandas as pd
import pytest
import torch

from qtorch.data import DataError, Panel
from qtorch.data.rows import labels
from qtorch.models import RiskMetrics
from qtorch.training import Ensemble
from tests.conftest import make_prices
from tests.training.runs import small_model
from tests.training.test_allocator import allocator

DAY = "2019-05-30"
ZONED = "2019-05-29T19:00-05:00"  # in UTC, the day after


@pytest.fixture(scope="module")
def market() -> Panel:
    return Panel.from_frame(make_prices({"AAA": "XNYS", "BBB": "XLON"}, "2018-10-01", "2019-05-31"))


@pytest.fixture(scope="module", params=["forecaster", "baseline", "ensemble", "allocator"])
def model(request):
    if request.param == "allocator":
        return allocator("covariance")
    made = RiskMetrics() if request.param != "forecaster" else small_model()
    return Ensemble([made]) if request.param == "ensemble" else made


def dates_of(answer) -> list[pd.Timestamp]:
    return list(answer.index if isinstance(answer, pd.DataFrame) else answer.dates)


def test_each_kind_of_date_is_the_same_day(model, market):
    assert dates_of(model.predict(market, datetime.date(2019, 5, 30))) == [pd.Timestamp(DAY)]
    two = [np.datetime64("2019-05-29"), DAY]
    assert dates_of(model.predict(market, iter(two))) == [pd.Timestamp("2019-05-29"), pd.Timestamp(DAY)]


@pytest.mark.parametrize(
    "dates",
    [
        ZONED,
        pd.Timestamp(ZONED),
        pd.Timestamp(DAY, tz="UTC"),
        [DAY, ZONED],
        pd.DatetimeIndex([DAY], tz="America/New_York"),
        [5],
        [True],
        [pd.NaT],
        "no date",
        [],
        pd.DatetimeIndex([]),
    ],
    ids=itertools.count(),
)
def test_what_is_no_day_is_refused(model, market, dates):
    with pytest.raises(DataError, match="date without a time zone|there is no date"):
        model.predict(market, iter(dates) if isinstance(dates, list) else dates)  # whose types no test's hook looks at


def test_a_panel_finds_rows(market):
    assert market.rows(market.dates[[3, 1]]).tolist() == [3, 1]
    day = pd.Timestamp("2018-10-02")
    kinds = [
        f"{day:%Y-%m-%d}",
        day,
        day.date(),
        day.to_pydatetime(),
        day.to_datetime64(),
    ]
    many = [pd.DatetimeIndex([day]), pd.Series([day]), (day,), np.array([day], "M8[D]"), (each for each in [day])]
    for dates in [*kinds, *many]:
        assert market.rows(dates).tolist() == [1], dates
    with pytest.raises(DataError, match="2019-01-01 is not a date"):
        market.rows(["2019-01-02", "2019-01-01"])
    assert labels(np.array(day.to_datetime64()), "date") == [day]
    for number in (5, True, np.int64(5), 5.0):
        with pytest.raises(DataError, match="date is .*without a time zone"):
            labels(number, "date")


def test_a_mixture_is_of_the_dates_that_an_iterator_gave(market):
    mixed = Ensemble([RiskMetrics(), RiskMetrics()]).predict(market, iter(market.dates[-3:]))
    assert list(mixed.dates) == list(market.dates[-3:])
    assert torch.isfinite(mixed.value_at_risk(0.99)).all()
