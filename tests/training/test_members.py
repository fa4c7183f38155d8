"""Ensembles in one network: members learn as they would alone, and their forecast is a mixture."""

import copy

import pytest
import torch
from torch import nn

from qtorch import Forecaster, heads, models
from qtorch.configuration import ModelConfig, TrainingConfig, make_forecaster
from qtorch.data import DataModule, Panel
from qtorch.data.synthetic import SyntheticMarket
from qtorch.deploy import load, save
from qtorch.models import default_forecaster
from qtorch.training import fit, mixed
from qtorch.training.clipping import clip_members
from qtorch.training.optimisation import parameter_groups
from tests.training.runs import SPEC, Across, small_data, small_panel

K = 3


def ensemble(encoder=None, shared=False, seed=0) -> Forecaster:
    torch.manual_seed(seed)
    one = models.Recurrent(len(SPEC.features), width=8, dropout=0.0, input_noise=0.0) if encoder is None else encoder
    head = heads.SkewedStudentT(one.out_features, SPEC.horizons)
    nn.init.normal_(head.project.weight, std=0.3)
    return Forecaster(one if shared else models.EncoderEnsemble(one, K), heads.Ensemble(head, K, shared), SPEC)


def member(model: Forecaster, k: int) -> Forecaster:
    encoder, head = (copy.deepcopy(part.member(k)) for part in (model.network.encoder, model.network.head))
    return Forecaster(encoder, head, SPEC)


def test_members_gradients_are_what_they_would_be_alone():
    """But for the mean over members, clipped or not: those of the second are far larger than the others'."""
    model = ensemble()
    with torch.no_grad():
        model.network.head.head.project.weight[1] *= 20
    alone = [member(model, k).train() for k in range(K)]
    window = next(iter(small_data(small_panel()).train_dataloader()))
    model.train().mean_loss(window).backward()
    assert clip_members(model, 0.5)
    norms = []
    for one in alone:
        one.mean_loss(window).backward()
        assert not clip_members(one, 0.5)
        norms.append(nn.utils.clip_grad_norm_(one.parameters(), 0.5).item())
    assert min(norms) < 0.5 < max(norms)
    encoder, head = model.network.encoder.encoder, model.network.head.head
    for name, value in (*encoder.named_parameters("encoder"), *head.named_parameters("head")):
        expected = torch.stack([one.network.get_parameter(name).grad for one in alone])
        torch.testing.assert_close(K * value.grad, expected, rtol=1e-4, atol=1e-6)


def test_lightning_clips_member_by_member():
    """As if alone: each member's gradients at a K-th of the norm, since the loss is the mean over members."""
    model = ensemble()
    norms = []

    class Model(Forecaster):
        def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None):
            for value in self.parameters():
                value.grad = value.grad * 1e6
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
            squares = [value.grad.flatten(1).square().sum(1) for value in self.parameters()]
            norms.append(torch.stack(squares).sum(0).sqrt())

    fit(Model(model.network.encoder, model.network.head, SPEC), small_data(small_panel()), max_epochs=1)
    torch.testing.assert_close(norms, [torch.full((K,), 1 / K)] * 3, rtol=1e-4, atol=0)


def test_stacked_biases_and_norms_do_not_decay():
    model = ensemble()
    names = {id(value): name for name, value in model.named_parameters()}
    decayed, others = ({names[id(value)] for value in group} for group in parameter_groups(model))
    assert decayed | others == set(names.values())
    assert all(".bias" in name or "norm" in name for name in others)
    assert not any("bias" in name or "norm" in name for name in decayed)
    assert any(name.endswith("project.weight") for name in decayed)


@pytest.mark.parametrize("kind", ["asset", "panel", "shared"])
def test_it_trains_forecasts_a_mixture_and_is_saved(kind, tmp_path):
    panel = small_panel()
    layout = "panel" if kind == "panel" else "asset"
    model = ensemble(Across(len(SPEC.features)) if kind == "panel" else None, kind == "shared")
    fit(model, small_data(panel, layout), max_epochs=2, accelerator="cpu")
    dates = panel.dates[-3:]
    forecast = model.forecast(panel, dates)
    save(model, tmp_path)
    again, _ = load(tmp_path, allow=("tests",))
    var = forecast.value_at_risk(0.99)
    assert torch.equal(again.forecast(panel, dates).value_at_risk(0.99).nan_to_num(), var.nan_to_num())
    there = var.isfinite()
    parts = forecast.decompose()
    torch.testing.assert_close((parts.aleatoric + parts.epistemic)[there], forecast.volatility[there] ** 2)
    assert (parts.epistemic[there] > 0).all()
    low, high = forecast.epistemic_interval(0.99)
    assert (low < high)[there].all()
    if kind != "shared":
        alone = mixed([member(model, k).eval().forecast(panel, dates) for k in range(K)])
        torch.testing.assert_close(alone.value_at_risk(0.99)[there], var[there], rtol=1e-4, atol=0)


def test_masked_targets_have_no_effect():
    model = ensemble()
    window = next(iter(small_data(small_panel()).train_dataloader()))
    window.target_mask[:3] = False
    window.target[:3] = torch.nan
    losses = []
    for junk in (torch.nan, torch.inf, 7.0):
        window.target[:3] = junk
        model.zero_grad()
        loss = model.mean_loss(window)
        loss.backward()
        losses.append([loss.detach(), *(value.grad.clone() for value in model.parameters())])
    for other in losses[1:]:
        assert all(torch.equal(a, b) for a, b in zip(losses[0], other, strict=True))
    assert all(value.isfinite().all() for value in losses[0])


def test_members_disagree_more_outside_the_training_range():
    """On a synthetic market; the inputs are moved further and further from where they were in training."""
    market = SyntheticMarket({"XNYS": 4}, start="2017-01-03", end="2018-12-31", seed=1).simulate()
    panel = Panel.from_frame(market.frame)
    model = default_forecaster(panel, horizons=(1,), context=16, members=5)
    data = DataModule(
        panel, model.spec, validation_start=panel.dates[-10], batches_per_epoch=15, batch_size=16, every_position=True
    )
    fit(model, data, max_epochs=2, accelerator="cpu", seed=0)
    window = next(iter(data.train_dataloader()))
    spread = []
    for size in (0.0, 1.0, 4.0):  # further out the bounds of states and laws hold the members together
        moved = window.inputs + size * torch.ones(window.inputs.shape[-1])
        law = model.network.head(model.network.encoder(moved, window.mask)[:, -1])
        risk = law.components.icdf(torch.tensor(0.01))
        spread.append((risk.std(-1) / -risk.mean(-1)).mean().detach())
    assert spread[2] > spread[1] > spread[0]
    assert spread[2] > 2 * spread[0]
    forecast = model.forecast(panel, panel.dates[-2:])
    assert (forecast.decompose().epistemic[forecast.mask[:, None]] > 0).all()


def test_the_configuration_makes_one():
    model = make_forecaster(ModelConfig(members=2, context=SPEC.context, horizons=[1, 3]), TrainingConfig(), SPEC)
    assert model.network.encoder.draws == model.network.head.draws == 2


def test_heads_and_encoders_that_do_not_fit_are_named():
    encoder, head = models.Recurrent(len(SPEC.features), width=8), heads.SkewedStudentT(8, SPEC.horizons)
    several = models.EncoderEnsemble(encoder, K)
    with pytest.raises(ValueError, match="a Recurrent gives one"):
        Forecaster(encoder, heads.EachDraw(head), SPEC)
    with pytest.raises(ValueError, match="gives 3 hidden states, and a SkewedStudentT reads one"):
        Forecaster(several, head, SPEC)
    with pytest.raises(ValueError, match="the encoder has 3 members, but the head 2"):
        Forecaster(several, heads.Ensemble(head, 2), SPEC)


def test_a_posterior_of_posteriors_is_scored_draw_by_draw():
    """The bound of each member: the mixture's own score is the log of a mean, and a lower loss."""
    encoder = models.Recurrent(len(SPEC.features), width=8, dropout=0.0, input_noise=0.0)
    torch.manual_seed(0)
    head = heads.VariationalNormal(8, SPEC.horizons)
    nn.init.normal_(head.location.mean)
    nn.init.constant_(head.location.log_scale, -0.5)
    model = Forecaster(models.EncoderEnsemble(encoder, K), heads.EachDraw(head), SPEC, observations=1.0).train()
    window = next(iter(small_data(small_panel()).train_dataloader()))
    each = [
        Forecaster(model.network.encoder.member(k), head, SPEC, observations=1.0).train().losses(window)[0]["loss"]
        for k in range(K)
    ]
    found = model.losses(window)[0]["loss"]
    torch.testing.assert_close(found, torch.stack(each).mean(0), rtol=1e-5, atol=1e-5)
