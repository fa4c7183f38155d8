"""What every flow must do: a density that integrates to 1, draws that follow it, an inverse, gradients, one graph."""

import json
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.autograd.functional import jacobian

from qtorch.distributions import MultivariateStudentT, StudentT
from qtorch.distributions.tail_index import hill, tail_index
from qtorch.distributions.transforms import Affine
from qtorch.models.flows import (
    AffineFlow,
    BernsteinFlow,
    CommonShockBase,
    ContinuousFlow,
    CouplingLayer,
    Flow,
    GaussianisationFlow,
    LinearLayer,
    MixtureLayer,
    NeuralSplineFlow,
    NormalBase,
    StudentTBase,
    TailLayer,
)
from qtorch.nn import build, describe
from tests.models.compiled_flows import MAKE, ODES, make

C = 2
cases = pytest.mark.parametrize("name", MAKE | ODES)


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
    for x in 2 * torch.randn(1 if name in ODES else 3, 3, dtype=torch.float64):
        _, ladj = law.transform.call_and_ladj(x)
        expected = torch.linalg.slogdet(jacobian(law.encode, x)).logabsdet
        torch.testing.assert_close(ladj, expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "continuous" else name for name in MAKE | ODES]
)
def test_the_density_integrates_to_1_and_draws_follow_it(name):
    flow = make(name, 2).double()
    context = torch.randn(C, dtype=torch.float64)
    # Fewer for those that cost more; the tail layer's density has a kink, where the error falls with the square alone.
    dear = {"continuous": 101, "monotone": 151}
    count = dear.get(name, 501 if name.startswith(("spline", "affine", "linear")) else 301)
    t = torch.linspace(-11, 11, count, dtype=torch.float64)  # in asinh x, where tails are smooth
    x = torch.sinh(t)
    grid = torch.stack(torch.meshgrid(x, x, indexing="ij"), -1)
    with torch.no_grad():
        law = flow(context)
        step = (t[1] - t[0]) * torch.cosh(t)
        mass = torch.exp(law.log_prob(grid.reshape(-1, 2))).reshape(len(t), len(t)) * step.unsqueeze(1) * step
        assert mass.sum().item() == pytest.approx(1, abs=2e-3)
        draws = law.sample((20_000,))
        for side in (0, 1):
            for cell in (23 * count // 50, count // 2, 277 * count // 501):
                edge = torch.sinh((t[cell] + t[cell + 1]) / 2)
                expected = mass.sum(1 - side)[: cell + 1].sum().item()
                assert (draws[:, side] <= edge).double().mean().item() == pytest.approx(expected, abs=0.015)
        middle = count // 2
        quadrant = mass[: middle + 1, : middle + 1].sum().item()
        assert (draws <= torch.sinh((t[middle] + t[middle + 1]) / 2)).all(-1).double().mean().item() == pytest.approx(
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


@pytest.mark.slow
def test_no_graph_breaks_and_exports_of_any_batch():
    run("eager", "spline coupling")


@pytest.mark.slow
@pytest.mark.parametrize("name", MAKE)
def test_compiles_and_exports(name):
    run("inductor", name)


@pytest.mark.parametrize("kind", [NeuralSplineFlow, AffineFlow, BernsteinFlow])
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
    # What the estimator says of the laws' own quantiles: lighter tails are Pareto's only further out.
    p = (torch.arange(len(x), dtype=torch.float64) + 0.5) / len(x)
    expected = tail_index(StudentT(torch.tensor([3.0, 5.0], dtype=torch.float64), 0.0, 1.0).icdf(p[:, None])).float()
    torch.testing.assert_close(layer.index.mean(0), expected, rtol=0.1, atol=0.0)
    assert abs(layer.index[:, 0].mean() - 1 / 3) < 0.05 / 3
    assert abs(layer.index[:, 1].mean() - 1 / 5) < 0.25 / 5
    torch.testing.assert_close(layer.loc.detach(), torch.full((2,), 1.0), atol=0.05, rtol=0.0)
    z = flow().encode(x)
    assert z.abs().max() < 7
    base = StudentTBase(2)
    base.initialise(x)
    torch.testing.assert_close(torch.exp(base.log_df.detach()), 1 / expected, rtol=0.1, atol=0.0)


@pytest.mark.parametrize("kind", [NeuralSplineFlow, AffineFlow])
@pytest.mark.parametrize("autoregressive", [False, True])
def test_a_fresh_flow_is_near_the_multivariate_t_of_its_data(kind, autoregressive):
    torch.manual_seed(0)
    law = MultivariateStudentT(3.0, torch.ones(3), torch.tensor([[0.5], [0.8], [-0.4]]), torch.full((3,), 0.3))
    x, test = law.sample((20_000,)), law.sample((20_000,))
    flow = kind(3, hidden=[16, 16], autoregressive=autoregressive)
    flow.initialise(x)
    assert flow.base.index.item() == pytest.approx(1 / 3, rel=0.1)
    with torch.no_grad():
        assert (law.log_prob(test) - flow().log_prob(test)).mean() < 0.02
        low = [r[:, :2] < -6 * law.marginals().scale[:2] for r in (flow().sample((400_000,)), law.sample((400_000,)))]
    both = [r.all(1).float().mean().item() for r in low]
    assert both[0] == pytest.approx(both[1], rel=0.3)
    shares = [(r.all(1).sum() / r.any(1).sum()).item() for r in low]  # of the days extreme for one of two
    assert shares[0] == pytest.approx(shares[1], rel=0.2)


def test_the_base_finds_no_shock_in_a_normal_law():
    torch.manual_seed(0)
    root = torch.tensor([[1.0, 0.0], [0.8, 0.6]])
    base = CommonShockBase(2)
    base.initialise(torch.randn(20_000, 2) @ root.mT)
    assert base.index < 0.01
    normal = torch.distributions.MultivariateNormal(torch.zeros(2), scale_tril=root)
    test = torch.randn(1000, 2) @ root.mT
    assert (normal.log_prob(test) - base().log_prob(test)).mean().abs() < 0.01
    with pytest.raises(ValueError, match="all finite"):
        base.initialise(torch.full((100, 2), torch.nan))


@pytest.mark.parametrize("estimate", [hill, tail_index])
def test_a_tail_index_needs_numbers(estimate):
    with pytest.raises(ValueError, match="20 finite"):
        estimate(torch.full((100,), torch.nan))


def test_a_law_without_a_right_tail_has_no_tail_index():
    assert tail_index(-torch.arange(1.0, 101.0)).item() == 0.0
    x = torch.cat((torch.rand(985), torch.tensor(1.5).expand(15))) - 1
    assert tail_index(x).item() == 0.0


def test_a_flow_of_ones_own_layers():
    layers = [TailLayer(2), LinearLayer(2), CouplingLayer(2, C, [8], Affine, Affine.count, kept=1)]
    flow = Flow(NormalBase(2), layers)
    assert isinstance(flow, nn.Module)
    assert flow(torch.zeros(3, C)).sample().shape == (3, 2)


@cases
def test_a_flow_rebuilt_from_its_description_gives_the_same_density(name):
    if name == "linear":
        pytest.skip("its layers hold functions")
    flow = make(name, 3)
    for p in flow.parameters():
        p.data += 0.05 * torch.randn_like(p)
    again = build(json.loads(json.dumps(describe(flow))))
    again.load_state_dict(flow.state_dict())
    x, context = torch.randn(6, 3), torch.randn(6, C)
    assert torch.equal(again(context).log_prob(x), flow(context).log_prob(x))


@pytest.mark.parametrize("name", [name for name in MAKE | ODES if name != "linear"])
def test_the_density_depends_on_the_context(name):
    flow = make(name, 3)
    for p in flow.parameters():
        p.data += 0.05 * torch.randn_like(p)
    context = torch.randn(6, C, requires_grad=True)
    flow(context).log_prob(torch.randn(6, 3)).sum().backward()
    assert (context.grad != 0).any(-1).all()


def correlated(count: int) -> torch.Tensor:
    z = torch.randn(count, 2)
    x = torch.stack((z[:, 0], 0.8 * z[:, 0] + 0.6 * z[:, 1]), -1)
    return torch.sinh(x)


def test_a_gaussianisation_flow_starts_as_a_density_of_the_data():
    x, new = correlated(4000), correlated(4000)
    flow = GaussianisationFlow(2, transforms=3, kernels=12)
    before = flow().log_prob(new).mean()
    flow.initialise(x)
    normal = torch.distributions.MultivariateNormal(torch.zeros(2), torch.tensor([[1.0, 0.8], [0.8, 1.0]]))
    exact = (normal.log_prob(torch.asinh(new)) - 0.5 * torch.log1p(new.square()).sum(-1)).mean()
    start = flow().log_prob(new).mean()
    assert start > before + 0.2
    assert start > exact - 0.1
    with pytest.raises(ValueError, match="two finite rows"):
        MixtureLayer(2, 12).initialise(x[:20])


def test_flow_matching_learns_a_law():
    x, new = correlated(4000), correlated(1000)
    flow = ContinuousFlow(2, hidden=[32, 32])
    flow.initialise(x)
    index = flow.layers[0].index.detach().clone()
    before = flow().log_prob(new).mean()
    optimiser = torch.optim.Adam(flow.parameters(), lr=5e-3)
    for _ in range(150):
        optimiser.zero_grad()
        flow.matching_loss(x[torch.randint(len(x), (256,))]).mean().backward()
        optimiser.step()
    assert flow().log_prob(new).mean() > before + 0.2
    assert torch.equal(flow.layers[0].index, index)


def test_masked_rows_change_neither_the_matching_loss_nor_its_gradient():
    flow = make("continuous", 3)
    mask = torch.tensor([True, False, True, False])
    found = []
    for bad in (0.0, torch.nan, torch.inf):
        x, context = torch.ones(4, 3), torch.ones(4, C)
        x[~mask], context[~mask] = bad, bad
        torch.manual_seed(2)
        flow.zero_grad()
        loss = flow.matching_loss(x, context, mask)
        loss.sum().backward()
        found.append([loss.detach(), *(p.grad for p in flow.parameters() if p.grad is not None)])
        assert (loss[~mask] == 0).all()
        assert (loss[mask] > 0).all()
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_hutchinsons_probes_are_drawn_for_a_law_and_keep_it_consistent():
    law = ContinuousFlow(3, hidden=[8], probes=2)()
    x = torch.randn(5, 3)
    z, ladj = law.transform.call_and_ladj(x)
    torch.testing.assert_close(law.transform.call_and_ladj(x)[1], ladj)
    torch.testing.assert_close(law.transform.inv_and_ladj(z)[1], -ladj, rtol=1e-3, atol=1e-4)


def test_without_torchdiffeq_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchdiffeq", None)
    with pytest.raises(ImportError, match=r"qtorch-finance\[flows\]"):
        ContinuousFlow(2, hidden=[8])().log_prob(torch.zeros(2))


def test_a_constant_coordinate_is_named():
    data = torch.randn(200, 3)
    data[:, 1] = 0.5
    with pytest.raises(ValueError, match=r"coordinates \[1\] have no tails"):
        NeuralSplineFlow(3, hidden=[8], transforms=1).initialise(data)
