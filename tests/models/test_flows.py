"""What every flow must do: a density that integrates to 1, draws that follow it, an inverse, gradients, one graph."""

import json
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.autograd.functional import jacobian

from qtorch.distributions import StudentT
from qtorch.distributions.tail_index import hill
from qtorch.distributions.transforms import Affine
from qtorch.models.flows import (
    AffineFlow,
    CouplingLayer,
    Flow,
    LinearLayer,
    NeuralSplineFlow,
    NormalBase,
    StudentTBase,
    TailLayer,
)
from tests.models.compiled_flows import MAKE, make

C = 2
cases = pytest.mark.parametrize("name", MAKE)


@cases
def test_shapes_broadcast_and_gradients_reach_every_parameter(name):
    flow = make(name, 3)
    law = flow(torch.randn(4, C))
    assert law.batch_shape == (4,)
    assert law.event_shape == (3,)
    assert law.sample((5,)).shape == (5, 4, 3)
    x = 2 * torch.randn(6, 4, 3)
    assert law.log_prob(x[0, 0]).shape == (4,)
    torch.testing.assert_close(law.log_prob(x)[2], law.log_prob(x[2]), rtol=1e-4, atol=1e-4)
    law.log_prob(x).mean().backward()
    missed = [key for key, p in flow.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert missed == []
    flow.zero_grad(set_to_none=True)
    flow(torch.randn(40, C)).rsample().square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in flow.parameters() if p.grad is not None)
    with pytest.raises(ValueError, match="must end in"):
        law.log_prob(torch.zeros(4, 2))


@cases
@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-9), (torch.float32, 2e-4)])
def test_the_inverse_inverts(name, dtype, error):
    flow = make(name, 4).to(dtype)
    x = 2 * torch.randn(200, 4, dtype=dtype)
    with torch.no_grad():
        law = flow(torch.randn(200, C, dtype=dtype))
        z, ladj = law.transform.call_and_ladj(x)
        back, back_ladj = law.transform.inv_and_ladj(z)
    torch.testing.assert_close(back, x, rtol=error, atol=error)
    torch.testing.assert_close(back_ladj, -ladj, rtol=1e3 * error, atol=10 * error)


@cases
def test_ladj_is_that_of_autograds_jacobian(name):
    flow = make(name, 3).double()
    law = flow(torch.randn(C, dtype=torch.float64))
    for x in 2 * torch.randn(3, 3, dtype=torch.float64):
        _, ladj = law.transform.call_and_ladj(x)
        expected = torch.linalg.slogdet(jacobian(law.encode, x)).logabsdet
        torch.testing.assert_close(ladj, expected, rtol=1e-8, atol=1e-9)


@cases
def test_the_density_integrates_to_1_and_draws_follow_it(name):
    flow = make(name, 2).double()
    context = torch.randn(C, dtype=torch.float64)
    t = torch.linspace(-11, 11, 501, dtype=torch.float64)  # in asinh x, where tails are smooth
    x = torch.sinh(t)
    grid = torch.stack(torch.meshgrid(x, x, indexing="ij"), -1)
    with torch.no_grad():
        law = flow(context)
        step = (t[1] - t[0]) * torch.cosh(t)
        mass = torch.exp(law.log_prob(grid.reshape(-1, 2))).reshape(len(t), len(t)) * step.unsqueeze(1) * step
        assert mass.sum().item() == pytest.approx(1, abs=2e-3)
        draws = law.sample((20_000,))
        for side in (0, 1):
            for cell in (230, 250, 277):
                edge = torch.sinh((t[cell] + t[cell + 1]) / 2)
                expected = mass.sum(1 - side)[: cell + 1].sum().item()
                assert (draws[:, side] <= edge).double().mean().item() == pytest.approx(expected, abs=0.015)
        quadrant = mass[:251, :251].sum().item()
        assert (draws <= torch.sinh((t[250] + t[251]) / 2)).all(-1).double().mean().item() == pytest.approx(
            quadrant, abs=0.015
        )


@cases
def test_extremes_stay_finite_with_their_gradients(name):
    flow = make(name, 4)
    x = torch.tensor([[50.0, -50.0, 0.0, 5.0], [-50.0, -50.0, -50.0, -50.0], [5.0, 5.0, -5.0, 1e3]]).requires_grad_()
    law = flow(torch.randn(3, C))
    density = law.log_prob(x)
    back = law.decode(x.clamp(-50, 50))
    assert torch.isfinite(density).all()
    assert torch.isfinite(back).all()
    density.sum().backward()
    assert torch.isfinite(x.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in flow.parameters() if p.grad is not None)


@cases
def test_bfloat16_networks_give_a_float32_density(name):
    flow = make(name, 4)
    x, context = torch.randn(8, 4), torch.randn(8, C)
    exact = flow(context).log_prob(x)
    with torch.autocast("cpu", torch.bfloat16):
        density = flow(context).log_prob(x)
    density.mean().backward()
    assert density.dtype == torch.float32
    torch.testing.assert_close(density, exact, rtol=0.1, atol=0.3)


def run(backend: str, *names: str) -> None:
    command = [sys.executable, "-m", "tests.models.compiled_flows", backend, *names]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert {result["flow"] for result in results} == set(names)
    for result in results:
        assert result["error"] < 1e-3, result


def test_no_graph_breaks_and_exports_of_any_batch():
    run("eager", "spline coupling")


@pytest.mark.slow
@pytest.mark.parametrize("name", MAKE)
def test_compiles_and_exports(name):
    run("inductor", name)


@pytest.mark.parametrize("kind", [NeuralSplineFlow, AffineFlow])
def test_a_masked_network_never_sees_ahead_and_steps_give_what_a_pass_gives(kind):
    flow = kind(5, C, transforms=1, hidden=[8, 3], autoregressive=True, tails=False).double()
    law = flow(torch.randn(C, dtype=torch.float64))
    matrix = jacobian(law.encode, torch.randn(5, dtype=torch.float64))
    assert not matrix.triu(1).any()
    net = law.transform.parts[0].conditioner
    x = torch.randn(5, 7, dtype=torch.float64)
    for graph in (True, False):
        with torch.set_grad_enabled(graph):
            steps = net.steps(x.shape[1:])
            each = torch.stack([steps.next(x[i - 1] if i else None) for i in range(5)], 1)
        torch.testing.assert_close(each.expand_as(net(x)), net(x))


def test_the_flow_starts_at_the_tails_of_the_data():
    torch.manual_seed(0)
    x = torch.distributions.StudentT(torch.tensor([3.0, 5.0]), 1.0, 2.0).sample((40_000,))
    flow = NeuralSplineFlow(2)
    flow.initialise(x)
    layer = flow.layers[0]
    assert isinstance(layer, TailLayer)
    # What Hill's estimator says of the laws' own quantiles: lighter tails are Pareto's only further out.
    p = (torch.arange(len(x), dtype=torch.float64) + 0.5) / len(x)
    expected = hill(StudentT(torch.tensor([3.0, 5.0], dtype=torch.float64), 0.0, 1.0).icdf(p[:, None]))[0].float()
    torch.testing.assert_close(layer.index.mean(0), expected, rtol=0.1, atol=0.0)
    assert abs(layer.index[:, 0].mean() - 1 / 3) < 0.2 / 3
    torch.testing.assert_close(layer.loc.detach(), torch.full((2,), 1.0), atol=0.05, rtol=0.0)
    z = flow().encode(x)
    assert z.abs().max() < 7
    base = StudentTBase(2)
    base.initialise(x)
    torch.testing.assert_close(torch.exp(base.log_df.detach()), 1 / expected, rtol=0.1, atol=0.0)


def test_hill_needs_numbers():
    with pytest.raises(ValueError, match="20 finite"):
        hill(torch.full((100,), torch.nan))


def test_a_flow_of_ones_own_layers():
    layers = [TailLayer(2), LinearLayer(2), CouplingLayer(2, C, [8], Affine, Affine.count, kept=1)]
    flow = Flow(NormalBase(2), layers)
    assert isinstance(flow, nn.Module)
    assert flow(torch.zeros(3, C)).sample().shape == (3, 2)
