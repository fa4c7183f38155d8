"""Forecasters that are fed windows of all assets at once."""

import dataclasses

import numpy as np
import pytest
import torch

from qtorch.data import DataModule, PanelWindowSource, State, WindowSource
from qtorch.deploy import load, save
from qtorch.training import FZ0, LogScore, fit
from tests.training.runs import SPEC, Across, LastOfAll, small_data, small_model, small_panel


@pytest.fixture(scope="module")
def panel():
    return small_panel()


@pytest.fixture
def across():
    return small_model(encoder=Across(len(SPEC.features)))


def test_the_distribution_has_the_shape_of_the_target(panel, across):
    source = PanelWindowSource(panel, SPEC)
    rows = source.entries()[100:105]
    for every_position, shape in ((False, (5, 2, 4)), (True, (5, 8, 2, 4))):
        window = source.gather(rows, every_position=every_position)
        assert across(window).batch_shape == window.target.shape == shape
        losses, weight = across.losses(window)
        assert losses["loss"].shape == weight.shape == shape
        assert (weight[window.target_mask].unique() == torch.tensor([1 / 3, 1.0])).all()
        assert not weight[~window.target_mask].any()


def test_each_cell_is_the_forecast_of_its_own_hidden_state(panel, across):
    """Horizons and assets stand where the target has them."""
    source = PanelWindowSource(panel, SPEC)
    window = source.gather(source.entries()[200:203])
    law = across(window)
    hidden = across.network.encoder(window.inputs, window.mask)[:, -1]
    for n in range(4):
        of_one = across.network.head(hidden[:, n])
        torch.testing.assert_close(law.base.df[:, :, n], of_one.df)
        torch.testing.assert_close(law.scale[:, :, n], window.scale[:, n, None].expand(3, 2))


def test_every_position_is_the_last_position_of_shorter_windows(panel, across):
    source = PanelWindowSource(panel, SPEC)
    window = source.gather(source.entries()[200:203], every_position=True)
    every = across.eval().network(window.inputs, window.mask, True)
    for c in (2, 5):
        last = across.network(window.inputs[:, : c + 1], window.mask[:, : c + 1])
        for a, b in zip(every, last, strict=True):
            torch.testing.assert_close(a[:, c], b)


@pytest.mark.parametrize("kind", [Across, LastOfAll])
def test_it_trains_forecasts_and_is_saved(panel, kind, tmp_path):
    model = small_model(objective=LogScore() + 0.1 * FZ0((0.975,)), encoder=kind(len(SPEC.features)))
    before = [parameter.clone() for parameter in model.parameters()]
    loss = fit(model, small_data(panel, "panel", every_position=kind.causal), max_epochs=2)
    assert np.isfinite(loss)
    assert all(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    forecast = model.forecast(panel, panel.dates[-5:])
    assert forecast.distribution.batch_shape == (5, 2, 4)
    save(model, tmp_path)
    again, _ = load(tmp_path, allow=["tests"])
    other = again.forecast(panel, panel.dates[-5:])
    assert torch.equal(forecast.value_at_risk(0.99).nan_to_num(), other.value_at_risk(0.99).nan_to_num())


def test_a_closed_or_missing_asset_keeps_the_forecast_of_its_last_session(panel, across):
    """On 4 July New York is closed, but Tokyo and Frankfurt are not; on the day before all were open."""
    state = panel.state.clone()
    values = panel.values.clone()
    missing = panel.row("2019-07-09")
    n = panel.assets.index("TTT")
    values[missing, n] = torch.nan
    state[missing, n] = State.MISSING
    holes = dataclasses.replace(panel, values=values, state=state)
    dates = ["2019-07-03", "2019-07-04", "2019-07-08", "2019-07-09"]
    var = across.forecast(holes, dates).value_at_risk(0.99)
    closed = [panel.assets.index(name) for name in ("AAA", "BBB")]
    assert torch.equal(var[0][:, closed], var[1][:, closed])
    assert torch.equal(var[2][:, n], var[3][:, n])
    open_ = panel.assets.index("EEE")
    assert not torch.equal(var[0][:, open_], var[1][:, open_])
    hidden_of_zero = across.network.head(torch.zeros(8)).df
    df = across.forecast(holes, dates).distribution.df
    assert not (df == hidden_of_zero[:, None]).any()


def test_forecasts_depend_neither_on_the_batch_size_nor_on_the_source(panel, across):
    dates = panel.dates[-30:]
    given = [None, WindowSource(panel, SPEC), PanelWindowSource(panel, SPEC)]
    results = [across.forecast(panel, dates, source=source).value_at_risk(0.99) for source in given]
    results += [across.forecast(panel, dates, batch_size=size).value_at_risk(0.99) for size in (1, 9)]
    for other in results[1:]:
        torch.testing.assert_close(results[0], other, rtol=1e-5, atol=0)


def test_permuting_assets_permutes_the_forecast(panel, across):
    order = [2, 0, 3, 1]
    turned = panel.select([panel.assets[i] for i in order])
    a, b = (across.forecast(p, panel.dates[-5:]).value_at_risk(0.99) for p in (panel, turned))
    torch.testing.assert_close(a[..., order], b, rtol=1e-5, atol=1e-7)


def test_the_future_changes_no_forecast(panel, across):
    cut = len(panel.dates) - 40
    values = panel.values.clone()
    values[cut:] *= torch.linspace(0.5, 2.0, 40)[:, None, None]
    other = dataclasses.replace(panel, values=values)
    dates = panel.dates[cut - 60 : cut]
    a, b = (across.forecast(p, dates).value_at_risk(0.99) for p in (panel, other))
    assert torch.equal(a.nan_to_num(), b.nan_to_num())
    late = panel.dates[cut:]
    a, b = (across.forecast(p, late).value_at_risk(0.99) for p in (panel, other))
    assert not torch.equal(a.nan_to_num(), b.nan_to_num())


def test_what_does_not_fit_together_is_named(panel, across):
    with pytest.raises(ValueError, match="Across is fed windows in panel layout, but the data are in asset layout"):
        fit(across, small_data(panel))
    with pytest.raises(ValueError, match="Transformer is fed windows in asset layout, but the data are in panel"):
        fit(small_model(), small_data(panel, "panel"))
    last = small_model(encoder=LastOfAll(len(SPEC.features)))
    with pytest.raises(ValueError, match="LastOfAll is not causal.*every_position=False"):
        fit(last, small_data(panel, "panel"))
    other = small_panel(seed=5)
    with pytest.raises(ValueError, match="the source holds the windows of another panel"):
        across.forecast(panel, panel.dates[-1], source=WindowSource(other, SPEC))
    wrong = Across(len(SPEC.features))
    wrong.layout = "graph"
    with pytest.raises(ValueError, match="layout is asset or panel, not 'graph'"):
        small_model(encoder=wrong)


def test_a_trainer_checks_the_data_too(panel):
    import lightning

    last = small_model(encoder=LastOfAll(len(SPEC.features)))
    source = PanelWindowSource(panel, SPEC)
    data = DataModule(panel, source=source, validation_start="2019-06-03")
    trainer = lightning.Trainer(max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    with pytest.raises(ValueError, match="LastOfAll is not causal"):
        trainer.fit(last, datamodule=data)
