"""Orders and signals in zipline, which needs an older pandas, and so an environment of its own."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from qtorch.backtest import Ledger, Orders, Signals
from qtorch.backtest.adapters import to_zipline
from qtorch.data import DataError, Panel
from qtorch.portfolio import Costs
from tests.harness.conftest import random_orders
from tests.harness.test_equal_equity import CONVENTIONS

pytestmark = pytest.mark.harness


def by_zipline(orders: Orders, costs: Costs, **options: float) -> np.ndarray:
    return to_zipline(orders, costs, **options).run()["portfolio_value"].to_numpy()


@pytest.mark.parametrize("rate", [0.0, 0.002])
@pytest.mark.parametrize(("fill", "sizing"), CONVENTIONS)
def test_equity_is_the_ledgers(world, fill: str, sizing: str, rate: float):
    orders, costs = random_orders(world, fill, sizing), Costs(proportional=rate)
    equity = Ledger(costs, cash=1e6).run(orders).equity
    np.testing.assert_allclose(by_zipline(orders, costs), equity, rtol=1e-8)


@pytest.mark.parametrize(("fill", "sizing"), CONVENTIONS)
def test_whole_shares_are_near_the_ledgers(world, fill: str, sizing: str):
    orders, costs = random_orders(world, fill, sizing), Costs(proportional=0.002)
    equity = Ledger(costs, cash=1e7).run(orders).equity
    np.testing.assert_allclose(by_zipline(orders, costs, cash=1e7, shares_per_unit=1.0), equity, rtol=1e-5)


def test_it_borrows_as_the_ledger_does(world):
    orders, costs = random_orders(world, "next_open", "fill", least=-0.5, most=0.9), Costs(proportional=0.002)
    account = Ledger(costs, cash=1e6).run(orders)
    assert (account.cash < 0).any()
    np.testing.assert_allclose(by_zipline(orders, costs), account.equity, rtol=1e-8)


def test_a_single_date_and_orders_on_it():
    dates = pd.DatetimeIndex(["2019-05-05"])  # a Sunday
    one = np.array([[0.5]])
    orders = Orders(one, 10 * one, 11 * one, "open", "fill", dates, ("A",), pd.DataFrame())
    np.testing.assert_allclose(by_zipline(orders, Costs()), [1.05e6], rtol=1e-12)


def test_prices_of_any_size_in_one_account(world):
    """Of a thousandth, of millions, and of what falls from one to the other; names that zipline takes for the same."""
    names = ("A", "a", "A.B", "A/B")
    orders = random_orders(world.select(["US1", "US2", "JP1", "UK1"]), "next_open", "fill")
    scale = np.array([1e-6, 1e5, 1.0, 1.0]) * np.geomspace(1.0, 10.0, len(orders.dates))[:, None] ** [0, 0, 3, -3]
    orders = replace(orders, prices=orders.prices * scale, closes=orders.closes * scale, assets=names)
    costs = Costs(proportional=0.002)
    account = Ledger(costs, cash=1e6).run(orders)
    np.testing.assert_allclose(by_zipline(orders, costs), account.equity, rtol=1e-8)


@pytest.fixture
def new_york(world) -> Panel:
    return world.select(["US1", "US2"])


def weekly(panel: Panel, fill: str = "next_open", **options: Any) -> Signals:
    dates = panel.dates[panel.mask.all(1).numpy()][10:-10:5]
    values = np.arange(2.0 * len(dates)).reshape(-1, 2)
    return Signals.from_panel(panel, pd.DataFrame(values, dates, panel.assets), fill=fill, **options)


@pytest.fixture
def seen_before_open(new_york) -> Callable[[Callable], pd.DataFrame]:
    """What an algorithm of zipline's finds in a pipeline before each of New York's sessions, by session and asset."""
    from zipline.algorithm import TradingAlgorithm
    from zipline.finance.trading import SimulationParameters
    from zipline.pipeline import Pipeline
    from zipline.pipeline.data import Column, DataSet
    from zipline.pipeline.domain import EquityCalendarDomain

    from qtorch.backtest.adapters.zipline_market import portal

    class Model(DataSet):
        weight = Column(float)

    domain = EquityCalendarDomain("??", "XNYS")
    closes = new_york.close.numpy()
    dates = new_york.dates[new_york.dates.isin(domain.sessions())]
    rows = new_york.dates.isin(dates)
    data = portal(closes[rows], closes[rows], dates, new_york.assets)
    listed = data.asset_finder.retrieve_all(range(len(new_york.assets)))

    def run(loader_of: Callable) -> pd.DataFrame:
        found, loader = {}, loader_of(Model.weight)

        def initialize(context: Any) -> None:
            context.attach_pipeline(Pipeline({"weight": Model.weight.latest}, domain=domain), "model")

        def before_trading_start(context: Any, _: Any) -> None:
            session = context.get_datetime().tz_localize(None).normalize()
            weights = context.pipeline_output("model")["weight"]
            found[session] = weights.reindex(listed).to_numpy()  # on its first date an asset is not in yet

        TradingAlgorithm(
            SimulationParameters(dates[0], dates[-1], data.trading_calendar),
            data_portal=data,
            initialize=initialize,
            before_trading_start=before_trading_start,
            get_pipeline_loader=lambda _: loader,
            benchmark_returns=pd.Series(0.0, dates),
        ).run()
        return pd.DataFrame.from_dict(found, orient="index", columns=list(new_york.assets))

    return run


def test_a_value_is_not_seen_at_its_own_open_but_at_the_next(new_york, seen_before_open):
    from qtorch.backtest.adapters import ZiplineLoader

    signals = weekly(new_york)
    found = seen_before_open(lambda _: ZiplineLoader(signals, {"US1": 0, "US2": 1}))
    own = found.index.get_indexer(signals.dates)
    assert found.iloc[own].isna().all(axis=None)
    np.testing.assert_array_equal(found.iloc[own + 1], signals.values)
    assert int(found.notna().to_numpy().sum()) == signals.values.size


def test_ziplines_own_loader_shows_it_at_its_own_open_and_ours_refuses_to(new_york, seen_before_open):
    from zipline.pipeline.loaders.frame import DataFrameLoader

    from qtorch.backtest.adapters import ZiplineLoader

    signals = weekly(new_york)
    frame = pd.DataFrame(signals.values, signals.dates, [0, 1])
    found = seen_before_open(lambda column: DataFrameLoader(column, frame))
    np.testing.assert_array_equal(found.loc[signals.dates], signals.values)
    unshifted = weekly(new_york, fill="this_close", known_at="close")
    first = rf"look-ahead: {signals.values.size} values .*US1 {signals.dates[0]:%Y-%m-%d} \(known .* 20:00 UTC"
    with pytest.raises(DataError, match=first):
        seen_before_open(lambda _: ZiplineLoader(unshifted, {"US1": 0, "US2": 1}))


def test_what_was_known_the_evening_before_is_seen_on_its_own_date(new_york, seen_before_open):
    from qtorch.backtest.adapters import ZiplineLoader

    evening = weekly(new_york).dates.tz_localize("UTC")  # midnight in London, after New York's close
    signals = weekly(new_york, fill="this_close", known_at=evening)
    found = seen_before_open(lambda _: ZiplineLoader(signals, {"US1": 0, "US2": 1}))
    np.testing.assert_array_equal(found.loc[signals.dates], signals.values)


def test_the_instant_decides_and_not_a_shift_by_one(world):
    """Tokyo's close is known before New York opens on the same date; on New York's holidays it waits."""
    from zipline.pipeline.domain import US_EQUITIES

    from qtorch.backtest.adapters import ZiplineLoader

    tokyo = world.select(["JP1"])
    dates = pd.DatetimeIndex(["2019-07-03", "2019-07-04", "2019-07-05", "2019-07-08"])  # Thursday is a holiday
    signals = Signals.from_panel(tokyo, pd.DataFrame([[1.0], [2.0], [3.0], [4.0]], dates, ["JP1"]), known_at="close")
    sessions = US_EQUITIES.sessions()
    seen = ZiplineLoader(signals, {"JP1": 7}).seen(sessions, US_EQUITIES.data_query_cutoff_for_sessions(sessions))
    found = pd.Series(seen[:, 0], sessions).dropna()
    expected = pd.Series([1.0, 3.0, 4.0], pd.DatetimeIndex(["2019-07-03", "2019-07-05", "2019-07-08"]))
    pd.testing.assert_series_equal(found, expected, check_index_type=False, check_freq=False)
    late = np.datetime64("2019-07-03T12:45", "us")  # the cutoff itself, 45 minutes before the open: too late
    stamps = np.full_like(signals.known_at, late)
    at_cutoff = Signals(signals.values[:1], stamps[:1], dates[:1], ("JP1",), ("XTKS",))
    seen = ZiplineLoader(at_cutoff, {"JP1": 7}).seen(sessions, US_EQUITIES.data_query_cutoff_for_sessions(sessions))
    assert pd.Series(seen[:, 0], sessions).dropna().to_dict() == {pd.Timestamp("2019-07-05"): 1.0}


def test_signals_without_sids_or_for_no_column_of_floats_are_refused(new_york):
    from zipline.pipeline.data import Column, DataSet
    from zipline.pipeline.domain import US_EQUITIES

    from qtorch.backtest.adapters import ZiplineLoader

    class Whole(DataSet):
        weight = Column(np.int64, missing_value=0)

    signals = weekly(new_york)
    with pytest.raises(DataError, match="no sid of US2"):
        ZiplineLoader(signals, {"US1": 0})
    loader, there = ZiplineLoader(signals, {"US1": 0, "US2": 1}), np.ones((len(signals.dates), 2), dtype=bool)
    with pytest.raises(ValueError, match="signals are floats"):
        loader.load_adjusted_array(US_EQUITIES, [Whole.weight], signals.dates, pd.Index([0, 1]), there)
