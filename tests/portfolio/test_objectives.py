from functools import partial

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from qtorch.portfolio import (
    RockafellarUryasev,
    Softmax,
    cvar,
    differential_sharpe,
    log_wealth,
    maximum_drawdown,
    mean_variance,
    portfolio_returns,
    risk_parity,
    scenario_returns,
    sharpe,
    sortino,
    tracking_error,
)

BENCHMARK = 0.01 * torch.randn(40, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


def worst_mean(r, level):
    """Mean of the worst returns, the last in part."""
    losses, tail = np.sort(-r)[::-1], len(r) * (1 - level)
    parts = np.clip(tail - np.arange(len(r)), 0, 1)
    return (losses * parts).sum() / tail


def drawdown(r):
    wealth = [1.0]
    for x in r:
        wealth.append(wealth[-1] * (1 + x))
    return max(1 - wealth[j] / wealth[i] for i in range(len(wealth)) for j in range(i, len(wealth)))


OBJECTIVES = {
    "sharpe": (partial(sharpe, periods=252.0), lambda r: 252**0.5 * r.mean() / r.std(ddof=1)),
    "sortino": (
        partial(sortino, target=1e-3),
        lambda r: (r.mean() - 1e-3) / (np.minimum(r - 1e-3, 0) ** 2).mean() ** 0.5,
    ),
    "mean_variance": (partial(mean_variance, risk_aversion=3.0), lambda r: r.mean() - 1.5 * r.var(ddof=1)),
    "log_wealth": (log_wealth, lambda r: np.log(np.prod(1 + r))),
    "maximum_drawdown": (maximum_drawdown, drawdown),
    "cvar": (partial(cvar, level=0.9), partial(worst_mean, level=0.9)),
    "cvar of a part": (partial(cvar, level=0.87), partial(worst_mean, level=0.87)),
}


def window(seed=0):
    g = torch.Generator().manual_seed(seed)
    returns = 0.02 * torch.randn(3, 40, generator=g, dtype=torch.float64)
    return returns, torch.rand(3, 40, generator=g) > 0.2


@pytest.mark.parametrize(("ours", "theirs"), OBJECTIVES.values(), ids=OBJECTIVES.keys())
def test_objectives_are_those_of_numpy(ours, theirs):
    returns, mask = window()
    for there in (None, mask):
        got = ours(returns, mask=there)
        rows = [r if there is None else r[m] for r, m in zip(returns, mask, strict=True)]
        np.testing.assert_allclose(got.numpy(), [theirs(r.numpy()) for r in rows], rtol=1e-10)


@pytest.mark.parametrize(("ours", "theirs"), OBJECTIVES.values(), ids=OBJECTIVES.keys())
def test_gradients_and_masked_sessions(ours, theirs):
    returns, mask = window(1)
    assert torch.autograd.gradcheck(lambda r: ours(r, mask=mask), (returns.clone().requires_grad_(),))
    junk = torch.where(mask, returns, torch.nan).requires_grad_()
    value = ours(junk, mask=mask)
    assert torch.equal(value, ours(returns, mask=mask))
    (gradient,) = torch.autograd.grad(value.sum(), junk)
    assert (gradient[~mask] == 0).all()
    assert gradient.isfinite().all()
    assert ours(returns.bfloat16(), mask=mask).dtype == torch.float32
    empty = ours(returns, mask=torch.zeros_like(mask))
    assert empty.isfinite().all()


def test_objectives_of_constant_returns_are_finite():
    for value in (0.0, 0.01):
        r = torch.full((5,), value, requires_grad=True)
        for objective in (sharpe, sortino, partial(cvar, level=0.9), maximum_drawdown):
            assert torch.autograd.grad(objective(r), r)[0].isfinite().all()


def test_first_session_counts_in_the_drawdown():
    assert maximum_drawdown(torch.tensor([-0.3, 0.1])).item() == pytest.approx(0.3)


def test_tracking_error_is_the_deviation_of_the_difference():
    returns, mask = window(2)
    got = tracking_error(returns, BENCHMARK, mask, periods=252.0)
    for row in range(3):
        gap = (returns[row] - BENCHMARK)[mask[row]].numpy()
        assert got[row].item() == pytest.approx(252**0.5 * gap.std(ddof=1), rel=1e-10)
    hidden = torch.where(mask, returns, torch.nan).requires_grad_()
    (gradient,) = torch.autograd.grad(tracking_error(hidden, BENCHMARK, mask).sum(), hidden)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("level", [0.9, 0.87])
def test_the_best_threshold_gives_the_same_shortfall(level):
    returns = window(3)[0][0]
    exact = cvar(returns, level).item()

    def at(v):
        return cvar(returns, level, threshold=torch.tensor(v, dtype=torch.float64)).item()

    least = minimize_scalar(at, bracket=(0.0, 0.05), options={"xtol": 1e-12})
    assert least.fun == pytest.approx(exact, abs=1e-10)
    learnt = RockafellarUryasev(level).double()
    optimiser = torch.optim.SGD(learnt.parameters(), lr=0.01)
    for step in range(300):
        optimiser.param_groups[0]["lr"] = 0.01 / (1 + step / 3)
        optimiser.zero_grad()
        learnt(returns).backward()
        optimiser.step()
    assert learnt(returns).item() == pytest.approx(exact, rel=0.01)
    # Where the quantile is a single loss, it is the value at risk.
    if level == 0.87:
        assert learnt.threshold.item() == pytest.approx(np.sort(-returns.numpy())[::-1][5], abs=1e-3)


def test_differential_sharpe_is_the_derivative_of_a_weighted_sharpe():
    returns, mask = window(4)
    mean, deviation, rate, small = 0.001, 0.02, 0.05, 1e-6
    got = differential_sharpe(returns, mask, rate=rate, mean=mean, deviation=deviation)
    for row in range(3):
        a, b = mean, mean**2 + deviation**2
        for t in range(40):
            r = returns[row, t].item()
            if not mask[row, t]:
                assert got[row, t] == 0
                continue

            def ratio(eta, a=a, b=b, r=r):
                first, second = a + eta * (r - a), b + eta * (r * r - b)
                return first / (second - first**2) ** 0.5

            slope = (ratio(small) - ratio(-small)) / (2 * small)
            assert got[row, t].item() == pytest.approx(slope, rel=1e-6, abs=1e-8)
            a, b = a + rate * (r - a), b + rate * (r * r - b)


def test_risk_parity_is_zero_where_contributions_are_equal():
    sigma = torch.tensor([0.1, 0.2, 0.4], dtype=torch.float64)
    covariance = torch.outer(sigma, sigma) * (0.6 * torch.eye(3, dtype=torch.float64) + 0.4)
    inverse = (1 / sigma) / (1 / sigma).sum()  # of equal correlations, inverse volatilities share risk equally
    assert risk_parity(inverse, covariance).item() < 1e-30
    w = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64, requires_grad=True)
    shares = (w * (covariance @ w) / (w @ covariance @ w)).detach()
    assert risk_parity(w, covariance).item() == pytest.approx(((shares - 1 / 3) ** 2).sum().item())
    assert risk_parity(w, covariance, shares=shares).item() < 1e-30
    assert torch.autograd.gradcheck(lambda w: risk_parity(w, covariance), (w,))
    wider = torch.full((4, 4), torch.nan, dtype=torch.float64)
    wider[:3, :3] = covariance
    padded = torch.cat((w.detach(), torch.tensor([torch.nan]))).requires_grad_()
    there = torch.tensor([True, True, True, False])
    value = risk_parity(padded, wider, there)
    assert value.item() == pytest.approx(risk_parity(w, covariance).item())
    assert torch.autograd.grad(value, padded)[0].isfinite().all()


def test_scenarios_are_a_window_across_draws():
    g = torch.Generator().manual_seed(0)
    scenarios = 0.02 * torch.randn(50, 2, 4, generator=g, dtype=torch.float64)
    mask = torch.tensor([[True] * 4, [True, True, True, False]])
    weights = torch.rand(2, 4, generator=g, dtype=torch.float64)
    got = scenario_returns(weights, torch.where(mask, scenarios, torch.nan), mask)
    expected = torch.einsum("bn,sbn->bs", torch.where(mask, weights, 0.0), scenarios)
    torch.testing.assert_close(got, expected)
    one = portfolio_returns(weights, torch.where(mask, scenarios[0], torch.nan), mask)
    torch.testing.assert_close(one, expected[:, 0])


def test_decisions_on_scenarios_find_the_least_shortfall():
    g = torch.Generator().manual_seed(0)
    scenarios = torch.randn(4000, 1, 2, generator=g, dtype=torch.float64) * torch.tensor([0.01, 0.03])
    scores = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([scores], lr=0.05)
    for _ in range(150):
        optimiser.zero_grad()
        weights = Softmax()(scores, torch.ones(1, 2, dtype=torch.bool))
        cvar(scenario_returns(weights, scenarios), 0.95).sum().backward()
        optimiser.step()
    assert weights[0, 0].item() == pytest.approx(0.9, abs=0.03)  # of independent normals: inverse variances


def test_levels_and_rates_are_checked():
    r = torch.zeros(3)
    for wrong in (0.0, 1.0, 1.5):
        with pytest.raises(ValueError, match="level"):
            cvar(r, wrong)
    with pytest.raises(ValueError, match="rate"):
        differential_sharpe(r, rate=0.0)
