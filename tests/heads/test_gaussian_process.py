"""Heads of Gaussian processes: against exact regression, and aware of distances."""

import copy
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence

from qtorch import heads
from qtorch.distributions import decompose
from qtorch.heads.noise import NormalNoise, StudentTNoise
from qtorch.nn import build, describe
from tests.heads.linear_gaussian import regression

HORIZONS, SCALE, LENGTH, NOISE = (1, 3), 0.8, 1.3, np.sqrt([1.0, 3.0])


def kernel(a, b, smoothness=2.5):
    """The covariances of s g at points `[n, D]` and `[m, D]`, without GPyTorch, in numpy: `[H, n, m]`."""
    r = np.linalg.norm(a[:, None] - b, axis=-1) / LENGTH
    if smoothness is None:
        unit = np.exp(-(r**2) / 2)
    else:
        z = np.sqrt(2 * smoothness) * r
        unit = {0.5: 1, 1.5: 1 + z, 2.5: 1 + z + z**2 / 3}[smoothness] * np.exp(-z)
    return (SCALE * NOISE)[:, None, None] ** 2 * unit


def exact(hidden, outcome, new, smoothness=2.5):
    """Exact regression with a constant mean of 0.2: means and variances at new points, and the log likelihood."""
    K, across = kernel(hidden, hidden, smoothness), kernel(hidden, new, smoothness)
    noisy = K + NOISE[:, None, None] ** 2 * np.eye(len(hidden))
    residual = (outcome - 0.2).T[..., None]
    solved = np.linalg.solve(noisy, np.concatenate((residual, across), -1))
    mean = 0.2 + (across.transpose(0, 2, 1) @ solved[..., :1])[..., 0]
    variance = (SCALE * NOISE)[:, None] ** 2 - (across * solved[..., 1:]).sum(1)
    quadratic = (residual * solved[..., :1]).sum()
    likelihood = -0.5 * (quadratic + np.linalg.slogdet(2 * np.pi * noisy)[1].sum())
    return mean.T, variance.T, likelihood


def best(hidden, outcome, smoothness=2.5):
    """A head with the training inputs for inducing points and the optimal posterior there; its noise is sqrt(h)."""
    head = heads.GaussianProcessNormal(
        3, HORIZONS, inducing=len(hidden), smoothness=smoothness, prior_scale=SCALE, length_scale=LENGTH
    ).double()
    strategy = head.location.variational_strategy
    strategy.jitter_val = 1e-10  # beside the least eigenvalue of a smooth kernel its own, 1e-6, is not small
    K = torch.from_numpy(kernel(hidden.numpy(), hidden.numpy(), smoothness))
    h = torch.tensor(HORIZONS).double()[:, None, None]
    factor = torch.linalg.cholesky(K)
    precision = torch.eye(len(hidden)) + factor.mT @ factor / h
    covariance = torch.linalg.inv(precision)
    mean = covariance @ (factor.mT @ (outcome - 0.2).mT.unsqueeze(-1) / h)
    q = strategy._variational_distribution
    q.variational_mean.data, q.chol_variational_covar.data = mean.squeeze(-1), torch.linalg.cholesky(covariance)
    strategy.inducing_points.data = hidden.expand(2, -1, -1).clone()
    head.location.mean.raw_constant.data.fill_(0.2)
    return head


@pytest.mark.parametrize("smoothness", [None, 0.5, 1.5, 2.5])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("count", [5, 60])  # GPyTorch has other code for fewer than inducing points
def test_it_is_exact_regression_where_that_is_known(smoothness, training, count):
    hidden, outcome, _ = regression(40)
    new = 2 * torch.randn(count, 3, dtype=torch.float64)
    mean, variance, _ = exact(hidden.numpy(), outcome.numpy(), new.numpy(), smoothness)
    ours = best(hidden, outcome, smoothness).train(training).location.moments(new)
    torch.testing.assert_close(ours[0].detach(), torch.from_numpy(mean), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours[1].detach(), torch.from_numpy(variance), rtol=1e-5, atol=1e-5)


def test_the_bound_at_the_optimum_is_the_likelihood():
    """And no step makes it better, in any parameter of the posterior."""
    hidden, outcome, _ = regression(40)
    head = best(hidden, outcome)
    law = head(hidden)
    data = (law.weights * law.components.log_prob(outcome.unsqueeze(-1))).sum()
    bound = data - head.penalty()
    likelihood = exact(hidden.numpy(), outcome.numpy(), hidden.numpy())[2]
    assert bound.item() == pytest.approx(likelihood, rel=1e-5)
    bound.backward()
    posterior = head.location.variational_strategy._variational_distribution
    for parameter in posterior.parameters():
        torch.testing.assert_close(parameter.grad.tril(), torch.zeros_like(parameter), rtol=0, atol=1e-3)


def test_the_divergence_is_that_of_torch():
    """Of the values at the inducing points, which are not whitened, summed over horizons."""
    hidden, outcome, _ = regression(10)
    head = best(hidden, outcome)
    q = head.location.variational_strategy._variational_distribution
    torch.nn.init.normal_(q.variational_mean)
    torch.nn.init.normal_(q.chol_variational_covar, std=0.5)
    factor = torch.linalg.cholesky(torch.from_numpy(kernel(hidden.numpy(), hidden.numpy())))
    mean = (factor @ q.variational_mean.unsqueeze(-1)).squeeze(-1)
    spread = factor @ q.chol_variational_covar.tril()
    posterior = MultivariateNormal(mean, spread @ spread.mT)
    prior = MultivariateNormal(torch.zeros_like(mean), scale_tril=factor)
    torch.testing.assert_close(head.penalty(), kl_divergence(posterior, prior).sum(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", [heads.GaussianProcessNormal, heads.GaussianProcessStudentT])
def test_far_from_the_inducing_points_it_is_as_unsure_as_the_prior(kind):
    head = kind(3, HORIZONS, prior_scale=SCALE, length_scale=LENGTH).eval()
    q = head.location.variational_strategy._variational_distribution
    q.chol_variational_covar.data *= 0.1
    direction = torch.tensor([1.0, 0.0, 0.0])
    away = torch.tensor([0.0, 2.0, 4.0, 8.0, 100.0]).unsqueeze(-1) * direction
    unsure = decompose(head(away)).epistemic
    assert (unsure[0] < 0.3 * unsure[-1]).all()
    assert (unsure.diff(dim=0) > 0).all()
    prior = SCALE**2 * torch.tensor(HORIZONS)
    torch.testing.assert_close(unsure[-1], prior, rtol=2e-4, atol=0)


@pytest.mark.parametrize("kind", [heads.GaussianProcessNormal, heads.GaussianProcessStudentT])
@pytest.mark.parametrize("options", [{}, {"ard": True, "linear": True, "prior_scale": 0.5, "smoothness": None}])
def test_it_is_described_by_its_arguments(kind, options):
    head = kind(8, (1, 10), inducing=5, length_scale=2.0, draws=6, **options).eval()
    again = build(describe(head)).eval()
    assert type(again.noise) is (NormalNoise if kind is heads.GaussianProcessNormal else StudentTNoise)
    again.load_state_dict(head.state_dict())
    hidden = torch.randn(4, 3, 8)
    assert torch.equal(head(hidden).mean, again(hidden).mean)
    for shape in ((), (0,), (4, 3)):
        assert head(torch.zeros(*shape, 8)).batch_shape == (*shape, 2)
    learned = {name for name, parameter in head.named_parameters() if parameter.requires_grad}
    assert ("location.log_scale" in learned) is (head.prior_scale is None)
    assert head.location.kernel.lengthscale.shape == (2, 1, 8 if head.ard else 1)


def test_nothing_of_an_earlier_forecast_is_kept():
    """GPyTorch keeps factors of matrices, which other weights would not change, and which can't be copied."""
    head = heads.GaussianProcessNormal(8, (1,), inducing=5).eval()
    hidden = torch.randn(7, 8)
    before, penalty = head(hidden).variance, head.penalty()
    copy.deepcopy(head)
    with torch.no_grad():
        head.location.variational_strategy.inducing_points.add_(1.0)
        head.location.variational_strategy._variational_distribution.chol_variational_covar.mul_(0.5)
    after = head(hidden).variance
    torch.testing.assert_close(after, copy.deepcopy(head)(hidden).variance, rtol=0, atol=0)
    assert not torch.allclose(before, after, rtol=1e-4)
    assert head.penalty() > penalty + 1
    for _ in range(2):
        (head(hidden).variance.sum() + head.penalty()).backward()


def test_under_autocast_it_computes_in_float32():
    head = heads.GaussianProcessNormal(8, (1, 5), inducing=5)
    torch.nn.init.normal_(head.location.variational_strategy._variational_distribution.variational_mean)
    hidden = torch.randn(7, 8)
    plain = *head.location.moments(hidden), head.penalty()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = *head.location.moments(hidden), head.penalty()
    assert all(torch.equal(a, b) and a.dtype == torch.float32 for a, b in zip(plain, mixed, strict=True))


def test_without_gpytorch_it_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "qtorch.heads.sparse_process", raising=False)
    monkeypatch.setitem(sys.modules, "gpytorch", None)
    monkeypatch.setitem(sys.modules, "gpytorch.constraints", None)
    with pytest.raises(ImportError, match=r"pip install 'qtorch-finance\[gp\]'"):
        heads.GaussianProcessNormal(8, (1,))


@pytest.mark.slow
def test_gpytorch_is_imported_when_it_is_needed():
    code = "import sys, qtorch.heads; assert 'gpytorch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("name", "value"),
    [("inducing", 0), ("smoothness", 2.0), ("length_scale", 0.0), ("prior_scale", -1.0), ("draws", 1)],
)
def test_bad_arguments_are_refused(name, value):
    with pytest.raises(ValueError, match=name):
        heads.GaussianProcessStudentT(8, (1,), **{name: value})
