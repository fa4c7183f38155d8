"""Heads of ensembles forecast the mixture of what their members forecast."""

import pytest
import torch
from torch import nn

from qtorch import heads
from qtorch.distributions import Posterior, decompose
from qtorch.nn import build, describe

D, K = 8, 3
HEADS = [heads.SkewedStudentT, heads.FlowHead]
every_head = pytest.mark.parametrize("kind", HEADS)


def random(head):
    for value in head.parameters():
        nn.init.normal_(value, std=0.3)
    return head


@every_head
@pytest.mark.parametrize("shared", [False, True])
def test_it_is_the_mixture_of_its_members(kind, shared):
    head = random(heads.Ensemble(kind(D, (1, 5)), K, shared))
    hidden = torch.randn(4, 2, D) if shared else torch.randn(4, 2, K, D)
    law = head(hidden)
    assert isinstance(law, Posterior)
    assert law.batch_shape == (4, 2, 2)
    each = [head.member(k)(hidden if shared else hidden[..., k, :]) for k in range(K)]
    x = torch.randn(4, 2, 2)
    torch.testing.assert_close(law.cdf(x), sum(one.cdf(x) for one in each) / K)
    density = torch.stack([one.log_prob(x) for one in each]).logsumexp(0) - torch.tensor(K).log()
    torch.testing.assert_close(law.log_prob(x), density, rtol=1e-5, atol=1e-5)
    means = torch.stack([one.mean for one in each])
    torch.testing.assert_close(decompose(law).epistemic, means.var(0, correction=0), rtol=1e-4, atol=1e-6)


def test_the_mixture_is_not_the_law_of_averaged_parameters():
    """Two members that agree on all but where the mode is: the mixture is wider than either."""
    head = heads.Ensemble(heads.SkewedStudentT(D, (1,)), 2)
    with torch.no_grad():
        head.head.project.bias.view(2, 4)[:, 2] = torch.tensor([-5.0, 5.0])
    law = head(torch.zeros(2, D))
    averaged = heads.SkewedStudentT(D, (1,))(torch.zeros(D))
    assert law.variance > 1.1 * averaged.variance
    assert decompose(law).epistemic > 0.1


@every_head
def test_each_draw_is_the_mixture_of_one_heads_laws(kind):
    one = random(kind(D, (1, 5)))
    hidden, x = torch.randn(4, K, D), torch.randn(4, 2)
    law = heads.EachDraw(one)(hidden)
    expected = sum(one(hidden[:, k]).cdf(x) for k in range(K)) / K
    torch.testing.assert_close(law.cdf(x), expected)


def test_members_of_a_shared_state_start_apart_and_others_as_a_fresh_head():
    fresh = heads.SkewedStudentT(D, (1,))
    apart = heads.Ensemble(fresh, 200, shared=True)
    weight = apart.head.project.weight
    assert weight.shape == (200, 4, D)
    assert weight.std().item() * D**0.5 == pytest.approx(0.1, rel=0.05)  # of 6,400 draws: within 5 standard errors
    law = heads.Ensemble(fresh, K)(torch.randn(4, K, D))
    torch.testing.assert_close(law.variance, torch.ones(4, 1), rtol=1e-5, atol=0)
    torch.testing.assert_close(decompose(law).epistemic, torch.zeros(4, 1))


@pytest.mark.parametrize(
    "head",
    [
        lambda: heads.Ensemble(heads.FlowHead(D, (1, 5)), K, True),
        lambda: heads.EachDraw(heads.SkewedStudentT(D, (1, 5))),
    ],
)
def test_it_is_described_by_its_arguments(head):
    one = random(head())
    again = build(describe(one))
    again.load_state_dict(one.state_dict())
    hidden = torch.randn(2, D) if isinstance(one, heads.Ensemble) else torch.randn(2, K, D)
    for a, b in zip(one.parameters_of(hidden), again.parameters_of(hidden), strict=True):
        assert torch.equal(a, b)
    assert again.horizons == (1, 5)


def test_other_heads_are_refused():
    with pytest.raises(TypeError, match="a CopulaHead is none"):
        heads.Ensemble(heads.CopulaHead(D, 2), K)
