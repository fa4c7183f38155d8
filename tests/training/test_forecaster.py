import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from qtorch import Forecaster, heads, models
from qtorch.data import DataError, DataModule, Panel, WindowSource, WindowSpec
from qtorch.data.windows import outcomes
from qtorch.training import fit
from tests.conftest import make_model, make_prices


@pytest.fixture(scope="module")
def frame():
    return make_prices({"AAA": "XNYS", "BBB": "XNYS", "TTT": "XTKS", "EEE": "XECB"}, "2018-01-04", "2019-12-30", 2)


def split(panel, spec, **options):
    return DataModule(
        panel,
        spec,
        validation_start="2019-06-03",
        test_start="2019-09-02",
        batches_per_epoch=5,
        batch_size=8,
        **options,
    )


def train(panel, spec):
    torch.manual_seed(7)
    model = make_model(spec)
    fit(model, split(panel, spec), max_epochs=2)
    return model


def test_a_forecast_is_dense_masked_and_in_decimals(frame, model):
    panel = Panel.from_frame(frame)
    forecast = model.forecast(panel, ["2018-02-01", "2019-07-04", "2019-12-30"])
    assert forecast.distribution.batch_shape == (3, 2, 4)
    assert forecast.mask.tolist() == [[False] * 4, [True] * 4, [True] * 4]
    var, es = forecast.value_at_risk(0.99), forecast.expected_shortfall(0.99)
    assert var[0].isnan().all()
    assert (es[1:] > var[1:]).all()
    assert 0.005 < var[1:, 0].median() < 0.1
    table = forecast.to_frame()
    assert len(table) == 2 * 4 * 2 * 3
    closed = table[(table["date"] == "2019-07-04") & (table["asset"] == "AAA")]
    assert set(closed["state"]) == {"CLOSED"}
    row = table[(table["asset"] == "TTT") & (table["horizon"] == 5) & (table["level"] == 0.99)].iloc[-1]
    assert row["value_at_risk"] == var[-1, 1, panel.assets.index("TTT")].item()


def test_a_closed_market_keeps_the_forecast_of_its_last_session(frame, model):
    panel = Panel.from_frame(frame)
    forecast = model.forecast(panel, ["2019-07-03", "2019-07-04"])
    n = panel.assets.index("AAA")
    assert torch.equal(*forecast.value_at_risk(0.99)[:, :, n])


def test_forecasts_do_not_depend_on_the_batch_size(frame, model):
    panel = Panel.from_frame(frame)
    a, b = (model.forecast(panel, panel.dates[-20:], batch_size=size).value_at_risk(0.99) for size in (7, 1000))
    torch.testing.assert_close(a, b, rtol=1e-5, atol=0)


def test_permuting_assets_permutes_the_forecast(frame, model):
    panel = Panel.from_frame(frame)
    order = [2, 0, 3, 1]
    turned = panel.select([panel.assets[i] for i in order])
    a, b = (model.forecast(p, panel.dates[-5:]).value_at_risk(0.99) for p in (panel, turned))
    torch.testing.assert_close(a[..., order], b, rtol=1e-5, atol=1e-7)


def test_unobserved_values_change_no_bit(frame, model):
    holes = frame.drop(index=frame.sample(frac=0.05, random_state=1).index)
    panel = Panel.from_frame(holes)
    values = panel.values.clone()
    values[~panel.mask] += 50
    other = dataclasses.replace(panel, values=values)
    a, b = (model.forecast(p, panel.dates[-50:]).value_at_risk(0.99) for p in (panel, other))
    assert torch.equal(a.nan_to_num(), b.nan_to_num())


def test_the_whole_pipeline_knows_nothing_of_the_future(frame, spec):
    """Training, scale and forecasts up to a date are bit for bit the same whatever comes later."""
    cut = pd.Timestamp("2019-09-12")
    later = frame["date"] > cut
    shock = np.exp(0.3 * np.random.default_rng(0).standard_normal(later.sum()))
    changed = frame.assign(close=frame["close"].where(~later, frame["close"]))
    changed.loc[later, "close"] *= shock
    results = []
    for data in (frame, changed):
        panel = Panel.from_frame(data)
        model = train(panel, spec)
        dates = panel.dates[panel.dates <= cut][-60:]
        forecast = model.forecast(panel, dates)
        everything = model.forecast(panel, panel.dates[-200:])
        results.append((model.state_dict(), forecast, everything))
    (weights, a, a_all), (other, b, b_all) = results
    assert all(torch.equal(weights[name], other[name]) for name in weights)
    for level in (0.95, 0.99):
        assert torch.equal(a.value_at_risk(level), b.value_at_risk(level))
        assert torch.equal(a.expected_shortfall(level), b.expected_shortfall(level))
        early = a_all.dates <= cut
        assert torch.equal(a_all.value_at_risk(level)[early], b_all.value_at_risk(level)[early])
        assert not torch.equal(a_all.value_at_risk(level)[~early], b_all.value_at_risk(level)[~early])


def _sums(model, window):
    losses, weight = model.losses(window)
    return (weight * losses["loss"]).sum(), weight.sum()


def test_training_improves_on_the_fresh_model_where_there_is_something_to_learn(spec):
    """Volatility doubles on every second day of a long calm-storm cycle; a constant-scale start cannot know."""
    rng = np.random.default_rng(0)
    frame = make_prices({f"A{i}": "XNYS" for i in range(6)}, "2012-01-03", "2019-12-30")
    for _, index in frame.groupby("asset").groups.items():
        wild = np.arange(len(index)) % 2 == 0
        steps = rng.standard_normal(len(index)) * np.where(wild, 0.03, 0.004)
        frame.loc[index, "close"] = 100 * np.exp(np.cumsum(steps))
    panel = Panel.from_frame(frame)
    encoder = models.Transformer(len(spec.features), width=16, depth=1, heads=2, dropout=0.0, input_noise=0.0)
    model = Forecaster(encoder, heads.SkewedStudentT(16, spec.horizons), spec, learning_rate=1e-2)
    data = DataModule(panel, spec, validation_start="2018-01-02", batches_per_epoch=40, batch_size=16)
    with torch.no_grad():
        sums = torch.tensor([_sums(model, w) for w in data.val_dataloader()]).sum(0)
    assert fit(model, data, max_epochs=4) < sums[0] / sums[1] - 0.2


def test_masked_targets_add_nothing_to_the_loss(frame, model, spec):
    source = WindowSource(Panel.from_frame(frame), spec)
    window = source.gather(source.entries()[-30:])
    assert not window.target_mask.all()
    junk = torch.where(window.target_mask, window.target, 99.0)
    changed = dataclasses.replace(window, target=junk)
    assert torch.equal(model.mean_loss(window), model.mean_loss(changed))
    model.mean_loss(changed).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_training_on_every_position_equals_the_windows_one_by_one(frame, model, spec):
    """With full windows the causal encoder gives at each position what a window cut there would give."""
    source = WindowSource(Panel.from_frame(frame), spec)
    entries = source.entries(first=200)[:4]
    window = source.gather(entries, every_position=True)
    every = model.network(window.inputs, window.mask, every_position=True)
    for c in (3, 9, 15):
        mask = window.mask.clone()
        shorter = model.network(window.inputs[:, : c + 1], mask[:, : c + 1])
        for a, b in zip(every, shorter, strict=True):
            torch.testing.assert_close(a[:, c], b, rtol=1e-4, atol=1e-6)


def test_pit_of_the_true_law_is_uniform(spec):
    from scipy import stats

    frame = make_prices({f"A{i}": "XNYS" for i in range(8)}, "2017-01-03", "2019-12-30")
    rng = np.random.default_rng(1)
    for _, index in frame.groupby("asset").groups.items():
        frame.loc[index, "close"] = 100 * np.cumprod(1 + 0.01 * rng.standard_normal(len(index)))
    panel = Panel.from_frame(frame)
    source = WindowSource(panel, spec)
    model = make_model(spec)
    rows = np.arange(100, len(panel.dates) - 1)
    forecast = model.forecast(panel, panel.dates[rows], source=source)
    true = dataclasses.replace(
        forecast, distribution=torch.distributions.Normal(torch.zeros(forecast.distribution.batch_shape), 0.01)
    )
    returns, _ = outcomes(source, rows)
    pit = true.pit(returns)[:, 0]
    assert stats.kstest(pit[pit.isfinite()].numpy(), "uniform").pvalue > 0.01


def test_what_does_not_fit_together_is_named(frame, model, spec):
    with pytest.raises(ValueError, match="head's horizons are"):
        Forecaster(model.network.encoder, heads.SkewedStudentT(16, (1, 2)), spec)
    with pytest.raises(ValueError, match="encoder's in_features are 3, but the windows have 17"):
        Forecaster(models.Transformer(3), heads.SkewedStudentT(48, spec.horizons), spec)
    panel = Panel.from_frame(frame)
    with pytest.raises(ValueError, match="but the model is fed"):
        fit(model, split(panel, WindowSpec(context=8)))
    with pytest.raises(DataError, match="2019-07-06 is not a date of this panel"):
        model.forecast(panel, "2019-07-06")
    with pytest.raises(DataError, match="nothing to forecast at 2018-01-05"):
        model.forecast(panel, "2018-01-05")


@pytest.mark.gpu
def test_training_and_forecasting_on_a_gpu(frame, spec):
    """A panel on the device, bf16 training, and forecasts as on the CPU."""
    panel = Panel.from_frame(frame)
    model = make_model(spec)
    fit(model, split(panel.to("cuda"), spec), max_epochs=2, accelerator="gpu", precision="bf16-mixed")
    on_gpu = model.to("cuda").forecast(panel.to("cuda"), panel.dates[-20:])
    on_cpu = model.to("cpu").forecast(panel, panel.dates[-20:])
    assert on_gpu.mask.is_cuda
    torch.testing.assert_close(on_gpu.value_at_risk(0.99).cpu(), on_cpu.value_at_risk(0.99), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(
        on_gpu.expected_shortfall(0.99).cpu(), on_cpu.expected_shortfall(0.99), rtol=1e-3, atol=1e-5
    )
