"""Forecasters of joint laws: shapes, masks, gradients, forecasts, bundles."""

import dataclasses

import pytest
import torch

from qtorch.data import PanelWindowSource
from qtorch.deploy import load, save
from qtorch.distributions import JointDistribution, concatenate, stack
from qtorch.heads import CopulaHead, JointHead, SkewedStudentT
from qtorch.training import FZ0, Forecaster, LogScore, fit
from tests.training.runs import SPEC, Across, small_data, small_model, small_panel


@pytest.fixture(scope="module")
def panel():
    return small_panel()


def make(objective=None) -> Forecaster:
    encoder = Across(len(SPEC.features))
    head = JointHead(SkewedStudentT(8, SPEC.horizons), CopulaHead(8, 2))
    torch.nn.init.normal_(head.copula.tails.weight, std=0.3)
    return Forecaster(encoder, head, SPEC, objective=objective)


@pytest.mark.parametrize("every_position", [False, True])
def test_masked_targets_change_nothing_and_gradients_reach_everything(panel, every_position):
    model = make(LogScore() + 0.1 * FZ0((0.975,))).eval()
    source = PanelWindowSource(panel, SPEC)
    window = source.gather(source.entries()[100:105], every_position=every_position)
    mask = window.target_mask.clone()
    mask[..., 1] = False
    window = dataclasses.replace(window, target_mask=mask)
    losses, weight = model.losses(window)
    assert losses["loss"].shape == weight.shape == window.target.shape[:-1]
    law = model._standardised(window)
    y = window.target / window.scale.unsqueeze(-2)
    torch.testing.assert_close(losses["log_score"] * mask.sum(-1), -law.log_prob(y, mask))
    results = []
    for hole in (0.0, torch.nan):
        model.zero_grad()
        model.mean_loss(dataclasses.replace(window, target=torch.where(mask, window.target, hole))).backward()
        results.append([parameter.grad.clone() for parameter in model.parameters()])
    assert all(torch.equal(a, b) and a.isfinite().all() and a.any() for a, b in zip(*results, strict=True))


def test_it_trains_forecasts_and_is_saved(panel, tmp_path):
    model = make()
    assert fit(model, small_data(panel, "panel"), max_epochs=2) < 10
    forecast = model.forecast(panel, panel.dates[-5:])
    law = forecast.distribution
    assert isinstance(law, JointDistribution)
    assert (law.batch_shape, law.event_shape) == ((5, 2), (4,))
    assert (forecast.value_at_risk(0.99) > 0).all()
    assert len(forecast.select(slice(1, 3)).to_frame()) == 2 * 2 * 4 * 3
    save(model, tmp_path)
    again, _ = load(tmp_path, allow=["tests"])
    other = again.forecast(panel, panel.dates[-5:])
    torch.testing.assert_close(other.distribution.copula.df, law.copula.df)
    torch.testing.assert_close(other.distribution.copula.loadings, law.copula.loadings)
    for join in (stack, concatenate):
        with pytest.raises(ValueError, match="joint laws can't be joined or mixed"):
            join([law, law])


def test_a_closed_market_has_its_own_rows_loadings_and_the_last_rows_df(panel):
    """On 4 July New York is closed, but Tokyo and Frankfurt are not."""
    model = make().eval()
    law = model.forecast(panel, ["2019-07-03", "2019-07-04"]).distribution
    L, df = law.copula.loadings, law.copula.df
    for name in panel.assets:
        n = panel.assets.index(name)
        assert torch.equal(L[0, :, n], L[1, :, n]) == (name in ("AAA", "BBB"))
    assert df[0, 0] != df[1, 0]
    source = PanelWindowSource(panel, SPEC)
    window = source.gather(torch.tensor([panel.row("2019-07-04")]))
    torch.testing.assert_close(model(window).copula.df[0], df[1])


def test_what_does_not_fit_is_named():
    encoder = small_model().network.encoder
    head = JointHead(SkewedStudentT(encoder.out_features, SPEC.horizons), CopulaHead(encoder.out_features, 2))
    with pytest.raises(ValueError, match="JointHead needs an encoder in panel layout, but Temporal"):
        Forecaster(encoder, head, SPEC)
    with pytest.raises(ValueError, match="in_features are 8, the copula's 4"):
        JointHead(SkewedStudentT(8, [1]), CopulaHead(4, 1))
