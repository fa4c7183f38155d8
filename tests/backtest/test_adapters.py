"""What adapters refuse, before they import anything; equal equity is tested with the libraries, in tests/harness."""

import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest

from qtorch.backtest import Orders, adapters
from qtorch.backtest.adapters import to_bt, to_vectorbt, to_zipline
from qtorch.data import DataError
from qtorch.portfolio import Costs

NAN = np.nan
ALL = pytest.mark.parametrize("adapter", [to_vectorbt, to_bt, to_zipline])


def orders(weights: Any, closes: Any, dates: pd.DatetimeIndex | None = None) -> Orders:
    targets, values = np.array(weights, dtype=float)[:, None], np.array(closes, dtype=float)[:, None]
    dates = pd.bdate_range("2024-01-01", periods=len(targets)) if dates is None else dates
    return Orders(targets, values, values, "close", "fill", dates, ("A",), pd.DataFrame())


@ALL
@pytest.mark.parametrize("costs", [Costs(cash=1e-4), Costs(financing=1e-4), Costs(impact=1.0)])
def test_costs_that_no_harness_charges_are_refused(adapter, costs):
    with pytest.raises(ValueError, match=r"costs.*Costs|costs\.impact"):
        adapter(orders([0.5, NAN], [1.0, 1.0]), costs)


@ALL
def test_dates_that_a_harness_would_not_find_are_refused(adapter):
    dates = pd.bdate_range("2024-01-01", periods=2)
    with pytest.raises(DataError, match="time zone UTC"):
        adapter(orders([0.5, NAN], [1.0, 1.0], dates.tz_localize("UTC")))
    with pytest.raises(DataError, match="time of day: 2024-01-01"):
        adapter(orders([0.5, NAN], [1.0, 1.0], dates + pd.Timedelta(hours=9)))
    with pytest.raises(DataError, match="dates twice"):
        adapter(orders([0.5, NAN], [1.0, 1.0], dates[[0, 0]]))


@ALL
def test_an_account_that_is_lost_is_refused(adapter):
    with pytest.raises(DataError, match=r"2024-01-03.*all is lost"):
        adapter(orders([-1.0, NAN, NAN], [1.0, 1.0, 3.0]))


@ALL
def test_a_position_without_a_close_is_refused(adapter):
    at_open = orders([0.5, NAN], [1.0, 1.0])
    unvalued = Orders(
        at_open.targets,
        at_open.prices,
        np.array([[NAN], [1.0]]),
        "open",
        "fill",
        at_open.dates,
        ("A",),
        at_open.pending,
    )
    with pytest.raises(DataError, match="before a first close: A 2024-01-01"):
        adapter(unvalued)


def test_vectorbt_is_not_asked_to_borrow():
    with pytest.raises(DataError, match=r"2024-01-02.*0\.25 of the equity more than there is cash \(2 dates"):
        to_vectorbt(orders([0.5, 1.25, NAN], [1.0, 1.0, 1.0]))
    with pytest.raises(DataError, match=r"2024-01-01.*leave room for the costs"):
        to_vectorbt(orders([1.0, NAN], [1.0, 1.0]), Costs(proportional=0.001))


@pytest.mark.parametrize(("adapter", "name"), [(to_vectorbt, "vectorbt"), (to_bt, "bt"), (to_zipline, "zipline")])
def test_a_library_that_is_not_there_is_named(adapter, name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf"pip install 'qtorch-finance\[{name}\]'"):
        adapter(orders([0.5, NAN], [1.0, 1.0]))


def test_the_class_of_a_library_that_is_not_there_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "zipline", None)
    monkeypatch.delitem(sys.modules, "qtorch.backtest.adapters.zipline_loader", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'qtorch-finance\[zipline\]'"):
        adapters.ZiplineLoader  # noqa: B018


def test_zipline_is_given_shares():
    with pytest.raises(ValueError, match="shares_per_unit"):
        to_zipline(orders([0.5, NAN], [1.0, 1.0]), shares_per_unit=0.0)
