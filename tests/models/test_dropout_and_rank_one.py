"""Monte Carlo dropout draws functions, and members of a batch ensemble are nets with rank-one factors."""

import copy

import pytest
import torch
from torch import nn

from qtorch import Forecaster, heads, models
from qtorch.deploy import load, save
from qtorch.models import BatchEnsemble, MonteCarloDropout
from qtorch.nn import DrawnDropout, RankOneLinear, build, describe
from qtorch.training import fit
from qtorch.training.clipping import clip_members
from qtorch.training.optimisation import parameter_groups
from tests.training.runs import SPEC, Across, small_data, small_panel

F, B, C, K = 5, 4, 12, 3
MAKE = {
    "gru": lambda: models.Recurrent(F, width=8, input_noise=0.0),
    "two layers": lambda: models.Recurrent(F, width=8, depth=2, input_noise=0.0),
    "lstm": lambda: models.Recurrent(F, width=8, depth=2, cell="lstm", input_noise=0.0),
    "transformer": lambda: models.Transformer(F, width=8, heads=2, depth=2, input_noise=0.0, drop_weights=False),
}
every = pytest.mark.parametrize("name", MAKE)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    mask = torch.rand(B, C) < 0.8
    mask[0, :5] = False
    return torch.where(mask.unsqueeze(-1), torch.randn(B, C, F), torch.nan), mask


class Stated(nn.Module):
    """Dropout by a given mask of units."""

    def __init__(self, noise):
        super().__init__()
        self.noise = noise

    def forward(self, x, onto=None):
        x = x * self.noise
        return x if onto is None else onto + x


@every
@pytest.mark.parametrize("chunk", [None, 1])
def test_a_draw_is_the_net_without_the_units_that_it_drops(name, chunk):
    encoder = MonteCarloDropout(MAKE[name](), K, seed=4, chunk=chunk).eval()
    inputs, mask = batch()
    hidden = encoder(inputs, mask)
    assert hidden.shape == (B, C, K, 8)
    widths = {}
    for name, part in encoder.encoder.named_modules():
        if isinstance(part, DrawnDropout):
            part.register_forward_hook(lambda part, given, out, name=name: widths.update({name: given[0].shape[-1]}))
    encoder.encoder(inputs, mask)
    for k in range(K):
        alone = copy.deepcopy(encoder.encoder)
        for name, width in widths.items():
            part = encoder.encoder.get_submodule(name)
            noise = DrawnDropout(part.p, 4, part.place)
            noise.draw.fill_(k)
            alone.set_submodule(name, Stated(noise.noise(width)))
        torch.testing.assert_close(hidden[..., k, :], alone(inputs, mask), rtol=0, atol=2e-6)
    assert not torch.equal(hidden[..., 0, :], hidden[..., 1, :])


@every
def test_draws_are_the_same_for_all_windows_and_at_all_times(name):
    encoder = MonteCarloDropout(MAKE[name](), K).eval()
    inputs, mask = batch()
    hidden = encoder(inputs, mask)
    torch.manual_seed(7)
    torch.testing.assert_close(encoder(inputs, mask), hidden, rtol=0, atol=0)
    torch.testing.assert_close(encoder(inputs[2:3], mask[2:3]), hidden[2:3], rtol=0, atol=2e-6)
    again = build(describe(encoder)).eval()
    again.load_state_dict(encoder.state_dict())
    assert torch.equal(again(inputs, mask), hidden)
    other = build(describe(encoder) | {"init_args": describe(encoder)["init_args"] | {"seed": 1}}).eval()
    other.load_state_dict(encoder.state_dict())
    assert not torch.allclose(other(inputs, mask), hidden)


def test_units_are_dropped_independently_with_their_probability():
    """Over draws, layers and units; each count is binomial."""
    draws, units, p = 400, 300, 0.3
    dropped = []
    for place in (1, 2):
        layer = DrawnDropout(p, seed=3, place=place)
        noise = torch.func.vmap(
            lambda k, layer=layer: torch.func.functional_call(layer, {"draw": k}, torch.ones(units))
        )
        layer.eval()
        values = noise(torch.arange(draws))
        torch.testing.assert_close(values[values > 0], torch.full((int((values > 0).sum()),), 1 / (1 - p)))
        dropped.append((values == 0).double())
    one, other = dropped
    for count, n in ((one.sum(0), draws), (one.sum(1), units), (one.sum(), draws * units)):
        assert ((count - n * p).abs() < 4.5 * (n * p * (1 - p)) ** 0.5).all()
    centred = [value - p for value in (one, other, one.roll(1, 0), one.roll(1, 1))]
    for value in centred[1:]:  # next layer, draw and unit
        correlation = (centred[0] * value).mean() / (p * (1 - p))
        assert abs(correlation) < 4.5 / (draws * units) ** 0.5


def test_in_training_a_window_drops_the_same_units_at_all_sessions():
    layer = DrawnDropout(0.5, 0, 1)
    out = layer(torch.ones(B, C, 200))
    assert torch.equal(out, out[:, :1].expand_as(out))
    assert not torch.equal(out[0], out[1])
    encoder = MonteCarloDropout(MAKE["gru"](), K)
    assert encoder(*batch()).shape == (B, C, 1, 8)


def test_what_can_not_differ_is_refused():
    with pytest.raises(ValueError, match="no dropout of units"):
        MonteCarloDropout(models.Recurrent(F, dropout=0.0), K)
    with pytest.raises(ValueError, match="draws=0"):
        MonteCarloDropout(MAKE["gru"](), 0)
    with pytest.raises(ValueError, match=r"no torch\.nn\.Linear"):
        BatchEnsemble(nn.Sequential(nn.LayerNorm(3)), K)


@every
@pytest.mark.parametrize("chunk", [None, 1])
def test_members_are_nets_whose_matrices_are_multiplied_by_outer_products(name, chunk):
    ensemble = BatchEnsemble(MAKE[name](), K, chunk).eval()
    for part in ensemble.modules():
        if isinstance(part, RankOneLinear):
            for value in part.own.parameters():
                nn.init.normal_(value)
    inputs, mask = batch()
    hidden = ensemble(inputs, mask)
    for k in range(K):
        member = ensemble.member(k)
        linear, own = member.get_submodule("embed"), ensemble.encoder.embed
        outer = own.own.s[k].unsqueeze(-1) * own.own.r[k]
        torch.testing.assert_close(linear.weight, own.weight * outer)
        assert not any(isinstance(part, RankOneLinear) for part in member.modules())
        torch.testing.assert_close(hidden[..., k, :], member(inputs, mask), rtol=1e-5, atol=3e-6)


def test_gradients_of_what_members_share_are_those_of_all():
    ensemble = BatchEnsemble(MAKE["transformer"](), K).eval()
    inputs, mask = batch()
    looped = BatchEnsemble(MAKE["transformer"](), K, chunk=1).eval()
    looped.load_state_dict(ensemble.state_dict())
    weight = torch.randn(B, C, K, 8)
    for one in (ensemble, looped):
        (weight * one(inputs, mask)).sum().backward()
    for (name, value), other in zip(ensemble.named_parameters(), looped.parameters(), strict=True):
        torch.testing.assert_close(value.grad, other.grad, rtol=1e-4, atol=1e-5, msg=name)


def test_vectors_do_not_decay_and_are_clipped_member_by_member():
    ensemble = BatchEnsemble(MAKE["gru"](), K)
    names = {id(value): name for name, value in ensemble.named_parameters()}
    decayed, others = ({names[id(value)] for value in group} for group in parameter_groups(ensemble))
    assert {"encoder.embed.weight", "encoder.layers.weight_ih_l0"} <= decayed
    assert {f"encoder.embed.own.{name}" for name in ("r", "s", "bias")} <= others
    (1e6 * ensemble(*batch())[..., 1, :]).sum().backward()
    assert clip_members(ensemble, 0.5)
    own = [value.grad for name, value in ensemble.named_parameters() if ".own." in name]
    norms = torch.stack([value.flatten(1).square().sum(1) for value in own]).sum(0).sqrt()
    torch.testing.assert_close(norms, torch.tensor([0.0, 0.5 / K, 0.0]), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["dropout", "panel", "rank one"])
def test_a_forecaster_is_trained_and_saved(kind, tmp_path):
    panel, width = small_panel(), len(SPEC.features)
    if kind == "dropout":
        encoder: nn.Module = MonteCarloDropout(models.Recurrent(width, width=8, dropout=0.2), 10)
        head: nn.Module = heads.EachDraw(heads.SkewedStudentT(8, SPEC.horizons))
    else:
        one = Across(width) if kind == "panel" else models.Recurrent(width, width=8)
        encoder = BatchEnsemble(one, K)
        head = heads.Ensemble(heads.SkewedStudentT(8, SPEC.horizons), K)
    model = Forecaster(encoder, head, SPEC)
    fit(model, small_data(panel, "panel" if kind == "panel" else "asset"), max_epochs=1, accelerator="cpu")
    forecast = model.forecast(panel, panel.dates[-3:])
    save(model, tmp_path)
    again, _ = load(tmp_path, allow=("tests",))
    var, there = forecast.value_at_risk(0.99), forecast.mask[:, None].expand(3, 2, 4)
    assert torch.equal(again.forecast(panel, panel.dates[-3:]).value_at_risk(0.99)[there], var[there])
    assert (forecast.decompose().epistemic > 0)[there].all()
    low, high = forecast.epistemic_interval(0.99)
    assert (low < high)[there].all()
