"""What can be walked beside forecasters: allocators and baselines."""

import dataclasses
import sys
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

from qtorch.backtest import RefitError, walk_forward
from qtorch.data import Panel, WindowSource
from qtorch.deploy import load
from qtorch.models import HAR, AssetGraph, Garch, GraphCovariance, Recurrent, RiskMetrics, default_ensemble
from qtorch.portfolio import MinimumVariance
from qtorch.training import Allocator, Ensemble, refit_allocator
from qtorch.training.refit import modules
from tests.conftest import make_prices
from tests.training.runs import SPEC, small_model, small_panel

refits = sys.modules["qtorch.training.refit"]  # the package has the function of this name
REFITS = ["2019-08-01", "2019-08-06"]
TRAINING = {"batch_size": 2, "accelerator": "cpu"}
OPTIONS = {"steps": 2, "warm_steps": 1, "training": TRAINING, "end": "2019-08-13"}


def make_allocator(**layer) -> Allocator:
    states = AssetGraph(Recurrent(len(SPEC.features), width=4, dropout=0.0), estimates=2, width=8)
    settings = {"half_lives": (63.0, 126.0), "every": 42, "length": 1, "min_history": 250}
    return Allocator(GraphCovariance(states), MinimumVariance(upper=0.5, **layer), SPEC, **settings)


@pytest.fixture(scope="module")
def panel() -> Panel:
    return small_panel()


@pytest.fixture(scope="module")
def walk(panel):
    return walk_forward(panel, make_allocator, REFITS, **OPTIONS)


def test_an_allocators_weights_are_those_of_the_refit_before_around_what_is_held(panel, walk):
    """By hand: fits from the weights of the one before, and an account that pays and drifts, through both of them."""
    before, parts = None, []
    returns, held = panel.returns().nan_to_num().numpy(), np.zeros(len(panel.assets))
    for refit, until in (("2019-08-01", "2019-08-05"), ("2019-08-06", "2019-08-13")):
        options = {"steps": 2, "warm_steps": 1, "training": TRAINING}
        model = refit_allocator(make_allocator, panel, panel.row(refit), 0, before, **options)
        before = {name: value.clone() for name, value in modules(model).state_dict().items()}
        for date in panel.dates[(panel.dates >= refit) & (panel.dates <= until)]:
            row = panel.row(date)
            now = dict(zip(panel.assets, held, strict=True)) if held.any() else None
            parts.append(model.allocate(panel, date, now))
            open_ = panel.mask[row].numpy()
            w = np.where(open_, parts[-1].to_numpy()[0], held)
            earned = w @ returns[row + 1] - model.costs.proportional * np.abs(w - held).sum()
            closed = walk.weights.loc[date].to_numpy()[~open_]
            np.testing.assert_allclose(closed, held[~open_], atol=1e-6)
            held = w * (1 + returns[row + 1]) / (1 + earned)
    assert not panel.mask[panel.row("2019-08-12"), panel.assets.index("TTT")]  # so that a closed market is tried
    pd.testing.assert_frame_equal(walk.weights, pd.concat(parts), atol=1e-6)
    torch.testing.assert_close(torch.tensor(walk.weights.to_numpy()).sum(1), torch.ones(9).double(), atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="of an allocator and has no forecast"):
        _ = walk.forecast


def test_what_comes_later_changes_no_weight(panel, walk):
    cut = panel.row(REFITS[1])
    values = panel.values.clone()
    torch.manual_seed(0)
    values[cut + 1 :] *= torch.exp(0.2 * torch.randn(values[cut + 1 :].shape))
    other = walk_forward(dataclasses.replace(panel, values=values), make_allocator, REFITS, **OPTIONS)
    early = walk.dates <= REFITS[1]
    pd.testing.assert_frame_equal(walk.weights[early], other.weights[early], check_exact=True)
    assert (walk.weights[~early] != other.weights[~early]).any(axis=1).all()


def traded(panel, walk):
    """Of all dates but the first, against what the day before has drifted to."""
    returns = panel.returns().nan_to_num().numpy()[[panel.row(date) for date in walk.dates[1:]]]
    before = walk.weights.to_numpy()[:-1] * (1 + returns)
    return np.abs(walk.weights.to_numpy()[1:] - before / before.sum(1, keepdims=True)).sum()


@pytest.mark.parametrize("layer", [{"reluctance": 5.0}, {"inertia": 5.0}])
def test_reluctance_and_inertia_trade_less(panel, walk, layer):
    calm = walk_forward(panel, partial(make_allocator, **layer), REFITS, **OPTIONS)
    assert traded(panel, calm) < 0.5 * traded(panel, walk)


def test_weights_of_several_seeds_are_their_mean(panel, walk):
    of_one_date = partial(walk_forward, panel, make_allocator, REFITS[:1], **OPTIONS | {"end": REFITS[0]})
    both, other = (of_one_date(seeds=seeds).weights for seeds in ((0, 1), (1,)))
    assert not np.allclose(walk.weights[:1], other)
    pd.testing.assert_frame_equal(both, (walk.weights[:1] + other) / 2)


def test_an_allocators_walk_leaves_the_callers_generators_alone(panel, tmp_path):
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002 - which Lightning seeds
    for _ in range(2):  # the second time of what is kept
        walk_forward(panel, make_allocator, REFITS[:1], folder=tmp_path, **OPTIONS)
        assert torch.equal(torch.get_rng_state(), before[0])
        assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


def test_an_allocators_walk_goes_on_where_it_stopped(panel, walk, tmp_path, monkeypatch):
    fit, rows = refits.fit_allocator, []

    def failing(model, panel, until, **options):
        rows.append(until)
        if len(rows) == 2:
            raise MemoryError("no room")
        fit(model, panel, until, **options)

    monkeypatch.setattr(refits, "fit_allocator", failing)
    with pytest.raises(RefitError, match="refit at 2019-08-06"):
        walk_forward(panel, make_allocator, REFITS, folder=tmp_path, **OPTIONS)
    again = walk_forward(panel, make_allocator, REFITS, folder=tmp_path, **OPTIONS)
    assert [f"{row:%m-%d}" for row in rows] == ["08-01", "08-06", "08-06"]
    pd.testing.assert_frame_equal(again.to_frame(), walk.to_frame(), check_exact=True)
    assert load(tmp_path / "refit=2019-08-06" / "seed=0", Allocator)[1] == {"refit": "2019-08-06", "seed": 0}


@pytest.mark.parametrize("model", [partial(HAR, window=60, least=30), partial(Garch, window=120, least=60)])
def test_a_baseline_is_estimated_at_each_refit(panel, model):
    walk = walk_forward(panel, model, REFITS, end="2019-08-09")
    spans = (("2019-08-01", "2019-08-05"), ("2019-08-06", "2019-08-09"))
    parts = [model().forecast(panel, panel.dates[panel.dates.slice_indexer(*span)]) for span in spans]
    expected = torch.cat([part.value_at_risk(0.99) for part in parts])
    assert torch.equal(walk.forecast.value_at_risk(0.99), expected)
    once = model().forecast(panel, walk.dates).value_at_risk(0.99)
    assert torch.equal(once[: len(parts[0].dates)], expected[: len(parts[0].dates)])
    assert not torch.equal(once, expected)
    with pytest.raises(ValueError, match="of a forecaster and has no weights"):
        _ = walk.weights


def test_a_baseline_that_estimates_nothing_is_asked_the_same_in_parts(panel):
    walk = walk_forward(panel, RiskMetrics, "month", start="2019-03-02", end="2019-10-20")
    refits = ["2019-03-04", *pd.Series(walk.dates, walk.dates).resample("ME").max().dt.strftime("%Y-%m-%d")][:-1]
    assert list(walk.refits.unique()) == list(pd.DatetimeIndex(refits))
    once = RiskMetrics().forecast(panel, walk.dates)
    assert torch.equal(walk.forecast.value_at_risk(0.99), once.value_at_risk(0.99))


def test_arguments_for_other_models_are_refused(panel):
    with pytest.raises(ValueError, match="training: not for a RiskMetrics"):
        walk_forward(panel, RiskMetrics, REFITS, training={"averaging": 0.5})
    with pytest.raises(ValueError, match="validation_sessions, data: not for a Allocator"):
        walk_forward(panel, make_allocator, REFITS, validation_sessions=3, data={"batch_size": 3})
    for model, given, named in (
        (RiskMetrics, {"seeds": (1, 2), "warm_start": False}, "seeds, warm_start: not for a RiskMetrics"),
        (RiskMetrics, {"max_epochs": 3, "steps": 5}, "max_epochs, steps: not for a RiskMetrics"),
        (make_allocator, {"warm_epochs": 1}, "warm_epochs: not for a Allocator"),
        (small_model, {"steps": 5, "warm_steps": 1}, "steps, warm_steps: not for a Forecaster"),
    ):
        with pytest.raises(ValueError, match=named):
            walk_forward(panel, model, REFITS, **given)
    with pytest.raises(ValueError, match="networks are not trained by a walk"):
        walk_forward(panel, lambda: Ensemble([default_ensemble([small_model()])]), REFITS)
    others = WindowSource(Panel.from_frame(make_prices({"A": "XNYS"}, "2019-01-02", "2019-08-30")), SPEC)
    with pytest.raises(ValueError, match="windows of another panel"):
        walk_forward(panel, RiskMetrics, REFITS, source=others)
    with pytest.raises(ValueError, match="needs a start"):
        walk_forward(panel, RiskMetrics, "month")
    with pytest.raises(ValueError, match="leave start=2019-01-02 out"):
        walk_forward(panel, RiskMetrics, REFITS, start="2019-01-02")
    with pytest.raises(ValueError, match="no row of the panel is from start=2020-01-02"):
        walk_forward(panel, RiskMetrics, 5, start="2020-01-02")
