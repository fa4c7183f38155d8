"""The two verbs of every model: fit and predict."""

import lightning
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from qtorch import Forecaster, heads, models
from qtorch.data import DataError, DataModule, Panel, WindowSpec
from qtorch.models import HAR, FilteredHistoricalSimulation, Garch, HistoricalSimulation, RiskMetrics
from qtorch.training import Ensemble, fit
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
    before = [each.clone() for each in small(seed=1).network.parameters()]
    options = {"max_epochs": 1, "limit_train_batches": 1} if isinstance(model, Forecaster | Ensemble) else {}
    dates = market.dates[-2:]
    forecast = model.fit(market, until=UNTIL, **options).predict(market, dates)
    assert forecast.mask.all()
    assert list(forecast.dates) == list(dates)
    if isinstance(model, Ensemble):
        for member in (model.models[0], model.models[1].models[0]):
            assert any(not torch.equal(a, b) for a, b in zip(before, member.network.parameters(), strict=True))
    with pytest.raises(DataError, match="before the panel's first date, 2018-06-01"):
        model.fit(market, until="2017-01-02")


def test_an_allocator_has_the_same_verbs(market):
    model = allocator("covariance").fit(market, until=UNTIL, steps=1, batch_size=1, min_assets=2)
    assert model.trainer.global_step == 1
    weights = model.predict(market)
    assert list(weights.index) == [market.dates[-1]]
    pd.testing.assert_frame_equal(weights, model.allocate(market, market.dates[-1]))


def test_the_verbs_are_no_names_of_lightnings():
    assert not {"fit", "predict"} & set(dir(lightning.LightningModule))
