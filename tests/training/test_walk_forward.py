import dataclasses
import pickle
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import numpy as np
import pytest
import torch

from qtorch.data import DataError, PanelWindowSource, WindowSource, WindowSpec
from qtorch.distributions import Mixture
from qtorch.models import Garch, default_ensemble
from qtorch.training import Ensemble, mixed, refit, walk_forward
from qtorch.training.walk_forward import known_by
from tests.training.runs import SPEC, Across, same_weights, small_model, small_panel

REFITS = ["2019-07-04", "2019-08-01", "2019-09-03"]
OPTIONS = {
    "max_epochs": 2,
    "warm_epochs": 1,
    "validation_sessions": 60,
    "data": {"batch_size": 8, "batches_per_epoch": 3},
    "training": {"averaging": 0.5, "accelerator": "cpu"},
}


def make_model():
    """From torch's generator, as a walk wants it."""
    return small_model(seed=torch.initial_seed())


def make_panel_model():
    return small_model(seed=torch.initial_seed(), encoder=Across(len(SPEC.features)))


@pytest.fixture(scope="module")
def source():
    return WindowSource(small_panel(), SPEC)


@pytest.fixture(scope="module")
def walk(source):
    return walk_forward(make_model, source, REFITS, end="2019-10-04", seeds=(0, 1), **OPTIONS)


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
    walk = walk_forward(make_model, source, REFITS, end="2019-09-20", seeds=(4,), **OPTIONS)
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
    walks = [walk_forward(make, kind(p, SPEC), REFITS[:2], end="2019-08-20", **options) for p in (panel, other)]
    early = walks[0].dates <= REFITS[1]
    assert 0 < early.sum() < len(early)
    for a, b in zip(*map(risk, walks), strict=True):
        assert torch.equal(a[early], b[early])
        assert not (a[~early] == b[~early]).flatten(1).all(1).any()


def test_targets_of_training_and_validation_are_known_by_the_refit(source):
    row = source.panel.row(REFITS[1])
    data = known_by(source, row, 60, {"batch_size": 8})
    for span, first, last in ((data.training, 0, row - 60), (data.validation, row - 59, row)):
        assert span.known_by == last
        rows, _ = source.places(span.entries)
        assert first <= rows.min() <= rows.max() < last
        _, known, until = source.targets(span.entries)
        window = source.gather(span.entries, known_by=span.known_by)
        assert (until[window.target_mask] <= last).all()
        assert (window.target_mask < known).any()  # some long targets reach beyond, and are masked


def test_without_a_warm_start_each_refit_stands_alone(source):
    options = OPTIONS | {"warm_start": False, "seeds": (3,)}
    both = walk_forward(make_model, source, REFITS[:2], end="2019-08-09", **options)
    alone = walk_forward(make_model, source, REFITS[1:2], end="2019-08-09", **options)
    late = torch.as_tensor(np.asarray(both.dates >= REFITS[1]))
    assert torch.equal(both.value_at_risk(0.99)[late], alone.value_at_risk(0.99))
    warm = walk_forward(make_model, source, REFITS[:2], end="2019-08-09", **options | {"warm_start": True})
    assert not torch.equal(warm.value_at_risk(0.99)[late], alone.value_at_risk(0.99))


class Pickling(Executor):
    """Runs calls in turn from pickled functions and arguments, as another process would."""

    def submit(self, function, /, *args, **kwargs):
        function, args, kwargs = pickle.loads(pickle.dumps((function, args, kwargs)))  # noqa: S301
        future = Future()
        future.set_result(pickle.loads(pickle.dumps(function(*args, **kwargs))))  # noqa: S301
        return future


def test_a_refit_is_a_pure_function_of_what_can_be_pickled(source, walk):
    torch.manual_seed(99)
    options = OPTIONS | {"end": "2019-10-04", "seeds": (0, 1), "executor": Pickling()}
    again = walk_forward(make_model, source, REFITS, **options)
    for a, b in zip(risk(walk), risk(again), strict=True):
        assert torch.equal(a, b)


@pytest.mark.slow
def test_a_pool_of_processes_gives_the_same_forecast(source, walk):
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        options = OPTIONS | {"end": "2019-10-04", "seeds": (0, 1), "executor": pool}
        again = walk_forward(make_model, source, REFITS, **options)
    for a, b in zip(risk(walk), risk(again), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=0)


def test_what_makes_no_walk_is_named(source):
    walk = partial(walk_forward, make_model, source, **OPTIONS)
    with pytest.raises(
        ValueError, match="ascending dates up to its end, 2019-12-30; there are 1 seeds and refits at .*08"
    ):
        walk(["2019-08-01", "2019-07-04"])
    with pytest.raises(ValueError, match="up to its end, 2019-07-01"):
        walk(REFITS, end="2019-07-01")
    with pytest.raises(ValueError, match="there are 0 seeds"):
        walk(REFITS, seeds=())
    with pytest.raises(DataError, match="2019-07-06 is not a date"):
        walk(["2019-07-06"])
    with pytest.raises(DataError, match="refit at 2018-02-01 knows 21 rows of the panel, too few for 60 of"):
        walk(["2018-02-01"])


def test_the_last_date_of_a_panel_can_be_a_refit(source):
    last = source.panel.dates[-1]
    assert list(walk_forward(make_model, source, [last], **OPTIONS).dates) == [last]


def test_an_ensemble_forecasts_the_mixture_of_its_members(source):
    models = [small_model(seed).eval() for seed in range(3)]
    panel, dates = source.panel, source.panel.dates[-2:]
    ensemble = Ensemble(models)
    forecast = ensemble.forecast(panel, dates, source=source)
    x = torch.tensor(-0.02)
    cdfs = [model.forecast(panel, dates).distribution.cdf(x) for model in models]
    torch.testing.assert_close(forecast.distribution.cdf(x), torch.stack(cdfs).double().mean(0), rtol=1e-5, atol=1e-7)
    tails = torch.stack([model.forecast(panel, dates).value_at_risk(0.99) for model in models])
    var = forecast.value_at_risk(0.99)
    assert (tails.amin(0) <= var).all()
    assert (var <= tails.amax(0)).all()
    assert len(forecast.to_frame()) == 2 * 2 * 4 * 3
    assert forecast.select(slice(0, 1)).value_at_risk(0.99).shape == (1, 2, 4)
    one_day = ensemble.forecast(panel, f"{dates[-1]:%Y-%m-%d}")
    torch.testing.assert_close(one_day.value_at_risk(0.99), var[-1:], rtol=1e-5, atol=0)
    one = Ensemble(models[:1]).forecast(panel, dates)
    assert torch.equal(one.value_at_risk(0.99), models[0].forecast(panel, dates).value_at_risk(0.99))
    nested = Ensemble([Ensemble(models[:2]), Ensemble(models[1:])]).forecast(panel, dates)
    mean = (cdfs[0] + 2 * cdfs[1] + cdfs[2]).double() / 4
    torch.testing.assert_close(nested.distribution.cdf(x), mean, rtol=1e-5, atol=1e-7)


def test_there_is_a_mixture_where_all_have_a_forecast(source):
    models = [small_model(seed).eval() for seed in range(2)]
    parts = [model.forecast(source.panel, source.panel.dates[-2:]) for model in models]
    holes = parts[1].mask.clone()
    holes[0, 2] = False
    forecast = mixed([parts[0], dataclasses.replace(parts[1], mask=holes)])
    assert torch.equal(forecast.mask, holes)
    assert torch.equal(forecast.value_at_risk(0.99)[:, 0].isfinite(), holes)


def test_what_cannot_be_mixed_is_named(source):
    model = small_model()
    a, b = (model.forecast(source.panel, source.panel.dates[k]) for k in (-1, -2))
    with pytest.raises(ValueError, match="forecasts of the same dates are mixed"):
        mixed([a, b])
    with pytest.raises(ValueError, match="forecasts of the same horizons"):
        mixed([a, dataclasses.replace(a, horizons=(1, 2))])
    with pytest.raises(ValueError, match="at least one model"):
        Ensemble([])
    with pytest.raises(ValueError, match="2 models need as many weights of 0 or more"):
        Ensemble([model, model], [1.0])
    with pytest.raises(ValueError, match="weights of 0 or more"):
        mixed([a, a], [1.0, -0.5])
    with pytest.raises(ValueError, match="1 models need as many weights"):
        mixed([a], [1.0, 2.0])


def test_models_of_several_kinds_are_mixed_by_weight(source):
    networks = [small_model(seed).eval() for seed in range(2)]
    ensemble = default_ensemble(networks, garch=0.4)
    panel, dates = source.panel, source.panel.dates[-3:]
    forecast = ensemble.forecast(panel, dates, source=source)
    garch = Garch(o=1, errors="skewed_t", refit_every=250, spec=WindowSpec(horizons=networks[0].spec.horizons))
    x = torch.tensor(-0.02)
    parts = [model.forecast(panel, dates, source=source).distribution.cdf(x).double() for model in (*networks, garch)]
    expected = 0.3 * (parts[0] + parts[1]) + 0.4 * parts[2]
    torch.testing.assert_close(forecast.distribution.cdf(x), expected, rtol=1e-6, atol=1e-9)
    assert forecast.value_at_risk(0.99)[:, 0][forecast.mask].gt(0).all()
    assert forecast.select(slice(0, 1)).expected_shortfall(0.99).shape == (1, 2, 4)
    assert default_ensemble(networks, garch=0.0).models == tuple(networks)
    nested = Ensemble([default_ensemble(networks[:1]), ensemble]).forecast(panel, dates, source=source)
    expected = 0.5 * (0.8 * parts[0] + 0.2 * parts[2]) + 0.5 * expected
    torch.testing.assert_close(nested.distribution.cdf(x), expected, rtol=1e-6, atol=1e-9)
    with pytest.raises(ValueError, match="same horizons"):
        default_ensemble([])
    with pytest.raises(ValueError, match="garch=1.0"):
        default_ensemble(networks, garch=1.0)


def test_a_refit_does_not_depend_on_the_state_of_the_process(source):
    row = source.panel.row(REFITS[0])
    models = []
    for state in (0, 123):
        torch.manual_seed(state)
        models.append(refit(make_model, source, row, 7, **OPTIONS))
    assert same_weights(*models)
    assert not same_weights(models[0], refit(make_model, source, row, 8, **OPTIONS))
