"""Walks of forecasters: what is forecast, by which refit, and from what is known."""

import dataclasses
import datetime
import itertools
import pickle
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import numpy as np
import pandas as pd
import pytest
import torch

from qtorch.backtest import RefitError, walk_forward
from qtorch.backtest.walk.refit_rows import refit_rows
from qtorch.data import Calendar, DataError, Panel, PanelWindowSource, WindowSource
from qtorch.distributions import Mixture
from qtorch.training import refit
from tests.conftest import make_prices
from tests.training.runs import SPEC, Across, small_model, small_panel
from tests.training.test_refit import OPTIONS, make_model

REFITS = ["2019-07-04", "2019-08-01", "2019-09-03"]


def make_panel_model():
    return small_model(seed=torch.initial_seed(), encoder=Across(len(SPEC.features)))


@pytest.fixture(scope="module")
def source():
    return WindowSource(small_panel(), SPEC)


def forecast(source, refits, **options):
    return walk_forward(source.panel, make_model, refits, source=source, **OPTIONS | options).forecast


@pytest.fixture(scope="module")
def walk(source):
    return forecast(source, REFITS, end="2019-10-04", seeds=(0, 1))


def risk(forecast):
    return forecast.value_at_risk(0.99).nan_to_num(), forecast.expected_shortfall(0.975).nan_to_num()


def test_it_forecasts_every_date_from_the_first_refit_to_the_end(source, walk):
    dates = source.panel.dates
    assert list(walk.dates) == list(dates[(dates >= "2019-07-04") & (dates <= "2019-10-04")])
    assert isinstance(walk.distribution, Mixture)
    assert walk.distribution.components.batch_shape == (len(walk.dates), 2, 4, 2)
    assert walk.mask.all()
    rows = [source.panel.row(date) for date in walk.dates]
    assert torch.equal(walk.state, source.panel.state[rows])
    assert (walk.expected_shortfall(0.99) > walk.value_at_risk(0.99)).all()


def test_each_span_is_forecast_by_the_refit_before_it(source):
    """The chain by hand: a fresh fit, then fits from the weights of the one before."""
    walk = forecast(source, REFITS, end="2019-09-20", seeds=(4,))
    rows = [source.panel.row(date) for date in REFITS]
    weights, values = None, []
    for row, stop in zip(rows, [*rows[1:], source.panel.row("2019-09-20") + 1], strict=True):
        model = refit(make_model, source, row, 4, weights, **OPTIONS)
        weights = {name: value.clone() for name, value in model.network.state_dict().items()}
        values.append(model.forecast(source.panel, source.panel.dates[row:stop]).value_at_risk(0.99))
    assert torch.equal(walk.value_at_risk(0.99), torch.cat(values))


@pytest.mark.parametrize("layout", ["asset", "panel"])
def test_what_comes_after_a_refit_changes_no_forecast_at_or_before_it(source, layout):
    """Prices after the second refit are replaced; forecasts as of every later date change, none up to it."""
    panel = source.panel
    cut = panel.row(REFITS[1])
    generator = torch.Generator().manual_seed(0)
    values = panel.values.clone()
    values[cut + 1 :] *= torch.exp(0.2 * torch.randn(values[cut + 1 :].shape, generator=generator))
    other = dataclasses.replace(panel, values=values)
    kind, make = (WindowSource, make_model) if layout == "asset" else (PanelWindowSource, make_panel_model)
    options = OPTIONS | {"data": OPTIONS["data"] | {"half_life": 200.0}}
    options |= {"end": "2019-08-20"}
    walks = [walk_forward(p, make, REFITS[:2], source=kind(p, SPEC), **options).forecast for p in (panel, other)]
    early = walks[0].dates <= REFITS[1]
    assert 0 < early.sum() < len(early)
    for a, b in zip(*map(risk, walks), strict=True):
        assert torch.equal(a[early], b[early])
        assert not (a[~early] == b[~early]).flatten(1).all(1).any()


def test_without_a_warm_start_each_refit_stands_alone(source):
    options = {"end": "2019-08-09", "seeds": (3,)}
    both = forecast(source, REFITS[:2], warm_start=False, **options)
    alone = forecast(source, REFITS[1:2], warm_start=False, **options)
    late = torch.as_tensor(np.asarray(both.dates >= REFITS[1]))
    assert torch.equal(both.value_at_risk(0.99)[late], alone.value_at_risk(0.99))
    warm = forecast(source, REFITS[:2], **options)
    assert not torch.equal(warm.value_at_risk(0.99)[late], alone.value_at_risk(0.99))


class Pickling(Executor):
    """Runs calls in turn from pickled functions and arguments, as another process would."""

    def submit(self, function, /, *args, **kwargs):
        function, args, kwargs = pickle.loads(pickle.dumps((function, args, kwargs)))  # noqa: S301
        future = Future()
        try:
            future.set_result(pickle.loads(pickle.dumps(function(*args, **kwargs))))  # noqa: S301
        except Exception as error:  # noqa: BLE001 - as every executor does
            future.set_exception(error)
        return future


def test_a_refit_is_a_pure_function_of_what_can_be_pickled(source, walk):
    torch.manual_seed(99)
    again = forecast(source, REFITS, end="2019-10-04", seeds=(0, 1), executor=Pickling())
    for a, b in zip(risk(walk), risk(again), strict=True):
        assert torch.equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("warm", [True, False])
def test_processes_give_the_same_forecast(source, warm):
    options = {"end": "2019-10-04", "seeds": (0, 1), "warm_start": warm}
    walks = [forecast(source, REFITS, **options | more) for more in ({}, {"workers": 2})]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        walks.append(forecast(source, REFITS, executor=pool, **options))
    for walk in walks[1:]:
        for a, b in zip(risk(walks[0]), risk(walk), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=0)


def test_what_makes_no_walk_is_named(source):
    walk = partial(walk_forward, source.panel, make_model, source=source, **OPTIONS)
    with pytest.raises(ValueError, match="ascending dates up to its end, 2019-12-30; they are at .*08"):
        walk(["2019-08-01", "2019-07-04"])
    with pytest.raises(ValueError, match="up to its end, 2019-07-01"):
        walk(REFITS, end="2019-07-01")
    with pytest.raises(ValueError, match="there are 0 seeds"):
        walk(REFITS, seeds=())
    with pytest.raises(DataError, match="2019-07-06 is not a date"):
        walk(["2019-07-06"])
    with pytest.raises(RefitError, match="refit at 2018-02-01, seed 0, failed .* knows 21 rows of the panel, too few"):
        walk(["2018-02-01"])


def test_the_last_date_of_a_panel_can_be_a_refit(source):
    last = source.panel.dates[-1]
    assert list(forecast(source, [last]).dates) == [last]


COIN = Calendar("COIN", close="24:00", weekdays="Mon Tue Wed Thu Fri Sat Sun")


@pytest.mark.parametrize(
    ("codes", "as_of", "schedule", "last", "refit"),
    [
        *itertools.product(
            ["XNYS", "XNYS XECB"], [None, "16:30 Europe/London"], ["month"], ["2019-08-29", "2019-08-30"], [None]
        ),
        ("XNYS", "15:00 America/New_York", "month", "2024-03-28", True),  # Good Friday follows
        ("24/7", "16:30 Europe/London", "month", "2019-08-30", False),  # a Friday, before Saturday the 31st
        ("24/7", "16:30 Europe/London", "month", "2019-08-31", True),
        ("24/7 XNYS", "16:30 Europe/London", "month", "2019-08-30", False),
        ("24/7 XNYS", "23:00 Europe/London", "month", "2019-08-30", False),
        ("COIN XNYS", "16:30 Europe/London", "month", "2019-08-30", False),
        ("XTKS", "12:00 Asia/Tokyo", "year", "2019-12-30", True),  # the 31st is a holiday
    ],
)
def test_a_schedule_is_that_of_a_longer_panel(codes, as_of, schedule, last, refit):
    """30 August is the last session of a month, which a panel that ends there knows by its calendars."""
    start, end = (pd.Timestamp(last) + pd.Timedelta(days=days) for days in (-70, 11))
    known = {code: "24/7" if code == "COIN" else code for code in codes.split()}
    frame = make_prices(known, f"{start:%Y-%m-%d}", f"{end:%Y-%m-%d}")
    longer = Panel.from_frame(
        frame.drop(columns="exchange"), exchange={c: c for c in known}, calendars=[COIN], as_of=as_of
    )
    rows, stop = refit_rows(longer.until(last), schedule, longer.dates[5], None)
    assert (rows, stop) == refit_rows(longer, schedule, longer.dates[5], last)
    assert (rows[-1] == stop - 1) == (last == "2019-08-30" if refit is None else refit)


def test_a_walk_reads_its_dates_as_a_panel_does():
    panel = Panel.from_frame(make_prices({"AAA": "XNYS"}, "2019-06-03", "2019-09-10"))
    walk = partial(refit_rows, panel, start="2019-06-10", end=None)
    assert walk("month", start=datetime.date(2019, 6, 10)) == walk("month")
    zoned = pd.Timestamp("2019-07-01", tz="America/New_York")
    for name in ("start", "end"):
        with pytest.raises(DataError, match=f"{name} is .*a date without a time zone"):
            walk("month", **{name: zoned})
    with pytest.raises(DataError, match="date is .*a date without a time zone"):
        walk([zoned], start=None)
    with pytest.raises(DataError, match="end=2019-01-01 is before the panel's first date, 2019-06-03"):
        walk(["2019-07-01"], start=None, end="2019-01-01")
    with pytest.raises(ValueError, match="True"):
        walk(True)
