"""The law of a common shock: the multivariate t behind it, the normal law at its end, mass, draws, gradients."""

import pytest
import torch
from torch.distributions import MultivariateNormal

from qtorch.distributions import MultivariateStudentT, StudentT
from qtorch.distributions.common_shock import CommonShock
from qtorch.distributions.transforms import StudentTails

D = 3


def double(value):
    return torch.tensor(value, dtype=torch.float64)


WHITENING = double([[1.2, 0.0, 0.0], [-0.5, 1.1, 0.0], [0.3, -0.4, 0.9]])


@pytest.mark.parametrize("df", [1.5, 3.0, 30.0, 1e4])
def test_behind_a_layer_of_its_index_stands_the_multivariate_t(df):
    xi = double(1 / df)
    layer = StudentTails(double(0.0), double(1.0), xi, xi)
    factors, diagonal = double([[0.8], [0.5], [-0.3]]), double([0.4, 0.9, 0.7])
    t = MultivariateStudentT(df, torch.zeros(D).double(), factors, diagonal)
    whitening = torch.linalg.inv(torch.linalg.cholesky(t.scale_matrix))
    x = torch.cat((torch.randn(50, D).double(), 50 * torch.eye(D).double(), double([[1e5, -1e3, 1e9]])))
    z, ladj = layer.call_and_ladj(x)
    found = CommonShock(xi, whitening).log_prob(z) + ladj.sum(-1)
    torch.testing.assert_close(found, t.log_prob(x), rtol=1e-10, atol=1e-8)


def test_without_index_it_tends_to_the_normal_law():
    z = 2 * torch.randn(50, D).double()
    normal = MultivariateNormal(torch.zeros(D).double(), precision_matrix=WHITENING.mT @ WHITENING)
    errors = [(CommonShock(double(xi), WHITENING).log_prob(z) - normal.log_prob(z)).abs().max() for xi in (1e-4, 1e-8)]
    assert errors[1] < 2e-4 * errors[0]
    index = double(1e-9).requires_grad_()
    CommonShock(index, WHITENING).log_prob(z).sum().backward()
    step = CommonShock(double(1e-4), WHITENING).log_prob(z).sum() - normal.log_prob(z).sum()
    assert index.grad.item() == pytest.approx(step.item() / 1e-4, rel=0.02)


@pytest.mark.parametrize("xi", [0.01, 0.3, 0.6])
def test_the_density_integrates_to_1_and_draws_follow_it(xi):
    law = CommonShock(double(xi), WHITENING[:2, :2])
    t = torch.linspace(-12, 12, 801, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(t, t, indexing="ij"), -1)
    mass = torch.exp(law.log_prob(grid)) * (t[1] - t[0]) ** 2
    assert mass.sum().item() == pytest.approx(1, abs=1e-9)
    draws = law.sample((100_000,))
    moments = torch.stack(((draws**2).mean(0), (draws**4).mean(0)))
    expected = torch.stack([(mass.unsqueeze(-1) * grid**k).sum((0, 1)) for k in (2, 4)])
    torch.testing.assert_close(moments, expected, rtol=0.05, atol=0.0)
    joint = (draws.abs() > 2).all(-1).double().mean().item()
    assert joint == pytest.approx(mass[(grid.abs() > 2).all(-1)].sum().item(), abs=2e-3)


def test_extremes_come_together():
    dependent, free = (CommonShock(double(xi), torch.eye(2).double()) for xi in (0.4, 1e-6))
    both = double([5.0, 5.0])
    assert dependent.log_prob(both) > free.log_prob(both) + 5


def test_gradients_are_right():
    z = torch.cat((torch.randn(4, D).double(), double([[9.0, -1.0, 0.5]])))  # both branches of the far tail
    leaves = [v.clone().requires_grad_() for v in (z, double([0.05, 0.2, 0.5]).unsqueeze(-1), WHITENING)]
    assert torch.autograd.gradcheck(lambda z, xi, W: CommonShock(xi, W).log_prob(z), leaves)


def test_draws_differentiate_in_both_parameters():
    index, whitening = double(0.3).requires_grad_(), WHITENING[:1, :1].clone().requires_grad_()
    draws = CommonShock(index, whitening).rsample((200_000,))
    draws.square().mean().backward()

    def square(xi, w):  # by quadrature of the t law's quantiles
        u = (torch.arange(20_000).double() + 0.5) / 20_000
        y = StudentT(1 / xi, 0.0, 1 / w).icdf(u)
        return (torch.log1p(xi * y * y) / xi).mean()

    xi, w = double(0.3).requires_grad_(), double(1.2).requires_grad_()
    square(xi, w).backward()
    assert index.grad.item() == pytest.approx(xi.grad.item(), rel=0.1)
    assert whitening.grad.item() == pytest.approx(w.grad.item(), rel=0.05)


def test_extremes_stay_finite_with_their_gradients():
    z = torch.tensor([[50.0, -50.0, 0.0], [200.0, 200.0, 200.0], [0.0, 0.0, 0.0]], requires_grad=True)
    index = torch.tensor([0.9, 0.3, 0.002], requires_grad=True)
    whitening = WHITENING.float().requires_grad_()
    density = CommonShock(index, whitening).log_prob(z)
    density.sum().backward()
    assert density.dtype == torch.float32
    assert torch.isfinite(density).all()
    assert all(torch.isfinite(leaf.grad).all() for leaf in (z, index, whitening))
