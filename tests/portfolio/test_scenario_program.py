"""Best weights on scenarios against solvers, their gradients, masks, closed markets and compiled code."""

import subprocess
import sys

import cvxpy as cp
import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor

from qtorch.nn.specs import build, describe
from qtorch.portfolio import (
    Constraints,
    Growth,
    MeanVariance,
    MinimumVariance,
    ScenarioProgram,
    TailRisk,
    cvar,
    log_wealth,
    mean_variance,
)
from tests.portfolio.universes import CASES, GROUPS, Universe, universe, violations

UTILITIES = {"tail": TailRisk(0.95, 0.2), "mean and variance": MeanVariance(5.0), "growth": Growth()}


def drawn(S: int, B: int, N: int, seed: int = 1, size: float = 0.01) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    X, common = (torch.randn(S, B, n, generator=g, dtype=torch.float64) for n in (N, 1))
    return size * ((X + common) * (0.5 + torch.rand(B, N, generator=g, dtype=torch.float64)) + 0.05)


def solved(utility, limits: Constraints, u: Universe, row: int, X: np.ndarray, cost: float) -> float:
    """The least loss, by an interior-point method of another make."""
    w, h, m = cp.Variable(X.shape[1]), u.holdings[row].numpy(), u.mask[row].numpy()
    free, still = (np.nonzero(part[row].numpy())[0] for part in (u.free, ~u.free))
    meets = [w[still] == np.where(m, h, 0.0)[still], w[free] >= limits.lower, w[free] <= limits.upper]
    meets += [] if limits.budget is None else [cp.sum(w) == limits.budget]
    meets += [] if limits.gross is None else [cp.norm1(w) <= limits.gross]
    meets += [] if limits.turnover is None else [cp.norm1(w - h) <= limits.turnover]
    for cap in limits.caps.values():
        for label in range(GROUPS):
            inside = ((u.sector[row] == label) & u.mask[row]).numpy().astype(float)
            for sign, limit in ((1, cap.upper), (-1, cap.lower)):
                if limit is not None:
                    meets.append(sign * (inside @ w) <= sign * (limit[label] if isinstance(limit, tuple) else limit))
    r = X @ w
    loss = -utility.mean * cp.mean(r) + cost * cp.norm1(w - h)
    if utility.level is not None:
        v = cp.Variable()
        loss += v + cp.mean(cp.pos(-r - v)) / (1 - utility.level)
    if utility.growth:
        loss -= cp.mean(cp.log(1 + r))
    if utility.risk_aversion:
        loss += utility.risk_aversion / 2 * cp.sum_squares((X - X.mean(0)) @ w) / (len(X) - 1)
    problem = cp.Problem(cp.Minimize(loss), meets)
    problem.solve(solver=cp.CLARABEL)
    return problem.value


@pytest.mark.parametrize("case", ["box", "neutral", "free budget", "all"])
@pytest.mark.parametrize("kind", UTILITIES)
def test_it_is_as_good_as_a_solver_and_keeps_to_the_constraints(kind, case):
    utility, limits, B, N = UTILITIES[kind], CASES[case], 2, 12
    cost = 0.0 if case == "box" else 0.002
    u = universe(B, N, 3)
    X = drawn(128, B, N)
    w = ScenarioProgram(utility, limits, cost)(torch.where(u.mask, X, torch.nan), u.mask, **u.given)
    loss = utility(torch.einsum("sbn,bn->bs", X, w)) + cost * (w - u.holdings).abs().sum(-1)
    for row in range(B):
        best = solved(utility, limits, u, row, X[:, row].numpy() * u.mask[row].numpy(), cost)
        assert abs(loss[row].item() - best) < 2e-8
    assert max(violations(w, limits, u).values()) < 1e-9
    assert (w[~u.mask] == 0).all()


def test_least_shortfall_is_a_linear_program_s():
    S, N, level = 200, 6, 0.9
    X = drawn(S, 1, N, seed=4)
    w = ScenarioProgram(TailRisk(level))(X, torch.ones(1, N, dtype=torch.bool))
    c = np.concatenate([np.zeros(N), [1.0], np.full(S, 1 / (S * (1 - level)))])
    A = np.hstack([-X[:, 0].numpy(), -np.ones((S, 1)), -np.eye(S)])
    A_eq = np.concatenate([np.ones(N), np.zeros(1 + S)])[None]
    bounds = [(0, 1)] * N + [(None, None)] + [(0, None)] * S
    best = linprog(c, A, np.zeros(S), A_eq, [1.0], bounds)
    assert abs(cvar((X[:, 0] @ w[0]), level).item() - best.fun) < 1e-9
    torch.testing.assert_close(w[0], torch.from_numpy(best.x[:N]), rtol=0, atol=1e-6)


def test_without_a_mean_it_is_minimum_variance():
    X, mask = drawn(300, 2, 8), torch.ones(2, 8, dtype=torch.bool)
    covariance = torch.stack([torch.cov(X[:, b].T) for b in range(2)])
    w = ScenarioProgram(MeanVariance(2.0, mean=0.0), Constraints(upper=0.3))(X, mask)
    torch.testing.assert_close(w, MinimumVariance(upper=0.3)(covariance, mask), rtol=0, atol=1e-6)


def test_what_no_scenario_or_constraint_allows_is_refused():
    X, mask = drawn(32, 1, 3), torch.ones(1, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match="row 0: 3 assets"):
        ScenarioProgram(TailRisk(), Constraints(upper=0.2))(X, mask)
    with pytest.raises(ValueError, match="no best weights"):
        ScenarioProgram(TailRisk(0.9, mean=5.0), Constraints(lower=None, upper=None))(X, mask)
    X[3, 0, 1] = torch.nan
    with pytest.raises(ValueError, match="asset 1: a scenario is not finite"):
        ScenarioProgram(TailRisk())(X, mask)
    with pytest.raises(ValueError, match="turnover needs the holdings"):
        ScenarioProgram(TailRisk(), Constraints(turnover=0.3))(X, mask)


@pytest.mark.parametrize("limits", [Constraints(upper=0.5, turnover=0.5), Constraints(None, -0.3, 0.5, gross=0.8)])
@pytest.mark.parametrize("kind", ["mean and variance", "growth", "smoothed tail"])
def test_gradients_are_those_of_the_weights(kind, limits):
    mask = torch.tensor([[True, True, True, True], [True, True, True, False]])
    X = torch.where(mask, drawn(12, 2, 4, size=0.2), 0.0).requires_grad_()
    # None is best held where another limit alone would put it too: there, derivatives are one-sided.
    held = torch.tensor([[0.3, 0.2, 0.4, 0.1], [0.45, 0.12, 0.25, 0.2]], dtype=torch.float64).requires_grad_()
    utility = TailRisk(0.7, 0.3) if kind == "smoothed tail" else UTILITIES[kind]
    program = ScenarioProgram(utility, limits, 0.01, 1e-2 if kind == "smoothed tail" else 0.0)
    ours = lambda x, h: program(x, mask, holdings=h)  # noqa: E731
    assert torch.autograd.gradcheck(ours, (X, held), atol=1e-4, rtol=1e-3, fast_mode=True)


def test_masked_assets_touch_nothing():
    u = universe(3, 10, 5)
    results = []
    for hole in (0.0, torch.nan, torch.inf):
        X = torch.where(u.mask, drawn(64, 3, 10), hole).requires_grad_()
        w = ScenarioProgram(TailRisk(0.9), CASES["all"], smoothing=1e-4)(X, u.mask, **u.given)
        results.append((w.detach(), *torch.autograd.grad(w.square().sum(), X)))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
    assert results[0][1].any()
    assert not results[0][1].movedim(0, -1)[~u.mask].any()


def test_rows_without_choice_keep_what_they_hold():
    X, mask = drawn(16, 2, 3), torch.tensor([[True] * 3, [False] * 3])
    held = torch.tensor([[0.9, 0.3, 0.0]] * 2, dtype=torch.float64)
    shut = torch.zeros_like(mask)
    w = ScenarioProgram(TailRisk(), Constraints(turnover=0.1))(X, mask, holdings=held, tradable=shut)
    assert torch.equal(w, torch.stack([held[0], torch.zeros(3, dtype=torch.float64)]))


def test_smoothing_bounds_the_loss():
    X, mask = drawn(128, 1, 8), torch.ones(1, 8, dtype=torch.bool)
    exact, smooth = (ScenarioProgram(TailRisk(0.9), smoothing=s)(X, mask) for s in (0.0, 1e-3))
    excess = cvar(X[:, 0] @ smooth[0], 0.9) - cvar(X[:, 0] @ exact[0], 0.9)
    assert 0 < excess.item() < 1e-3


def test_losses_are_parts_of_the_known_objectives():
    r, mask = drawn(101, 2, 1)[..., 0].T, torch.rand(2, 101) > 0.2
    known = (
        (TailRisk(0.93), cvar(r, 0.93, mask)),
        (MeanVariance(3.0), -mean_variance(r, mask, risk_aversion=3.0)),
        (Growth(), -log_wealth(r, mask) / mask.sum(-1)),
    )
    for utility, value in known:
        torch.testing.assert_close(utility(torch.where(mask, r, torch.nan), mask), value)


def test_it_is_rebuilt_from_plain_values():
    program = ScenarioProgram(TailRisk(0.9, 0.1), CASES["all"], 0.001, 1e-5)
    again = build(describe(program))
    u = universe(2, 10, 6)
    X = drawn(32, 2, 10)
    assert torch.equal(again(X, u.mask, **u.given), program(X, u.mask, **u.given))


@pytest.mark.slow
@pytest.mark.parametrize("utility", ["tail", "growth"])
def test_compiled_code_agrees(utility):
    # In a process of its own: annotations are checked at run time here, which can't be traced.
    command = [sys.executable, "-m", "tests.portfolio.compiled_scenarios", utility]
    subprocess.run(command, check=True, timeout=120)
