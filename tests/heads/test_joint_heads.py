"""The heads of joint laws: permutation, exact masks, normalisation by quadrature, draws, conditionals, learning."""

import math
import os
import subprocess
import sys

import pytest
import torch

from qtorch.distributions.cumulative import ndtr
from qtorch.heads import AttentionalCopulaHead, CopulaHead, CouplingFlowHead
from qtorch.nn import build, describe
from tests.heads.toys import held_out, sizes, train

NEURAL = {"attentional": AttentionalCopulaHead, "coupling": CouplingFlowHead}
neural = pytest.mark.parametrize("name", NEURAL)
every = pytest.mark.parametrize("name", [*NEURAL, "copula"])


def make(name, size=0.4, **settings):
    """A head in float64 whose law is far from a fresh one's."""
    torch.manual_seed(3)
    head = CopulaHead(5, 2) if name == "copula" else NEURAL[name](5, width=8, heads=2, **settings)
    for value in head.parameters():
        torch.nn.init.normal_(value, std=size)
    return head.double().eval()


def values(name, *shape):
    x = 1.5 * torch.randn(*shape, dtype=torch.float64)
    return x if name == "coupling" else ndtr(x)


def grid(name, points=400):
    """Nodes and weights of a coordinate: normal scores of uniforms, or values out to where the t's tails end."""
    if name == "coupling":
        t = torch.linspace(-6, 6, points, dtype=torch.float64)
        step = t[1] - t[0]
        return torch.sinh(t), torch.cosh(t) * step
    s = torch.linspace(-6, 6, points, dtype=torch.float64)
    return ndtr(s), torch.exp(-0.5 * s * s) / math.sqrt(2 * math.pi) * (s[1] - s[0])


@every
def test_assets_may_be_permuted(name):
    head, hidden, x, order = make(name), torch.randn(3, 7, 5).double(), values(name, 3, 7), torch.randperm(7)
    mask = torch.rand(3, 7) > 0.3
    one = head(hidden, mask).log_prob(x, mask)
    other = head(hidden[:, order], mask[:, order]).log_prob(x[:, order], mask[:, order])
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    assert one.abs().min() > 1e-3


@every
def test_a_masked_asset_changes_neither_density_nor_gradient(name):
    head, mask = make(name), torch.tensor([[True, False, True, True, False], [False, False, True, False, False]])
    hidden, x = torch.randn(2, 5, 5).double(), values(name, 2, 5)
    results = []
    for bad in (0.3, torch.inf, torch.nan):
        h = torch.where(mask.unsqueeze(-1), hidden, bad).requires_grad_()
        y = torch.where(mask, x, bad).requires_grad_()
        value = head(h, mask).log_prob(y, mask)
        leaves = [h, y, *head.parameters()]
        grads = torch.autograd.grad(value.sum(), leaves, materialize_grads=True)
        assert (grads[0][~mask] == 0).all()
        assert (grads[1][~mask] == 0).all()
        results.append([value, *grads])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b)
    alone = head(hidden[:1, mask[0]]).log_prob(x[:1, mask[0]])
    torch.testing.assert_close(results[0][0][:1], alone, rtol=1e-10, atol=1e-10)


@neural
@pytest.mark.parametrize("N", [1, 2, 3])
def test_the_density_of_those_there_integrates_to_one(name, N):
    """One more asset is there for the head, and not for the density."""
    nodes, weights = grid(name, {1: 16_000, 2: 200, 3: 44}[N])
    mask = torch.arange(N + 1) != 1
    law = make(name, 0.15)(torch.randn(N + 1, 5).double(), mask)
    x = torch.cartesian_prod(*[nodes] * N).reshape(-1, N)
    w = torch.cartesian_prod(*[weights] * N).reshape(-1, N).prod(-1)
    whole = torch.full((len(x), N + 1), torch.nan, dtype=torch.float64)
    whole[:, mask] = x
    with torch.no_grad():
        total = (torch.exp(law.log_prob(whole, mask)) * w).sum()
    assert total.item() == pytest.approx(1, abs={1: 1e-5, 2: 1e-3, 3: 2e-2}[N])


@neural
def test_samples_follow_the_density_and_can_be_traced_back(name):
    law = make(name, 0.25)(torch.randn(3, 5).double(), torch.tensor([True, False, True]))
    draws = law.sample((20_000,)).double()
    assert draws[:, 1].isnan().all()
    nodes, weights = grid(name, 300)
    x = torch.cartesian_prod(nodes, nodes)
    whole = torch.stack((x[:, 0], torch.full_like(x[:, 0], torch.nan), x[:, 1]), -1)
    with torch.no_grad():
        p = torch.exp(law.log_prob(whole)) * torch.cartesian_prod(weights, weights).prod(-1)
    for a, b in ((1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (1.0, -1.0)):  # smooth, so that the sum over nodes converges
        for wave in (torch.sin, torch.cos):
            found = wave(a * draws[:, 0] + b * draws[:, 2]).mean()
            assert found.item() == pytest.approx((p * wave(a * x[:, 0] + b * x[:, 1])).sum().item(), abs=0.025)
    with torch.no_grad():
        if name == "coupling":
            back = law.decode(law.encode(draws[:50]))
            torch.testing.assert_close(back, draws[:50], equal_nan=True, rtol=1e-8, atol=1e-8)
        else:
            z = torch.randn(50, 3).double()
            z[:, 1] = 0
            torch.testing.assert_close(law.encode_scores(law.decode_scores(z)), z, rtol=1e-8, atol=1e-8)


@neural
def test_a_gradient_reaches_every_parameter_also_through_draws(name):
    head = make(name).train()
    hidden = torch.randn(4, 6, 5).double()
    law = head(hidden)
    for value in (law.log_prob(values(name, 4, 6)), law.rsample()):
        for parameter in head.parameters():
            parameter.grad = None
        value.square().sum().backward(retain_graph=True)
        for label, parameter in head.named_parameters():
            assert parameter.grad is not None, label
            assert parameter.grad.isfinite().all(), label
            assert (parameter.grad != 0).any(), label


@neural
def test_a_fresh_head_has_independent_assets(name):
    head = NEURAL[name](5)
    hidden, mask = torch.randn(2, 6, 5), torch.rand(2, 6) > 0.3
    law, x = head(hidden, mask), values(name, 2, 6).float()
    own = torch.zeros(2, 6) if name == "attentional" else law.base.log_prob(x)
    expected = torch.where(mask, own, 0.0).sum(-1)
    torch.testing.assert_close(law.log_prob(x), expected, rtol=1e-5, atol=1e-5)


@neural
def test_weights_fit_any_number_of_assets_and_bundles_rebuild_the_head(name):
    head = make(name)
    for N in (1, 2, 9):
        assert head(torch.randn(2, N, 5).double()).log_prob(values(name, 2, N)).isfinite().all()
    again = build(describe(head))
    again.double().eval().load_state_dict(head.state_dict())
    hidden, x = torch.randn(2, 4, 5).double(), values(name, 2, 4)
    assert torch.equal(again(hidden).log_prob(x), head(hidden).log_prob(x))


@neural
def test_bfloat16_autocast_is_near_float32(name):
    head, hidden, x = make(name, 0.2).float(), torch.randn(8, 6, 5), values(name, 8, 6).float()
    with torch.autocast("cpu", torch.bfloat16):
        near = head(hidden).log_prob(x)
    exact = head(hidden).log_prob(x)
    assert near.dtype == exact.dtype == torch.float32
    torch.testing.assert_close(near, exact, rtol=0.02, atol=0.05)


def test_steps_with_kept_keys_are_the_pass():
    head, mask = make("attentional"), torch.rand(4, 6) > 0.3
    ask, tell, order, there = head.parameters_of(torch.randn(4, 6, 5).double(), mask)
    conditioner = head.distribution(ask, tell, order, there).conditioner(order, there.gather(-1, order))
    x = torch.randn(6, 3, 4).double()
    at_once, steps = conditioner(x), conditioner.steps(x.shape[1:])
    active = at_once[0] > 0
    assert active.any()
    for i in range(6):
        found = steps.next(x[i - 1] if i else None)
        assert torch.equal(found[0] > 0, active[i])
        torch.testing.assert_close(found[:, active[i]], at_once[:, i][:, active[i]], rtol=1e-10, atol=1e-10)


def test_the_first_of_an_order_is_exactly_uniform_and_orders_are_reproducible():
    head, hidden, order = make("attentional"), torch.randn(5, 5).double(), torch.tensor([3, 0, 4, 1, 2])
    law, first = head(hidden, order=order), torch.arange(5) == 3
    u = values("attentional", 9, 5)
    assert (law.log_prob(u, first) == 0).all()
    prefix = torch.isin(torch.arange(5), order[:3])
    later = law.log_prob(torch.where(prefix, u, 0.5)) - law.log_prob(u, prefix)
    assert later.abs().max() > 1e-3  # and so those after have a law of their own
    head.train()
    one, other = (head(hidden, generator=torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(one.order, other.order)
    with pytest.raises(ValueError, match="each of 0 to 4 once"):
        head(hidden, order=torch.tensor([0, 0, 1, 2, 3]))


def test_draws_given_a_known_asset_follow_the_conditional_density():
    law = make("attentional", 0.25)(torch.randn(2, 5).double())
    known, value = torch.tensor([False, True]), torch.tensor([torch.nan, 0.03], dtype=torch.float64)
    draws = law.sample_given(value, known, (20_000,))
    assert (draws[:, 1] == 0.03).all()
    nodes, weights = grid("attentional", 2000)
    pair = torch.stack((nodes, torch.full_like(nodes, 0.03)), -1)
    with torch.no_grad():
        first = law.known_first(known)
        p = torch.exp(first.log_prob(pair) - first.log_prob(pair, known)) * weights
    assert p.sum().item() == pytest.approx(1, abs=1e-5)
    for at in (0.1, 0.3, 0.5, 0.7, 0.9):
        share = (draws[:, 0] <= at).double().mean().item()
        assert share == pytest.approx(p[nodes <= at].sum().item(), abs=0.015)


def test_the_last_of_an_order_integrates_out():
    law, nodes = make("attentional", 0.25)(torch.randn(3, 5).double()), grid("attentional", 2000)
    u, mask = values("attentional", 3).expand(2000, 3), torch.arange(3) != law.order[-1]
    with torch.no_grad():
        area = (torch.exp(law.log_prob(torch.where(mask, u, nodes[0].unsqueeze(-1)))) * nodes[1]).sum()
        torch.testing.assert_close(area, torch.exp(law.log_prob(u[0], mask)), rtol=1e-5, atol=1e-5)


@neural
def test_it_learns_what_no_t_copula_can(name):
    """One asset moves with the size of the other's moves: their correlation is zero, and their dependence is not."""
    torch.manual_seed(0)
    fitting, fresh, hidden = sizes(2000, 2), sizes(4000, 2), torch.randn(2, 4)
    head = NEURAL[name](4, width=16, heads=2)
    train(head, hidden, fitting, steps=100)
    gain, best = held_out(head, hidden, fitting, fresh, factors=1)
    assert gain > best + 0.3


@pytest.mark.slow
def test_densities_compile_without_a_graph_break_and_export():
    command = [sys.executable, "-m", "tests.heads.compiled_joint"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-4000:]
