"""The heads of joint laws: permutation, exact masks, normalisation by quadrature, draws, conditionals, learning."""

import math
import os
import subprocess
import sys

import pytest
import torch
from torch.distributions import Cauchy, MultivariateNormal

from qtorch.distributions import GaussianCopula, JointDistribution, MaskedFlow, StudentT
from qtorch.distributions.cumulative import ndtr
from qtorch.distributions.transforms import Affine, Composed, Masked
from qtorch.heads import AttentionalCopulaHead, CopulaHead
from qtorch.nn import build, describe
from qtorch.risk import anomaly, quasi_random_scenarios
from tests.heads.toys import held_out, law_of, one_horizon, regimes, regimes_log_ratio, sizes, train

NEURAL = {"attentional": AttentionalCopulaHead, "coupling": one_horizon}
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


def even_points(name, N, rows=2048, repeats=8):
    """Scrambled Sobol points in the space of the law, and the log density that they come from."""
    engines = [torch.quasirandom.SobolEngine(N, scramble=True, seed=seed) for seed in range(repeats)]
    u = torch.stack([engine.draw(rows, dtype=torch.float64) for engine in engines]).clamp(1e-12, 1 - 1e-12)
    if name == "attentional":
        return u, torch.zeros(repeats, rows, dtype=torch.float64)
    x = 2 * torch.tan(math.pi * (u - 0.5))
    return x, Cauchy(torch.tensor(0.0, dtype=torch.float64), 2.0).log_prob(x).sum(-1)


def jacobian(encode, x):
    """Of a map of vectors at some points `[S, N]`, `[S, N, N]`."""
    x = x.clone().requires_grad_()
    z = encode(x)
    return torch.stack([torch.autograd.grad(part.sum(), x, retain_graph=True)[0] for part in z.unbind(-1)], -2)


@every
def test_assets_may_be_permuted(name):
    head, hidden, x, order = make(name), torch.randn(3, 7, 5).double(), values(name, 3, 7), torch.randperm(7)
    mask = torch.rand(3, 7) > 0.3
    one = law_of(head, hidden, mask).log_prob(x, mask)
    other = law_of(head, hidden[:, order], mask[:, order]).log_prob(x[:, order], mask[:, order])
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
        value = law_of(head, h, mask).log_prob(y, mask)
        leaves = [h, y, *head.parameters()]
        grads = torch.autograd.grad(value.sum(), leaves, materialize_grads=True)
        assert (grads[0][~mask] == 0).all()
        assert (grads[1][~mask] == 0).all()
        results.append([value, *grads])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b)
    alone = law_of(head, hidden[:1, mask[0]]).log_prob(x[:1, mask[0]])
    torch.testing.assert_close(results[0][0][:1], alone, rtol=1e-10, atol=1e-10)


@neural
def test_the_density_is_that_of_the_jacobian_and_the_map_has_an_inverse(name):
    """For strong dependence, near and far, with an asset that is not there."""
    mask = torch.tensor([True, True, False, True])
    law = law_of(make(name, 0.5), torch.randn(4, 5).double(), mask)
    x = torch.cat([scale * torch.randn(8, 4, dtype=torch.float64) for scale in (1, 2, 20 if name == "coupling" else 3)])
    if name == "coupling":
        encode, decode, density, base = law.encode, law.decode, law.log_prob, law.base
    else:
        encode, decode = law.encode_scores, law.decode_scores
        base = MultivariateNormal(torch.zeros(3).double(), torch.eye(3).double())

        def density(x):
            return law.log_prob_of_scores(x) + base.log_prob(x[:, mask])  # of scores, and not of their uniforms

    J = jacobian(encode, x)[:, mask][:, :, mask]
    z = encode(x).detach()
    own = base.log_prob(torch.where(mask, z, 0.0), mask) if name == "coupling" else base.log_prob(z[:, mask])
    expected = own + torch.linalg.slogdet(J).logabsdet
    torch.testing.assert_close(density(x), expected, rtol=1e-10, atol=1e-10)
    assert torch.linalg.slogdet(J).logabsdet.abs().max() > 1
    with torch.no_grad():
        torch.testing.assert_close(decode(encode(x))[:, mask], x[:, mask], rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(encode(decode(z))[:, mask], z[:, mask], rtol=1e-8, atol=1e-8)


@neural
@pytest.mark.parametrize(("N", "size"), [(1, 0.3), (2, 0.3), (3, 0.15)])
def test_the_density_integrates_to_one_and_is_that_of_draws(name, N, size):
    """By even points and their spread over randomisations; one more asset has a state and is not there."""
    mask = torch.arange(N + 1) != 1
    law = law_of(make(name, size), torch.randn(N + 1, 5).double(), mask)
    x, log_q = even_points(name, N)
    whole = torch.full((*x.shape[:-1], N + 1), torch.nan, dtype=torch.float64)
    whole[..., mask] = x
    with torch.no_grad():
        weight = torch.exp(law.log_prob(whole) - log_q)
        draws = law.sample((10_000,)).double()
    assert draws[:, 1].isnan().all()
    total = weight.mean(-1)
    assert total.std() < 0.02 * 8**0.5
    assert abs(total.mean() - 1) < 4 * total.std() / 8**0.5 + 1e-9
    for frequency in (0.7, 2.0):  # bounded, and not symmetric
        a, b = (torch.sin(frequency * x.cumsum(-1) + 0.3).prod(-1) for x in (x, draws[:, mask]))
        a = (a * weight).mean(-1)
        assert abs(a.mean() - b.mean()) < 4 * torch.sqrt(a.var() / 8 + b.var() / len(b))


@neural
def test_a_gradient_reaches_every_parameter_also_through_draws(name):
    head = make(name).train()
    hidden = torch.randn(4, 6, 5).double()
    law = law_of(head, hidden)
    for value in (law.log_prob(values(name, 4, 6)), law.rsample()):
        for parameter in head.parameters():
            parameter.grad = None
        value.square().sum().backward(retain_graph=True)
        for label, parameter in head.named_parameters():
            assert parameter.grad is not None, label
            assert parameter.grad.isfinite().all(), label
            assert (parameter.grad != 0).any(), label


@neural
def test_a_fresh_head_is_its_start(name):
    """Independence of the attentional copula, and of the flow a Student's t of one factor and volatility 1."""
    head = NEURAL[name](5)
    hidden, mask = torch.randn(2, 6, 5), torch.rand(2, 6) > 0.3
    law, x = law_of(head, hidden, mask), values(name, 2, 6).float()
    expected = torch.zeros(2) if name == "attentional" else law.base.log_prob(x, mask)
    torch.testing.assert_close(law.log_prob(x), expected, rtol=1e-5, atol=1e-5)
    if name == "coupling":
        torch.testing.assert_close(law.base.variance, torch.ones(2, 6))
        assert ((law.base.covariance_matrix - 0.38).abs()[:, ~torch.eye(6, dtype=torch.bool)] < 0.06).all()


@neural
def test_hundreds_of_assets_are_drawn_and_moments_are_refused(name):
    law = law_of(NEURAL[name](5, width=8, heads=2), torch.randn(2, 200, 5), torch.rand(2, 200) > 0.1)
    draws = law.sample((1,))
    assert draws.shape == (1, 2, 200)
    assert torch.equal(draws[0].isnan(), ~law.mask)
    assert law.log_prob(draws).isfinite().all()
    for moment in ("mean", "variance"):
        with pytest.raises(NotImplementedError):
            getattr(law, moment)


@neural
def test_weights_fit_any_number_of_assets_and_bundles_rebuild_the_head(name):
    head = make(name)
    for N in (1, 2, 9):
        assert law_of(head, torch.randn(2, N, 5).double()).log_prob(values(name, 2, N)).isfinite().all()
    again = build(describe(head))
    again.double().eval().load_state_dict(head.state_dict())
    hidden, x = torch.randn(2, 4, 5).double(), values(name, 2, 4)
    assert torch.equal(law_of(again, hidden).log_prob(x), law_of(head, hidden).log_prob(x))


@neural
def test_bfloat16_autocast_is_near_float32(name):
    head, hidden, x = make(name, 0.2).float(), torch.randn(8, 6, 5), values(name, 8, 6).float()
    with torch.autocast("cpu", torch.bfloat16):
        near = law_of(head, hidden).log_prob(x)
    exact = law_of(head, hidden).log_prob(x)
    assert near.dtype == exact.dtype == torch.float32
    torch.testing.assert_close(near, exact, rtol=0.02, atol=0.05)


def test_steps_with_kept_keys_are_the_pass():
    head, mask = make("attentional"), torch.rand(4, 6) > 0.3
    law = head(torch.randn(4, 6, 5).double(), mask)
    states = (state.gather(-2, law.order.unsqueeze(-1).expand(state.shape)) for state in law.states)
    conditioner = law.conditioner(*states, mask.gather(-1, law.order))
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
    law, known = make("attentional", 0.5)(torch.randn(2, 5).double()), torch.tensor([False, True])
    value = torch.tensor([torch.nan, 0.03], dtype=torch.float64)
    draws = law.sample_given(value, known, (20_000,))
    assert (draws[:, 1] == 0.03).all()
    first, u = law.known_first(known), torch.linspace(1e-4, 1 - 1e-4, 101, dtype=torch.float64)

    def cdf(u):
        return ndtr(first.encode_scores(torch.special.ndtri(torch.stack((u, torch.full_like(u, 0.03)), -1)))[..., 0])

    u.requires_grad_()
    pair = torch.stack((u, torch.full_like(u, 0.03)), -1)
    slope = torch.autograd.grad(cdf(u).sum(), u)[0]
    torch.testing.assert_close(torch.exp(first.log_prob(pair) - first.log_prob(pair, known)), slope)
    torch.testing.assert_close(cdf(torch.tensor([1e-9, 1 - 1e-9]).double()), torch.tensor([1e-9, 1 - 1e-9]).double())
    at = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)
    shares, expected = (draws[:, :1] <= at).double().mean(0), cdf(at)
    assert ((shares - expected).abs() < 4 * torch.sqrt(expected * (1 - expected) / 20_000) + 1e-9).all()
    assert (expected - at).abs().max() > 0.1


def test_the_last_of_an_order_integrates_out():
    """What is left without it is the law of the others, since the rest of the density is the slope of its cdf."""
    law = make("attentional", 0.5)(torch.randn(4, 5).double())
    s, last = torch.randn(7, 4, dtype=torch.float64), law.order[-1]
    mask = torch.arange(4) != last
    J = jacobian(law.encode_scores, s)
    assert (J[:, mask][:, :, last] == 0).all()  # the others' transforms do not know it
    z = law.encode_scores(s)
    torch.testing.assert_close(law.encode_scores(s, mask)[:, mask], z[:, mask])
    rest = 0.5 * (s[:, last] ** 2 - z[:, last] ** 2) + torch.log(J[:, last, last])
    torch.testing.assert_close(law.log_prob_of_scores(s) - law.log_prob_of_scores(s, mask), rest)


def test_a_joint_law_takes_the_copula_with_any_marginals():
    head, mask = make("attentional"), torch.tensor([True, False, True, True])
    hidden, x = torch.randn(3, 4, 5).double(), 0.02 * torch.randn(3, 4).double()
    x[:, 1] = torch.nan
    copula, marginals = head(hidden, mask.expand(3, 4)), StudentT(torch.full((4,), 4.0).double(), 0.0, 0.01)
    joint = JointDistribution(marginals, copula)
    x = x.requires_grad_()
    found = joint.log_prob(x, mask)
    expected = copula.log_prob(marginals.cdf(x), mask) + marginals.log_prob(x)[:, mask].sum(-1)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    grads = torch.autograd.grad(found.sum(), [x, *head.parameters()])
    assert all(grad.isfinite().all() for grad in grads)
    assert (grads[0][:, 1] == 0).all()
    assert (grads[0][:, mask] != 0).all()
    draws = joint.sample((5,))
    assert torch.equal(draws.isnan(), ~mask.expand(5, 3, 4))
    torch.manual_seed(9)
    again = joint.sample((5,))
    torch.manual_seed(9)
    torch.testing.assert_close(marginals.cdf(again).float(), copula.rsample((5,)), equal_nan=True)
    for refused in (lambda: joint.marginal([0, 2]), lambda: joint.condition(x.detach(), [0])):
        with pytest.raises(NotImplementedError, match="attentional copula"):
            refused()
    with pytest.raises(TypeError, match="AttentionalCopula has not"):
        quasi_random_scenarios(joint, 8)


def test_a_flow_bends_a_joint_law_of_any_marginals():
    marginals = StudentT(torch.tensor([3.0, 5.0, 8.0]).double(), 0.0, 1.0)
    base = JointDistribution(marginals, GaussianCopula(torch.full((3, 1), 0.7).double()))
    mask = torch.tensor([True, False, True])
    law = MaskedFlow(base, lambda there: Composed([Masked(Affine(torch.tensor([1.0, 0.5]).double()), there)]), mask)
    x = torch.tensor([0.3, torch.nan, -2.0]).double()
    scale = torch.exp(Affine(torch.tensor([1.0, 0.5]).double()).log_scale)
    expected = base.log_prob(x * scale + 1, mask) + 2 * torch.log(scale)
    torch.testing.assert_close(law.log_prob(x), expected)
    torch.testing.assert_close(law.decode(law.encode(x)), x, equal_nan=True)
    with pytest.raises(ValueError, match="as many coordinates"):
        MaskedFlow(base, law.transform, mask[:2])


@neural
def test_it_learns_what_no_t_copula_can(name):
    """One asset moves with the size of the other's moves: their correlation is zero, and their dependence is not."""
    torch.manual_seed(0)
    fitting, fresh, hidden = sizes(2000, 2), sizes(2000, 2), torch.randn(2, 4)
    settings = {"layers": 2} if name == "coupling" else {"depth": 1}
    head = NEURAL[name](4, width=16, heads=2, **settings)
    train(head, hidden, fitting, steps=60)
    gain, best = held_out(head, hidden, fitting, fresh, factors=1)
    assert gain > best + 0.3


@pytest.mark.slow
@neural
def test_it_learns_regimes_of_correlation(name):
    """Two clusters move together or against each other: a t copula finds the clusters, and not the regimes."""
    torch.manual_seed(0)
    fitting, fresh, hidden = regimes(4000, 6), regimes(4000, 6), torch.randn(6, 4)
    head = NEURAL[name](4, width=16, heads=2)
    train(head, hidden, fitting, steps=400)
    gain, best = held_out(head, hidden, fitting, fresh, factors=2)
    assert best + 0.2 < gain < regimes_log_ratio(fresh).mean() + 0.03


@pytest.mark.slow
def test_densities_compile_without_a_graph_break_and_export():
    command = [sys.executable, "-m", "tests.heads.compiled_joint_heads"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-4000:]


def test_what_a_copula_leaves_out_never_counts():
    torch.manual_seed(0)
    hidden, there = torch.randn(4, 8), torch.tensor([True, True, False, True])
    law = JointDistribution(
        StudentT(4.0, torch.zeros(4), 0.01), AttentionalCopulaHead(8, width=8, heads=2)(hidden, there)
    )
    x = torch.full((4,), 0.001)
    torch.testing.assert_close(law.log_prob(x), law.log_prob(x, there))
    assert 0.02 < anomaly(law, x) == anomaly(law, torch.where(there, x, torch.nan))
