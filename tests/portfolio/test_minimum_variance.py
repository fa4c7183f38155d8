"""Minimum variance against a quadratic program's solver, its gradients, masks and closed markets."""

import numpy as np
import pytest
import torch
from scipy.optimize import LinearConstraint, minimize
from torch import Tensor

from qtorch.portfolio import MinimumVariance
from qtorch.portfolio.quadratic import minimise_quadratic


def covariances(B: int, N: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(B, 3 * N, N, generator=generator, dtype=torch.float64)
    x += torch.randn(B, 3 * N, 1, generator=generator, dtype=torch.float64)
    x *= 0.5 + torch.rand(B, 1, N, generator=generator, dtype=torch.float64)
    return x.mT @ x / (3 * N)


def by_scipy(Q: np.ndarray, c: np.ndarray, low: np.ndarray, high: np.ndarray, budget: float) -> np.ndarray:
    start = low + (high - low) * (budget - low.sum()) / (high - low).sum()
    done = minimize(
        lambda w: (w @ Q @ w / 2 + c @ w, Q @ w + c),
        start,
        jac=True,
        method="trust-constr",
        hess=lambda w: Q,
        bounds=list(zip(low, high, strict=True)),
        constraints=LinearConstraint(np.ones((1, len(c))), budget, budget),
        options={"gtol": 1e-12, "xtol": 1e-14, "maxiter": 3000, "barrier_tol": 1e-12},
    )
    return done.x


@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_minimum(seed: int):
    B, N = 3, 8
    Q, generator = covariances(B, N, seed), torch.Generator().manual_seed(seed)
    c = 0.3 * torch.randn(B, N, generator=generator, dtype=torch.float64)
    low = -0.1 * torch.rand(B, N, generator=generator, dtype=torch.float64)
    high = 0.15 + 0.2 * torch.rand(B, N, generator=generator, dtype=torch.float64)
    low[:, 0] = high[:, 0] = 0.2
    budget = torch.tensor([1.0, 0.9, 0.5], dtype=torch.float64)
    w = minimise_quadratic(Q, c, low, high, budget)
    assert (w.sum(-1) - budget).abs().max() < 1e-12
    assert (w >= low - 1e-12).all()
    assert (w <= high + 1e-12).all()
    for b in range(B):
        reference = by_scipy(*(x[b].numpy() for x in (Q, c, low, high)), budget[b].item())
        value = [x @ Q[b].numpy() @ x / 2 + c[b].numpy() @ x for x in (w[b].numpy(), reference)]
        assert value[0] <= value[1] + 1e-9
        np.testing.assert_allclose(w[b].numpy(), reference, atol=1e-5)


def test_gradients_are_exact():
    Q, generator = covariances(1, 5, 9), torch.Generator().manual_seed(9)
    low, high = torch.zeros(1, 5, dtype=torch.float64), torch.full((1, 5), 0.4, dtype=torch.float64)
    c = 0.05 * torch.randn(1, 5, generator=generator, dtype=torch.float64)
    budget = torch.ones(1, dtype=torch.float64)
    w = minimise_quadratic(Q, c, low, high, budget)
    assert ((w <= 1e-9) | (w >= 0.4 - 1e-9)).any(), "no bound is at work"
    inputs = [x.requires_grad_() for x in (Q, c, low, high, budget)]
    assert torch.autograd.gradcheck(lambda Q, *rest: minimise_quadratic((Q + Q.mT) / 2, *rest), inputs)


def test_hundreds_of_assets_meet_the_conditions_of_optimality():
    Q = covariances(4, 300, 1) + 1e-3 * torch.eye(300, dtype=torch.float64)
    zero = torch.zeros(4, 300, dtype=torch.float64)
    w = minimise_quadratic(Q, zero, zero, zero + 0.05, torch.ones(4, dtype=torch.float64))
    g = (Q @ w.unsqueeze(-1)).squeeze(-1)
    free = (w > 1e-9) & (w < 0.05 - 1e-9)
    price = (g * free).sum(-1, keepdim=True) / free.sum(-1, keepdim=True)
    assert ((g - price).abs()[free] < 1e-9).all()
    assert (g - price)[w <= 1e-9].min() > -1e-9
    assert (g - price)[w >= 0.05 - 1e-9].max() < 1e-9


def test_masked_assets_neither_count_nor_learn_and_closed_ones_stay():
    sigma, mask = covariances(2, 6, 3), torch.ones(2, 6, dtype=torch.bool)
    mask[0, 2] = mask[1, 5] = False
    sigma[0, 2], sigma[0, :, 2], sigma[1, 5, 5] = torch.nan, torch.nan, torch.inf
    holdings = torch.full((2, 6), 1 / 6, dtype=torch.float64)
    tradable = torch.ones(2, 6, dtype=torch.bool)
    tradable[:, 1] = False
    sigma.requires_grad_()
    w = MinimumVariance(upper=0.5, inertia=0.3)(sigma, mask, holdings=holdings, tradable=tradable)
    assert (w[~mask] == 0).all()
    assert (w[:, 1] == holdings[:, 1]).all()
    torch.testing.assert_close(w.sum(-1), torch.ones(2, dtype=torch.float64), atol=1e-12, rtol=0.0)
    (grad,) = torch.autograd.grad(w.square().sum(), sigma)
    both = mask[:, :, None] & mask[:, None]
    assert (grad[~both] == 0).all()
    assert grad[both].isfinite().all()
    assert grad[both].any()


def test_inertia_holds_weights_back():
    sigma, mask = covariances(1, 6, 4), torch.ones(1, 6, dtype=torch.bool)
    holdings = torch.full((1, 6), 1 / 6, dtype=torch.float64)
    moved = [
        (MinimumVariance(inertia=k)(sigma, mask, holdings=holdings) - holdings).abs().sum().item()
        for k in (0.0, 1.0, 100.0)
    ]
    assert moved[0] > moved[1] > moved[2] > 0
    torch.testing.assert_close(
        MinimumVariance(inertia=1.0)(sigma, mask), MinimumVariance()(sigma, mask), atol=0.0, rtol=0.0
    )


def test_it_says_what_is_wrong():
    mask = torch.ones(1, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match="at most 0.9"):
        MinimumVariance(upper=0.3)(torch.eye(3)[None], mask)
    with pytest.raises(ValueError, match="row 0: the matrix is not positive definite"):
        MinimumVariance()(torch.ones(1, 3, 3), mask)
    with pytest.raises(ValueError, match="finite bounds"):
        MinimumVariance(lower=1.0, upper=0.5)
