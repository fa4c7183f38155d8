"""What every univariate head promises: bounds, a sensible start, gradients, a compiled graph, its place in a model."""

import os
import subprocess
import sys
from functools import partial

import pytest
import torch

from qtorch import Forecaster, heads
from qtorch.data import PanelWindowSource, WindowSource
from qtorch.deploy import load, save
from qtorch.distributions import QuantileSpline, StudentT, concatenate, tail_mean, take
from qtorch.nn import build, describe
from qtorch.training import FZ0, LogScore, fit, mixed, walk_forward
from tests.training.runs import SPEC, Across, same_weights, small_data, small_model, small_panel

HEADS = [heads.SkewedStudentT, heads.FlowHead]
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
    df = getattr(distribution, "df", None)
    df = distribution.base.df if df is None else df
    assert ((df >= 2.1) & (df <= 60)).all()
    if kind is heads.SkewedStudentT:
        volatility = distribution.scale * torch.sqrt(df / (df - 2))
        assert ((volatility >= 0.124 * root) & (volatility <= 8.01 * root)).all()


@every_head
def test_a_fresh_head_is_riskmetrics_with_heavier_tails(kind):
    distribution = kind(8, (1, 10))(torch.randn(3, 8))
    torch.testing.assert_close(distribution.variance, torch.tensor([[1.0, 10.0]]).expand(3, 2), rtol=1e-5, atol=0)
    df = torch.tensor(5.9928, dtype=torch.float64)
    p = torch.tensor([1e-6, 0.01, 0.3, 0.99], dtype=torch.float64)
    expected = StudentT(df, 0.0, torch.sqrt((df - 2) / df)).icdf(p)
    torch.testing.assert_close(distribution.icdf(p[:, None, None])[:, 0, 0], expected, rtol=1e-4, atol=1e-6)
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
def test_it_compiles_whole(kind):
    command = [sys.executable, "-m", "tests.heads.compiled", kind.__name__]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-4000:]


@every_head
def test_it_is_described_by_its_arguments(kind):
    again = build(describe(kind(8, (1, 10))))
    assert type(again) is kind
    assert again.horizons == (1, 10)


@every_head
@pytest.mark.parametrize("layout", ["asset", "panel"])
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


def test_forecasts_of_both_heads_are_mixed_and_walked():
    panel = small_panel()
    parts = [with_head(kind).forecast(panel, panel.dates[-3:]) for kind in HEADS]
    for pair in (parts, [parts[1], parts[1]]):
        var = mixed(pair, [0.5, 0.5]).value_at_risk(0.99)
        low, high = (torch.stack([part.value_at_risk(0.99) for part in pair]).aminmax(dim=0)[k] for k in (0, 1))
        there = var.isfinite()
        assert ((var >= low - 1e-6) & (var <= high + 1e-6))[there].all()
    walked = walk_forward(
        partial(with_head, heads.FlowHead),
        WindowSource(panel, SPEC),
        ["2019-09-02", "2019-10-01"],
        end="2019-10-04",
        max_epochs=1,
        warm_epochs=1,
        data={"batch_size": 8, "batches_per_epoch": 2},
    )
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
