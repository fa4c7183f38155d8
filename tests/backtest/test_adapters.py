"""What adapters refuse, before they import anything; equal equity is tested with the libraries, in tests/harness."""

import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest

from qtorch import backtest
from qtorch.backtest import Ledger, Orders, adapters
from qtorch.backtest.adapters import to_bt, to_vectorbt, to_zipline
from qtorch.backtest.adapters.zipline_algorithm import _shares
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


def test_a_star_needs_no_extra_and_dir_names_all(monkeypatch):
    for room, late in (
        (adapters, {"ForecastPrior", "QlibForecaster", "ZiplineLoader"}),
        (backtest, {"SklearnAllocator"}),
    ):
        assert not late & set(room.__all__)
        assert late | set(room.__all__) <= set(dir(room))
    for name in ("skfolio", "qlib", "zipline"):
        monkeypatch.setitem(sys.modules, name, None)
    found: dict = {}
    exec("from qtorch.backtest.adapters import *\nfrom qtorch.backtest import *", found)
    assert {*adapters.__all__, *backtest.__all__} <= found.keys()


def test_zipline_is_given_shares():
    with pytest.raises(ValueError, match="shares_per_unit"):
        to_zipline(orders([0.5, NAN], [1.0, 1.0]), shares_per_unit=0.0)
    with pytest.raises(DataError, match=r"more than 1e\+11 shares at shares_per_unit=10000: A \(2.5e\+11\)"):
        to_zipline(orders([0.5, NAN], [0.02, 0.02]), shares_per_unit=1e4)


@pytest.mark.parametrize("price", [1e-7, 0.03, 1.0, 5e6])
def test_zipline_s_shares_are_many_but_not_too_many(price):
    traded = orders([0.4, -0.4, NAN], [price] * 3)
    account = Ledger(cash=1e6).run(traded)
    (shares,) = _shares(account, None)
    assert 5e9 < np.abs(np.diff(account.units, axis=0)).max() * shares <= 1e10
    assert np.log2(shares) % 1 == 0
    nothing = Ledger().run(orders([NAN, 0.0], [price] * 2))
    assert _shares(nothing, None).tolist() == [1.0]


@pytest.mark.parametrize("sizing", ["fill", "known"])
def test_trades_lead_to_the_ledgers_units(sizing):
    """Sells before buys; without an order, and for what is held already, none."""
    rng = np.random.default_rng(0)
    targets, closes = rng.uniform(-0.2, 0.4, (30, 4)), np.exp(rng.normal(0, 0.1, (30, 4)).cumsum(0))
    targets[rng.random(targets.shape) < 0.4], targets[0] = NAN, NAN
    dates = pd.bdate_range("2024-01-01", periods=30)
    many = Orders(targets, closes * 1.01, closes, "open", sizing, dates, tuple("ABCD"), pd.DataFrame())
    account = Ledger(cash=1e6).run(many)
    held, cash = np.zeros(4), 1e6
    for k, t in enumerate(account.trade_rows.tolist()):
        trades = many.trades(t, held, cash)
        units = [each for _, each in trades]
        assert units == sorted(units, key=lambda each: each > 0)
        for n, each in trades:
            held[n] += each
            cash -= each * many.prices[t, n]
        np.testing.assert_allclose(held, account.units[k], rtol=1e-9, atol=1e-6)
        assert np.isnan(targets[t]).sum() + len(trades) == 4
    assert many.trades(0, held, cash) == []
