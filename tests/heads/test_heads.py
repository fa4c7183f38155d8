"""What every univariate head promises: bounds, a sensible start, gradients, a compiled graph, its place in a model."""

import os
import subprocess
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats

from qtorch import Forecaster, heads, models
from qtorch.backtest import walk_forward
from qtorch.configuration import ModelConfig, TrainingConfig, make_forecaster
from qtorch.data import PanelWindowSource
from qtorch.deploy import load, save
from qtorch.distributions import Posterior, QuantileSpline, StudentT, concatenate, tail_mean, take
from qtorch.nn import build, describe
from qtorch.training import FZ0, LogScore, fit, mixed
from tests.training.runs import SPEC, Across, same_weights, small_data, small_model, small_panel

HEADS = [
    heads.SkewedStudentT,
    heads.FlowHead,
    heads.HansenSkewedT,
    heads.JohnsonSU,
    heads.Mixture,
    heads.Normal,
    heads.NormalInverseGaussian,
    heads.SplicedTails,
    heads.StudentT,
]
DEAR = {heads.SplicedTails, heads.Mixture, heads.NormalInverseGaussian}  # to train
every_head = pytest.mark.parametrize("kind", HEADS)


def random_head(kind, size=1.0, horizons=(1, 10)):
    head = kind(8, horizons)
    torch.nn.init.normal_(head.project.weight, std=size)
    return head


def with_head(kind, seed=0, encoder=None):
    model = small_model(seed, LogScore() + 0.5 * FZ0(), encoder)
    head = kind(model.network.encoder.out_features, SPEC.horizons)
    torch.nn.init.normal_(head.project.weight, std=0.3)
    return Forecaster(model.network.encoder, head, SPEC, objective=model.objective)


@every_head
@pytest.mark.parametrize("size", [1.0, 1e3, 1e6])
def test_no_hidden_state_gives_an_absurd_forecast(kind, size):
    distribution = random_head(kind)(size * torch.randn(500, 8))
    root = torch.tensor([1.0, 10.0]).sqrt()
    assert (distribution.icdf(torch.tensor(0.1)) < 0).all()
    far = distribution.icdf(torch.tensor([0.001, 0.999])[:, None, None]) / root
    assert (far.abs() < 240).all()  # eight volatilities, twice as steep, of the heaviest tail
    assert (far.diff(dim=0) > 0.1).all()
    volatility = distribution.variance.sqrt() / root
    assert ((volatility > 0.04) & (volatility < 17)).all()  # eight times, and what skews and free tails add
    shapes_in_bounds(kind, distribution)
    if kind in (heads.Normal, heads.StudentT, heads.HansenSkewedT, heads.JohnsonSU, heads.NormalInverseGaussian):
        assert ((volatility >= 0.1249) & (volatility <= 8.001)).all()


def shapes_in_bounds(kind, law):
    """Of each family's own numbers."""
    if kind is heads.Normal:
        return
    if kind is heads.JohnsonSU:
        bounds = [(law.delta, 1 / 1.2, 10.0), (law.gamma / law.delta, -0.5, 0.5)]
    elif kind is heads.NormalInverseGaussian:
        bounds = [(law.a, 0.05, 20.0), (law.b / law.a, -0.5, 0.5)]
    elif kind is heads.Mixture:
        ratio = law.weights.amax(-1) / law.weights.amin(-1)
        bounds = [(law.components.df, 2.1, 60.0), (ratio, 1.0, 2500.0)]
    elif kind is heads.FlowHead:
        bounds = [(law.base.df, 2.1, 60.0)]
    elif kind is heads.SplicedTails:
        tails = [(1 / law.lower_concentration, 2.1, 60.0), (1 / law.upper_concentration, 2.1, 60.0)]
        bounds = [(law.body.df, 2.1, 60.0), *tails]
    else:
        bounds = [(law.df, 2.1, 60.0)]
        bounds += [(law.skew, 2 / 3, 1.5)] if kind is heads.SkewedStudentT else []
        bounds += [(law.skew, -5 / 13, 5 / 13)] if kind is heads.HansenSkewedT else []
    for value, low, high in bounds:
        slack = 1e-4 * max(abs(low), abs(high))
        assert ((value >= low - slack) & (value <= high + slack)).all()


DF = 2.1 + 57.9 / (1 + np.exp(2.63))  # of a fresh head
UNIT = np.sqrt((DF - 2) / DF)


def spliced_cdf(x, mass=0.05):
    body = stats.t(DF, scale=UNIT)
    threshold = body.ppf(1 - mass)
    tail = stats.genpareto(1 / DF, loc=threshold, scale=mass / body.pdf(threshold))
    above = np.where(np.abs(x) > threshold, mass * tail.sf(np.abs(x)), body.sf(np.abs(x)))
    return np.where(x < 0, above, 1 - above)


def spliced_variance():
    """E X^2 = 4 int_0 x P(X > x) dx, by quadrature on each side of the threshold."""
    from scipy.integrate import quad

    threshold = stats.t(DF, scale=UNIT).ppf(0.95)
    return sum(quad(lambda x: 4 * x * (1 - spliced_cdf(x)), a, b)[0] for a, b in ((0, threshold), (threshold, 1e4)))


def fresh_cdf(kind, x):
    """Scipy's distribution function of a fresh head's law of unit variance."""
    if kind is heads.Normal:
        return stats.norm.cdf(x)
    if kind is heads.JohnsonSU:
        delta = 1 / (0.1 + 1.1 / (1 + np.exp(0.1)))
        return stats.johnsonsu(0, delta, scale=1 / stats.johnsonsu(0, delta).std()).cdf(x)
    if kind is heads.NormalInverseGaussian:
        return stats.norminvgauss(1, 0).cdf(x)
    if kind is heads.Mixture:
        return np.mean([stats.t(DF, scale=UNIT * c / np.sqrt((1 + 1.5**2) / 2)).cdf(x) for c in (1, 1.5)], 0)
    if kind is heads.SplicedTails:
        return spliced_cdf(x * np.sqrt(spliced_variance()))
    return stats.t(DF, scale=UNIT).cdf(x)


@every_head
def test_a_fresh_head_is_riskmetrics_with_its_familys_tails(kind):
    distribution = kind(8, (1, 10))(torch.randn(3, 8))
    torch.testing.assert_close(distribution.variance, torch.tensor([[1.0, 10.0]]).expand(3, 2), rtol=1e-5, atol=0)
    x = np.array([-4.5, -2.0, -0.3, 0.1, 3.0])
    expected = torch.from_numpy(fresh_cdf(kind, x))
    for h, root in enumerate((1.0, 10.0**0.5)):
        found = distribution.cdf(root * torch.from_numpy(x)[:, None, None])[:, 0, h]
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(distribution.mean, torch.zeros(3, 2), rtol=0, atol=1e-7)


@every_head
def test_a_gradient_reaches_every_parameter(kind):
    """Outcomes in both tails and between, so that every bin has some."""
    head = random_head(kind, 0.1)
    outcomes = torch.linspace(-8, 8, 81)[:, None, None]
    hidden = torch.randn(4, 8, requires_grad=True)
    head(hidden).log_prob(outcomes).sum().backward()
    for value in (hidden, *head.parameters()):
        assert value.grad.isfinite().all()
        assert (value.grad != 0).all()


@every_head
def test_draws_of_a_head_are_a_predictive_mixture(kind):
    """Parameters may have an axis of draws behind the horizons', as those of a posterior have."""
    head, hidden = random_head(kind, 0.3), torch.randn(4, 8)
    raw = head.raw_of(hidden) + 0.3 * torch.randn(3, 4, 2, head.size)
    draws = [head.distribution(*head.constrain(part)) for part in raw]
    weights = torch.tensor([0.2, 0.3, 0.5])
    law = Posterior(weights, head.distribution(*(p.movedim(0, 2) for p in head.constrain(raw))))
    x = torch.tensor([-3.0, 0.2, 40.0])[:, None, None]
    each = torch.stack([draw.log_prob(x) for draw in draws], dim=-1)
    torch.testing.assert_close(law.log_prob(x), torch.logsumexp(each + weights.log(), dim=-1))
    p = torch.tensor(0.01)
    inner = torch.stack([draw.icdf(p) for draw in draws], dim=-1)
    assert ((law.icdf(p) >= inner.amin(-1) * 1.00001) & (law.icdf(p) <= inner.amax(-1) * 0.99999)).all()


@every_head
def test_masked_targets_and_low_precision_change_nothing(kind):
    """What is masked may be anything; under autocast a head's own arithmetic stays in float32."""
    model, panel = with_head(kind), small_panel()
    window = next(iter(small_data(panel).train_dataloader()))
    mask = window.target_mask.clone()
    mask[::2] = False
    losses = []
    for value in (0.0, torch.nan, torch.inf):
        model.zero_grad()
        changed = replace(window, target=torch.where(mask, window.target, value), target_mask=mask)
        losses.append(model.eval().mean_loss(changed))
        losses[-1].backward()
        gradients = [p.grad.clone() for p in model.network.head.parameters()]
        assert all(g.isfinite().all() and (g != 0).any() for g in gradients)
    assert losses[0] == losses[1] == losses[2]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = model.network(window.inputs, window.mask)
        loss = model.mean_loss(window)
    assert all(parameter.dtype == torch.float32 for parameter in low)
    torch.testing.assert_close(loss, model.mean_loss(window), rtol=0.02, atol=0.02)


@pytest.mark.slow  # the default is compiled in a joint head's network, and the laws in their own tests
@every_head
def test_it_compiles_whole(kind):
    command = [sys.executable, "-m", "tests.heads.compiled", kind.__name__]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-4000:]


@every_head
def test_it_is_described_by_its_arguments(kind):
    again = build(describe(kind(8, (1, 10))))
    assert type(again) is kind
    assert again.horizons == (1, 10)


@pytest.mark.parametrize(
    ("kind", "layout"),
    [
        (heads.SkewedStudentT, "asset"),
        *(pytest.param(kind, "panel", marks=pytest.mark.slow if kind in DEAR else ()) for kind in HEADS),
    ],
)
def test_it_trains_forecasts_and_is_saved(kind, layout, tmp_path):
    panel = small_panel()
    encoder = Across(len(SPEC.features)) if layout == "panel" else None
    model, before = with_head(kind, encoder=encoder), with_head(kind)
    fit(model, small_data(panel, layout), max_epochs=2, accelerator="cpu")
    assert layout == "panel" or not same_weights(model, before)
    save(model, tmp_path)
    again, _ = load(tmp_path, allow=("tests",))
    dates = panel.dates[-3:]
    one, other = (m.forecast(panel, dates) for m in (model, again))
    assert torch.equal(one.value_at_risk(0.99).nan_to_num(), other.value_at_risk(0.99).nan_to_num())
    assert (one.expected_shortfall(0.975) > one.value_at_risk(0.975))[one.mask[:, None].expand(3, 2, 4)].all()


@every_head
def test_it_trains_on_every_kind_of_encoder(kind):
    """The panel transformer's laws have assets between dates and horizons."""
    panel = small_panel()
    for encoder, layout in (
        (models.Recurrent(len(SPEC.features), width=8), "asset"),
        (models.PanelTransformer(len(SPEC.features), width=8, depth=1, heads=2), "panel"),
    ):
        model = with_head(kind, encoder=encoder)
        before = model.network.head.project.weight.clone()
        fit(model, small_data(panel, layout, batches_per_epoch=1), max_epochs=1, accelerator="cpu")
        assert not torch.equal(model.network.head.project.weight, before)


def test_a_configuration_names_a_head():
    head = {"class_path": "qtorch.heads.Mixture", "init_args": {"components": 3}}
    config = ModelConfig(head=head, context=8, horizons=[1, 3])
    model = make_forecaster(config, TrainingConfig(), config.windows(small_panel()))
    assert isinstance(model.network.head, heads.Mixture)
    assert model.network.head.spread.shape == (3,)
    assert model.network.head.horizons == (1, 3)


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="components=1: give at least 2; StudentT is the head of one"):
        heads.Mixture(8, (1,), components=1)
    with pytest.raises(ValueError, match=r"mass=0\.2: give the share of a tail, at most 0\.1"):
        heads.SplicedTails(8, (1,), mass=0.2)


def test_forecasts_of_all_heads_are_mixed_and_walked():
    panel = small_panel()
    parts = [with_head(kind).forecast(panel, panel.dates[-3:]) for kind in HEADS]
    for some in (parts, [parts[1], parts[1]]):
        var = mixed(some, [1.0] * len(some)).value_at_risk(0.99)
        low, high = (torch.stack([part.value_at_risk(0.99) for part in some]).aminmax(dim=0)[k] for k in (0, 1))
        there = var.isfinite()
        assert ((var >= low - 1e-6) & (var <= high + 1e-6))[there].all()
    walked = walk_forward(
        panel,
        partial(with_head, heads.FlowHead),
        ["2019-09-02", "2019-10-01"],
        end="2019-10-04",
        max_epochs=1,
        warm_epochs=1,
        data={"batch_size": 8, "batches_per_epoch": 2},
    ).forecast
    assert walked.value_at_risk(0.99).isfinite().any()
    assert PanelWindowSource(panel, SPEC).spec == SPEC


def test_a_flows_functions_are_each_others_inverse_and_integral():
    law = random_head(heads.FlowHead, 0.5, (1,))(torch.randn(6, 8)).expand(torch.Size([6, 1]))
    law = QuantileSpline(law.knots.double(), law.values.double(), law.slopes.double(), StudentT(law.base.df.double()))
    p = torch.tensor([1e-9, 1e-3, 0.2, 0.5, 0.9, 0.9999], dtype=torch.float64).reshape(-1, 1, 1)
    torch.testing.assert_close(law.cdf(law.icdf(p)), p.expand(6, 6, 1), rtol=1e-9, atol=0)
    x = law.icdf(torch.tensor(1e-4).double()) + torch.linspace(0, 1, 20_001).double().reshape(-1, 1, 1) * 12
    area = torch.trapezoid(torch.exp(law.log_prob(x)), x, dim=0)
    torch.testing.assert_close(area, law.cdf(x[-1]) - 1e-4, rtol=1e-5, atol=1e-6)
    torch.manual_seed(0)
    draws = law.sample((20_000,))
    share = (draws <= law.icdf(torch.tensor(0.05).double())).double().mean(0)
    torch.testing.assert_close(share, torch.full_like(share, 0.05), rtol=0, atol=0.007)
    tail = torch.linspace(0, 0.05, 40_001).double()[1:].reshape(-1, 1, 1) - 0.05 / 80_000
    torch.testing.assert_close(
        tail_mean(law, torch.tensor(0.05).double()), law.icdf(tail).mean(0), rtol=2e-3, atol=1e-4
    )
    whole = concatenate([take(law, slice(0, 2)), take(law, slice(2, None))])
    torch.testing.assert_close(whole.log_prob(x[100]), law.log_prob(x[100]))


def test_knots_are_checked():
    with pytest.raises(ValueError, match="give increasing numbers"):
        heads.FlowHead(8, (1,), knots=(-1.25, 0.0, 0.0))
    with pytest.raises(ValueError, match=r"have 0 among them, and one of at least -1\.29 below -1"):
        heads.FlowHead(8, (1,), knots=(-2.0, 0.0, 2.0))
    assert heads.FlowHead(8, (1,), knots=(-1.25, 0.0, 1.25)).project.out_features == 8
