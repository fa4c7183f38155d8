"""Minimum variance against a quadratic program's solver, its gradients, masks and closed markets."""

import numpy as np
import pytest
import torch
from scipy.optimize import LinearConstraint, minimize
from torch import Tensor

from qtorch.portfolio import MinimumVariance
from qtorch.portfolio.quadratic import minimise_quadratic
from qtorch.portfolio.quadratic_trades import minimise_with_trades


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


def drifted(B: int, N: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    held = torch.rand(B, N, generator=generator, dtype=torch.float64) ** 4
    held[:, 0] = 0.0
    return held / held.sum(-1, keepdim=True)


@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_minimum_with_a_price_of_trades(seed: int):
    B, N = 3, 8
    Q, held = covariances(B, N, seed), drifted(B, N, seed)
    zero, high = torch.zeros(B, N, dtype=torch.float64), torch.full((B, N), 0.4, dtype=torch.float64)
    budget, price = torch.tensor([1.0, 0.9, 1.1]).double(), torch.tensor([0.0, 0.05, 0.2]).double()
    w = minimise_with_trades(Q, zero, zero, high, budget, held, price)
    assert (w.sum(-1) - budget).abs().max() < 1e-12
    assert (w == held.clamp(max=0.4))[1:].any(), "every asset is traded"
    for b in range(B):
        # As buys p and sales m, w = h + p - m, by another solver.
        h, q, p = held[b].numpy(), Q[b].numpy(), float(price[b])
        both = np.concatenate([np.eye(N), -np.eye(N)], 1)
        reference = minimize(
            lambda x, both=both, h=h, q=q, p=p: (h + both @ x) @ q @ (h + both @ x) / 2 + p * x.sum(),
            np.full(2 * N, 0.01),
            jac=lambda x, both=both, h=h, q=q, p=p: both.T @ q @ (h + both @ x) + p,
            method="SLSQP",
            bounds=[(0, None)] * 2 * N,
            constraints=[
                LinearConstraint(both, -h, 0.4 - h),
                LinearConstraint(both.sum(0)[None], budget[b] - h.sum(), budget[b] - h.sum()),
            ],
            options={"ftol": 1e-15, "maxiter": 1000},
        )
        x = w[b].numpy()
        assert x @ q @ x / 2 + p * abs(x - h).sum() <= reference.fun + 1e-9
        np.testing.assert_allclose(x, h + both @ reference.x, atol=1e-4)


def test_no_trade_gains_more_than_its_price_among_hundreds():
    B, N = 2, 100
    Q, held = covariances(B, N, 2) + 1e-3 * torch.eye(N, dtype=torch.float64), drifted(B, N, 2)
    zero, price = torch.zeros_like(held), torch.tensor([0.01, 0.1]).double()
    w = minimise_with_trades(Q, zero, zero, zero + 1.0, torch.ones(B).double(), held, price)
    g, p = (Q @ w.unsqueeze(-1)).squeeze(-1), price.unsqueeze(-1)
    more = torch.where(w >= held, g + p, g - p)
    less = torch.where(w <= held, g - p, g + p)
    assert (torch.where(w > 0, less, -torch.inf).amax(-1) - more.amin(-1) < 1e-8).all()
    stay = (w == held).sum(-1)
    assert 0 < stay[0] < stay[1]


def test_gradients_with_a_price_of_trades_are_exact():
    Q, held = covariances(1, 6, 9), drifted(1, 6, 5)
    zero, budget, price = torch.zeros(1, 6).double(), torch.ones(1).double(), torch.tensor([0.03]).double()
    w = minimise_with_trades(Q, zero, zero, zero + 1.0, budget, held, price)
    assert ((w == held) & (held > 0)).any(), "no asset stays"
    inputs = [x.requires_grad_() for x in (Q, held, price)]

    def solve(Q: Tensor, held: Tensor, price: Tensor) -> Tensor:
        h = held * torch.tensor([0.0, 1.0, 1.0, 1.0, 1.0, 1.0]).double()  # below 0 the kink of a bound
        return minimise_with_trades((Q + Q.mT) / 2, zero, zero, zero + 1.0, budget, h, price)

    assert torch.autograd.gradcheck(solve, inputs)


def test_reluctance_leaves_alone_what_is_nearly_right_and_knows_only_the_universe():
    sigma, mask = covariances(1, 8, 4), torch.ones(1, 8, dtype=torch.bool)
    holdings = drifted(1, 8, 4)
    traded = [MinimumVariance(reluctance=k)(sigma, mask, holdings=holdings) - holdings for k in (0.0, 0.05, 0.2, 10.0)]
    sizes = [each.abs().sum().item() for each in traded]
    assert sizes[0] > sizes[1] > sizes[2] > sizes[3]
    assert sizes[3] < 1e-12
    small = MinimumVariance(reluctance=0.05)(1e-4 * sigma, mask, holdings=holdings)
    torch.testing.assert_close(small, traded[1] + holdings, atol=1e-9, rtol=0.0)
    mask[0, 7] = False
    sigma[0, 7], sigma[0, :, 7] = torch.nan, torch.nan
    holdings[0, 7] = torch.nan
    tradable = torch.ones(1, 8, dtype=torch.bool)
    tradable[0, 2] = False
    sigma.requires_grad_()
    w = MinimumVariance(reluctance=0.05)(sigma, mask, holdings=holdings, tradable=tradable)
    assert w[0, 7] == 0
    assert w[0, 2] == holdings[0, 2]
    (grad,) = torch.autograd.grad(w.square().sum(), sigma)
    assert (grad[0, 7] == 0).all()
    assert grad.isfinite().all()
    torch.testing.assert_close(
        MinimumVariance(reluctance=1.0)(sigma, mask), MinimumVariance()(sigma, mask), atol=0.0, rtol=0.0
    )


def test_it_says_what_is_wrong():
    with pytest.raises(ValueError, match="reluctance"):
        MinimumVariance(reluctance=-1.0)
    mask = torch.ones(1, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match="at most 0.9"):
        MinimumVariance(upper=0.3)(torch.eye(3)[None], mask)
    with pytest.raises(ValueError, match="row 0: the matrix is not positive definite"):
        MinimumVariance()(torch.ones(1, 3, 3), mask)
    with pytest.raises(ValueError, match="finite bounds"):
        MinimumVariance(lower=1.0, upper=0.5)
