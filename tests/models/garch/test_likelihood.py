import math

import pytest
import torch

from qtorch.distributions import HansenSkewedT, StudentT
from qtorch.models.garch.likelihood import Sample, log_likelihood, log_likelihood_and_gradient, scores
from qtorch.models.garch.specification import Parameters, Specification

LAWS = ("normal", "student_t", "skewed_t")


@pytest.fixture
def sample():
    returns = torch.randn(41, 4, dtype=torch.float64)
    returns[30:, 1] = torch.nan
    return Sample.of(returns, torch.tensor([41, 30, 25, 2]))


def parameters(errors: str) -> Parameters:
    ranges = ((0.0, 0.1), (0.02, 0.1), (0.02, 0.1), (0.02, 0.1), (0.5, 0.3), (4.0, 5.0), (-0.3, 0.6))
    theta = Parameters(*(low + width * torch.rand(4, dtype=torch.float64) for low, width in ranges))
    return theta if errors == "skewed_t" else theta._replace(skew=torch.zeros(4, dtype=torch.float64))


def by_hand(sample: Sample, n: int, theta: torch.Tensor, errors: str) -> torch.Tensor:
    """Each session's log density, a session after the other, from the law's own class."""
    mu, omega, alpha, gamma, beta, nu, skew = theta
    returns = sample.returns.transpose(0, 1).flatten(0, 1)[: sample.count[n], n]
    before, one = sample.backcast[n], torch.ones((), dtype=torch.float64)
    variance, logs = omega + (alpha + gamma / 2 + beta) * before, []
    for r in returns:
        e, sigma = r - mu, variance.sqrt()
        if errors == "normal":
            logs.append(-0.5 * math.log(2 * math.pi) - sigma.log() - 0.5 * (e / sigma) ** 2)
        elif errors == "student_t":
            logs.append(StudentT(nu, 0 * one, sigma * torch.sqrt((nu - 2) / nu)).log_prob(e))
        else:
            logs.append(HansenSkewedT(nu, skew, 0 * one, sigma).log_prob(e))
        variance = omega + (alpha + gamma * (e < 0)) * e**2 + beta * variance
    return torch.stack(logs)


@pytest.mark.parametrize("errors", LAWS)
def test_value_gradient_and_scores_are_those_of_the_recursion_by_hand(sample, errors):
    theta = parameters(errors)
    value, gradient = log_likelihood_and_gradient(sample, theta, errors)
    torch.testing.assert_close(log_likelihood(sample, theta, errors), value)
    by_session = scores(sample, theta, errors)
    for n in range(4):
        x = torch.stack([values[n] for values in theta]).requires_grad_()
        logs = by_hand(sample, n, x, errors)
        (expected,) = torch.autograd.grad(logs.sum(), x, retain_graph=True)
        k = 5 + LAWS.index(errors)
        torch.testing.assert_close(value[n], logs.sum().detach(), rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(gradient[n, :k], expected[:k], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(by_session[:k, ..., n].sum((1, 2)), expected[:k], rtol=1e-9, atol=1e-9)
        t = min(17, int(sample.count[n]) - 1)
        (one,) = torch.autograd.grad(logs[t], x)
        L = len(sample.returns)
        torch.testing.assert_close(by_session[:k, t % L, t // L, n], one[:k], rtol=1e-9, atol=1e-9)


def test_backcast_weighs_the_first_75_squared_residuals():
    returns = torch.randn(100, 1, dtype=torch.float64)
    sample, first = Sample.of(returns, torch.tensor([100])), returns[:75, 0]
    weight = 0.94 ** torch.arange(75, dtype=torch.float64)
    expected = (weight * (first - sample.mean[0]) ** 2).sum() / weight.sum()
    torch.testing.assert_close(sample.backcast[0], expected)


@pytest.mark.parametrize("o", [0, 1])
@pytest.mark.parametrize("errors", LAWS)
def test_free_coordinates_map_into_the_bounds_and_back(o, errors):
    specification = Specification(o, errors)
    mean, variance = torch.randn(200, dtype=torch.float64), torch.rand(200, dtype=torch.float64) + 0.1
    theta = specification.natural(3 * torch.randn(200, len(specification.names)).double(), mean, variance)
    assert (theta.omega > 0).all()
    assert (theta.alpha >= 0).all()
    assert (theta.alpha + theta.gamma >= 0).all()
    assert (theta.beta >= 0).all()
    assert (theta.persistence < 1).all()
    assert (theta.skew.abs() < 1).all()
    if errors != "normal":
        assert ((theta.nu >= 2.05 * (1 - 1e-12)) & (theta.nu <= (500.001 if errors == "student_t" else 300.001))).all()
    again = specification.natural(specification.free(theta, mean, variance), mean, variance)
    for a, b in zip(theta, again, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


def test_an_order_other_than_0_and_1_is_refused():
    with pytest.raises(ValueError, match="o=2: give 0, or 1"):
        Specification(o=2)
