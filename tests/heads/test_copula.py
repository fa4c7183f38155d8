"""The copula head: bounds, permutation, masks, unseen assets, and what it learns from past transforms."""

import pytest
import torch

from qtorch.distributions import JointDistribution, StudentT, StudentTCopula
from qtorch.heads import CopulaHead
from qtorch.nn import build, describe


@pytest.mark.parametrize("size", [1.0, 1e3, 1e6])
def test_no_hidden_state_gives_an_absurd_copula(size):
    head = CopulaHead(8, 3)
    for layer in (head.project, head.tails):
        torch.nn.init.normal_(layer.weight)
    copula = head(size * torch.randn(50, 20, 8))
    assert (copula.loadings.square().sum(-1) < 0.945).all()
    assert ((copula.df >= 2.1) & (copula.df <= 60)).all()
    assert copula.log_prob(torch.rand(50, 20)).isfinite().all()


def test_a_fresh_head_has_one_factor():
    copula = CopulaHead(8, 3)(torch.randn(2, 5, 8))
    assert copula.df.tolist() == pytest.approx([8.0, 8.0], abs=0.2)
    off = ~torch.eye(5, dtype=torch.bool)
    assert ((copula.correlation[0][off] > 0.3) & (copula.correlation[0][off] < 0.5)).all()


def test_assets_may_be_permuted_masked_and_new():
    head = CopulaHead(8, 2)
    torch.nn.init.normal_(head.project.weight)
    torch.nn.init.normal_(head.tails.weight)
    hidden, order = torch.randn(3, 6, 8), torch.randperm(6)
    torch.testing.assert_close(
        head(hidden[:, order]).correlation, head(hidden).correlation[:, order][:, :, order], rtol=1e-5, atol=1e-6
    )
    mask = torch.arange(6) < 4
    padded = head(torch.where(mask.unsqueeze(-1), hidden, torch.nan), mask.expand(3, 6))
    u = torch.rand(3, 6)
    alone = head(hidden[:, :4]).log_prob(u[:, :4])
    torch.testing.assert_close(padded.log_prob(u, mask.expand(3, 6)), alone, rtol=1e-5, atol=1e-5)


def test_a_gradient_reaches_every_parameter():
    head = CopulaHead(8, 2)
    hidden = torch.randn(4, 6, 8, requires_grad=True)
    head(hidden).log_prob(torch.rand(4, 6)).sum().backward()
    for value in (hidden, *head.parameters()):
        assert value.grad.isfinite().all()
        assert (value.grad != 0).any()


def test_it_learns_which_assets_move_together_and_tells_of_new_ones():
    """Two sectors, known by a feature; training sees eight of twelve assets, and the others follow their sector's."""
    torch.manual_seed(0)
    sector = torch.arange(12) % 2
    loadings = torch.stack([torch.full((12,), 0.5), 0.6 * (2.0 * sector - 1)], dim=-1).double()
    truth = StudentTCopula(torch.tensor(5.0).double(), loadings)
    u = truth.sample((1500,)).float()
    features = torch.nn.functional.one_hot(sector, 2).float()
    head = CopulaHead(2, 2)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.03)
    for _ in range(120):
        rows = torch.randint(0, 1500, (256,))
        df, L = head.parameters_of(features[:8])
        loss = -head.distribution(df, L).log_prob(u[rows, :8]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    learnt = head(features)
    assert (learnt.correlation.double() - truth.correlation).abs().max() < 0.1
    assert 3.5 < learnt.df < 7.5
    joint = JointDistribution(StudentT(4.0, torch.zeros(12), 0.01), learnt)
    assert joint.sample((5,)).shape == (5, 12)


def test_it_is_described_by_its_arguments():
    again = build(describe(CopulaHead(8, 3)))
    assert (again.in_features, again.factors) == (8, 3)
    with pytest.raises(ValueError, match="factors=0: give at least 1"):
        CopulaHead(8, 0)
