"""The two verbs of every model: fit and predict."""

import lightning
import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from qtorch import Forecaster, heads, models
from qtorch.data import DataError, DataModule, Panel, WindowSpec
from qtorch.errors import BriefInNotebooks
from qtorch.models import HAR, FilteredHistoricalSimulation, Garch, HistoricalSimulation, RiskMetrics
from qtorch.training import Ensemble, Network, Schedule, fit
from tests.conftest import make_prices
from tests.training.test_allocator import allocator

UNTIL = "2019-09-29"  # a Sunday


@pytest.fixture(scope="module")
def frame():
    return make_prices({"AAA": "XNYS", "BBB": "XLON", "CCC": "XTKS"}, "2018-06-01", "2020-01-31")


@pytest.fixture(scope="module")
def market(frame):
    return Panel.from_frame(frame)


def small(layout="asset", seed=0) -> Forecaster:
    torch.manual_seed(seed)
    spec = WindowSpec(context=12, horizons=(1, 5))
    if layout == "asset":
        encoder = models.Recurrent(len(spec.features), width=8)
    else:
        encoder = models.PanelTransformer(len(spec.features), width=8, depth=1, heads=2)
    return Forecaster(encoder, heads.StudentT(encoder.out_features, spec.horizons), spec)


def changed_after_until(frame):
    """The market with other prices after the date, fewer assets and an end of its own."""
    later = frame["date"] > UNTIL
    other = frame.assign(close=frame["close"].where(~later, 7 * frame["close"] ** 1.5))
    return Panel.from_frame(other[(frame["date"] < "2019-12-20") & ~(later & (frame["asset"] == "BBB"))])


@pytest.mark.parametrize("layout", ["asset", "panel"])
def test_a_fit_knows_nothing_after_until(frame, market, layout):
    short = {"max_epochs": 1, "data": {"batch_size": 16, "batches_per_epoch": 3}, "seed": 0}
    first = small(layout).fit(market, until=UNTIL, **short)
    again = small(layout).fit(changed_after_until(frame), until=UNTIL, **short)
    later = small(layout).fit(market, **short)
    weights = [torch.nn.utils.parameters_to_vector(model.network.parameters()) for model in (first, again, later)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_fit_is_the_fit_of_training(market):
    by_method = small().fit(market, until=UNTIL, max_epochs=1, seed=3, data={"batch_size": 32, "seed": 5})
    by_function = small()
    windows = DataModule(market, by_function.spec, validation_start=None, until="2019-09-27", batch_size=32, seed=5)
    fit(by_function, windows, max_epochs=1, seed=3)
    for ours, theirs in zip(by_method.network.parameters(), by_function.network.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def weights_of(module):
    return torch.nn.utils.parameters_to_vector(module.parameters()).detach().clone()


class Steps(Callback):
    def __init__(self) -> None:
        self.taken = 0

    def on_train_batch_end(self, *_: object) -> None:
        self.taken += 1


def test_the_trainers_settings_are_in_reach(market):
    steps = Steps()
    model = small().fit(market, max_epochs=2, callbacks=[steps], limit_train_batches=2, gradient_clip_val=0.5)
    assert steps.taken == 4
    assert isinstance(model.trainer, lightning.Trainer)
    assert (model.trainer.max_epochs, model.trainer.gradient_clip_val, model.training) == (2, 0.5, False)
    with pytest.raises(TypeError, match="colour"):
        small().fit(market, max_epochs=1, colour="blue")


def test_predict_is_forecast_of_the_last_date_by_default(market):
    model = small()
    assert model.predict(market).dates[0] == market.dates[-1], "without a fit, as the head starts"
    dates = market.dates[-3:]
    ours, theirs = model.predict(market, dates, stale=3), model.forecast(market, dates, stale=3)
    assert torch.equal(ours.value_at_risk(0.99), theirs.value_at_risk(0.99))


@pytest.mark.parametrize(
    "make",
    [
        lambda: small(),
        lambda: Ensemble([small(seed=1), Ensemble([small(seed=2)]), RiskMetrics(WindowSpec(horizons=(1, 5)))]),
        RiskMetrics,
        HistoricalSimulation,
        FilteredHistoricalSimulation,
        lambda: Garch(least=50, window=200),
        lambda: HAR(least=50, window=200),
    ],
)
def test_one_line_runs_every_forecaster(market, make):
    model = make()
    networks = [m for m in model.modules() if isinstance(m, Network)] if isinstance(model, Forecaster) else []
    if isinstance(model, Ensemble):
        networks = [model.models[0].network, model.models[1].models[0].network]
    before = [weights_of(network) for network in networks]
    options = {"max_epochs": 1, "limit_train_batches": 1} if isinstance(model, Forecaster | Ensemble) else {}
    dates = market.dates[-2:]
    forecast = model.fit(market, until=UNTIL, **options).predict(market, dates)
    assert forecast.mask.all()
    assert list(forecast.dates) == list(dates)
    assert not any(torch.equal(a, weights_of(b)) for a, b in zip(before, networks, strict=True))
    with pytest.raises(DataError, match="before the panel's first date, 2018-06-01"):
        model.fit(market, until="2017-01-02")


SHORT = {"max_epochs": 1, "data": {"batch_size": 16, "batches_per_epoch": 1}}


def test_members_have_checkpoints_and_callbacks_of_their_own(market, tmp_path):
    steps = Steps()
    pair = [small(seed=1), Ensemble([small(seed=2)]), RiskMetrics(WindowSpec(horizons=(1, 5)))]
    before = [weights_of(model.network) for model in (pair[0], pair[1].models[0])]
    Ensemble(pair).fit(market, checkpoints=tmp_path, callbacks=steps, **SHORT)
    first, second = (weights_of(model.network) for model in (pair[0], pair[1].models[0]))
    assert not torch.equal(first, second)
    assert (before[0] - first).abs().max() < 0.1, "near where it began, and not where the other is"
    assert (before[1] - second).abs().max() < 0.1
    files = sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*.ckpt"))
    assert files == ["member-0/last.ckpt", "member-1/member-0/last.ckpt"]
    assert steps.taken == 0
    assert [s.taken for s in pair[0].trainer.callbacks if isinstance(s, Steps)] == [1]


def test_an_ensemble_calls_every_members_fit_and_refuses_what_none_takes(market):
    class Own:
        def fit(self, panel, *, until=None, **training):
            self.given = until, training
            return self

        def forecast(self, panel, dates, *, source=None):
            raise AssertionError

        predict = forecast

    own = Own()
    Ensemble([own, RiskMetrics()]).fit(market, until=UNTIL, anything=3)
    assert own.given == (UNTIL, {"anything": 3})
    with pytest.raises(DataError, match="before the panel's first date"):
        Ensemble([RiskMetrics()]).fit(market, until="1990-06-01")
    with pytest.raises(ValueError, match="nonsense: no member of this ensemble is trained"):
        Ensemble([Ensemble([RiskMetrics()])]).fit(market, nonsense=3)
    with pytest.raises(ValueError, match="logger: one logger would mix"):
        Ensemble([own, Own()]).fit(market, logger=object())


def test_a_member_that_only_forecasts_is_left_alone_and_takes_no_options(market):
    class Told:
        def forecast(self, panel, dates, *, source=None):
            return RiskMetrics().forecast(panel, dates, source=source)

    ensemble = Ensemble([Told(), RiskMetrics()])
    assert ensemble.fit(market) is ensemble
    with pytest.raises(ValueError, match="max_epochs: no member of this ensemble is trained"):
        ensemble.fit(market, max_epochs=3)


def test_an_exploding_fit_says_so(market):
    model = small()
    model.schedule = Schedule(learning_rate=1e30)
    with pytest.raises(FloatingPointError, match=r"not finite at .* of the assets .*lower the learning rate") as error:
        model.fit(market, data={"batch_size": 16, "batches_per_epoch": 4}, max_epochs=3)
    assert isinstance(error.value, BriefInNotebooks)


def test_arguments_that_undo_each_other_are_refused(market, tmp_path):
    for name in ("source", "until", "validation_start"):
        with pytest.raises(ValueError, match=f"data=.'{name}': ...}}: .*fit"):
            small().fit(market, data={name: None})
    with pytest.raises(ValueError, match="limit_val_batches=0: .*patience=None"):
        small().fit(market, validation_start="2019-10-01", limit_val_batches=0)
    with pytest.warns(UserWarning, match="no epoch has a val_loss"):
        small().fit(market, validation_start="2019-10-01", check_val_every_n_epoch=2, **SHORT)
    for name in ("max_epochs", "max_steps"):
        with pytest.raises(ValueError, match=f"{name}=1: .* Give steps"):
            allocator("covariance").fit(market, **{name: 1})


def test_the_trainers_arguments_are_those_of_a_run(market, tmp_path):
    options = SHORT | {"checkpoints": tmp_path, "gradient_clip_val": 0.5}
    small().fit(market, callbacks=[Steps()], **options)
    with pytest.warns(UserWarning, match="of a run that was finished: .* nothing was trained"):
        small().fit(market, **options)
    with pytest.raises(ValueError, match="gradient_clip_val 0.5 there, 0.25 here"):
        small().fit(market, **options | {"gradient_clip_val": 0.25})


def test_an_allocators_fit_leaves_the_random_generators(market):
    model = allocator("covariance")
    states = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
    model.fit(market, until=UNTIL, steps=1, batch_size=1, min_assets=2)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()  # noqa: NPY002


def test_an_allocator_has_the_same_verbs(market):
    model = allocator("covariance").fit(market, until=UNTIL, steps=1, batch_size=1, min_assets=2)
    assert model.trainer.global_step == 1
    weights = model.predict(market)
    assert list(weights.index) == [market.dates[-1]]
    pd.testing.assert_frame_equal(weights, model.allocate(market, market.dates[-1]))


def test_the_verbs_are_no_names_of_lightnings():
    assert not {"fit", "predict"} & set(dir(lightning.LightningModule))
