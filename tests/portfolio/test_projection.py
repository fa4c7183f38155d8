import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qtorch.portfolio import Constraints, GroupCap, MarketNeutral, Projected, Softmax, project, project_capped_simplex
from tests.portfolio.universes import CASES, solved, universe, violations

ROWS, ASSETS = 6, 12


@pytest.mark.parametrize("limits", CASES.values(), ids=CASES.keys())
def test_projection_is_the_solution_of_the_quadratic_program(limits):
    u = universe(ROWS, ASSETS, 0)
    w = project(u.scores, limits, u.mask, **u.given)
    reference = np.stack([solved(limits, u, row, u.scores[row].numpy()) for row in range(ROWS)])
    np.testing.assert_allclose(w.numpy(), reference, rtol=0, atol=1e-6)


@pytest.mark.parametrize("limits", CASES.values(), ids=CASES.keys())
def test_gradients_are_those_of_the_quadratic_program(limits):
    u, step = universe(ROWS, ASSETS, 1), 1e-4
    away = torch.randn(ROWS, ASSETS, dtype=torch.float64)
    ways = [u.scores + sign * step * away for sign in (-1, 0, 1)]
    at = [project(y, limits, u.mask, **u.given) for y in ways]
    slope = _along(lambda y: project(y, limits, u.mask, **u.given), u.scores, away)
    # On one side of a kink the solution is linear in the scores.
    smooth = ((at[0] + at[2] - 2 * at[1]).abs().amax(-1) < 1e-9).nonzero().flatten().tolist()
    assert len(smooth) >= ROWS // 2
    for row in smooth:
        low, high = (solved(limits, u, row, ways[k][row].numpy()) for k in (0, 2))
        np.testing.assert_allclose(slope[row].numpy(), (high - low) / (2 * step), rtol=0, atol=1e-4)


def _along(function, x, direction):
    """The derivative in a direction, from the gradients of each output."""
    x = x.clone().requires_grad_()
    y = function(x)
    columns = [torch.autograd.grad(y[:, k].sum(), x, retain_graph=True)[0] for k in range(y.shape[1])]
    return torch.stack([(c * direction).sum(-1) for c in columns], -1)


@pytest.mark.parametrize("limits", CASES.values(), ids=CASES.keys())
def test_gradients_in_scores_and_holdings(limits):
    u = universe(4, 9, 2)
    y, h = u.scores.clone().requires_grad_(), u.holdings.clone().requires_grad_()
    groups = {"sector": u.sector}

    def weights(y, h):
        return project(y, limits, u.mask, holdings=h, tradable=u.tradable, groups=groups)

    assert torch.autograd.gradcheck(weights, (y, h), fast_mode=True)


def _impossible(limits, u, row):
    return solved(limits, u, row, u.scores[row].double().numpy()) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), assets=st.integers(10, 60), scale=st.sampled_from([1e-3, 0.1, 3.0]))
def test_constraints_hold_in_every_universe(dtype, seed, assets, scale):
    u = universe(5, assets, seed, dtype, scale)
    for name, limits in CASES.items():
        # What is closed or must be sold leaves a universe no choice now and then.
        try:
            w = project(u.scores, limits, u.mask, **u.given)
        except ValueError:
            # Of the rows one has no solution; an interior-point method says the same.
            assert any(_impossible(limits, u, row) for row in range(5)), name
            continue
        assert w.dtype == dtype
        assert (w[~u.mask] == 0).all()
        missed = violations(w, limits, u)
        assert max(missed.values()) < (1e-12 if dtype == torch.float64 else 1e-6), (name, missed)


LAYERS = [Softmax(), Projected(Constraints(upper=0.4)), Projected(CASES["all"]), MarketNeutral(2.0, 0.3)]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
def test_masked_assets_take_no_part(layer):
    u = universe(ROWS, 20, 5)
    tradable, groups = torch.ones_like(u.tradable), {"sector": u.sector.clamp(min=0)}
    h = torch.where(u.mask, u.holdings, 0.0)
    v = torch.randn(ROWS, 20, dtype=torch.float64)
    results = []
    for junk in (0.0, torch.nan, torch.inf):
        y = torch.where(u.mask, u.scores, junk).requires_grad_()
        k = torch.where(u.mask, h, 0.0 if junk == 0 else torch.nan).requires_grad_()
        w = layer(y, u.mask, holdings=k, tradable=tradable, groups=groups)
        gradients = torch.autograd.grad((w * v).sum(), (y, k), allow_unused=True)
        assert (w[~u.mask] == 0).all()
        for gradient in gradients:
            assert gradient is None or gradient.isfinite().all()
        assert (gradients[0][~u.mask] == 0).all()
        results.append((w.detach(), gradients[0]))
    for w, gradient in results[1:]:
        assert torch.equal(w, results[0][0])
        assert torch.equal(gradient, results[0][1])


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
def test_closed_assets_stay_and_the_rest_adds_up(layer):
    u = universe(ROWS, 20, 6)
    w = layer(u.scores, u.mask, **u.given)
    still = u.mask & ~u.tradable
    assert torch.equal(w[still], u.holdings[still])
    budget = 0.0 if isinstance(layer, MarketNeutral) else 1.0
    assert (w.sum(-1) - budget).abs().max() < 1e-12


@pytest.mark.slow
def test_layers_and_the_simulation_compile_in_one_graph():
    # In a process of its own: annotations are checked at run time here, which can't be traced.
    command = [sys.executable, "-m", "tests.portfolio.compiled"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
def test_autocast_leaves_the_arithmetic_alone(layer):
    u = universe(ROWS, 20, 8, torch.float32)
    plain = layer(u.scores, u.mask, **u.given)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(layer(u.scores, u.mask, **u.given), plain)
    half = layer(u.scores.bfloat16(), u.mask, **u.given | {"holdings": u.holdings})
    assert half.dtype == torch.bfloat16
    assert (half - plain).abs().max() < 0.02


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("scale", [1e-5, 0.1, 100.0])
def test_budget_of_five_thousand_assets(dtype, bound, scale):
    y = scale * torch.randn(4, 5000, dtype=dtype)
    w = project_capped_simplex(y, 0.0, 0.1)
    assert (w.sum(-1, dtype=torch.float64) - 1).abs().max() < bound
    assert w.min() >= 0
    assert w.max() <= 0.1 + 1e-9


def test_capped_simplex_has_gradients_in_its_bounds():
    y = torch.randn(3, 7, dtype=torch.float64, requires_grad=True)
    low = torch.full((3, 7), -0.1, dtype=torch.float64, requires_grad=True)
    high = torch.full((7,), 0.4, dtype=torch.float64, requires_grad=True)
    budget = torch.tensor([0.8, 1.0, 1.2], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(project_capped_simplex, (y, low, high, budget))
    assert torch.autograd.gradgradcheck(lambda y: project_capped_simplex(y, -0.1, 0.4).pow(3), (y,))


def test_capped_simplex_gradient_is_the_closed_form():
    y = (0.1 * torch.randn(32, 50, dtype=torch.float64)).requires_grad_()
    v = torch.randn(32, 50, dtype=torch.float64)
    w = project_capped_simplex(y, 0.0, 0.1)
    (gradient,) = torch.autograd.grad((w * v).sum(), y)
    free = (w > 0) & (w < 0.1)
    mean = (v * free).sum(-1, keepdim=True) / free.sum(-1, keepdim=True)
    torch.testing.assert_close(gradient, (v - mean) * free, rtol=0, atol=1e-13)


def test_no_bounds_and_no_batch():
    y = torch.tensor([3.0, -1.0, 0.5], dtype=torch.float64)
    w = project(y, Constraints(1.0, None, None))
    torch.testing.assert_close(w, y + (1 - y.sum()) / 3)
    one = {"all": torch.zeros(3, dtype=torch.long)}
    torch.testing.assert_close(project(y, Constraints(1.0, None, None, caps={"all": 2.0}), groups=one), w)


def test_what_left_the_universe_is_sold_and_counts_as_turnover():
    h = torch.tensor([[0.3, 0.3, 0.4]], dtype=torch.float64)
    y = torch.tensor([[9.0, 0.0, 0.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True, False]])
    w = project(y, Constraints(turnover=1.0), mask, holdings=h)
    # 0.4 is sold and 0.4 bought with it; of the 0.2 that are left half is sold, half bought.
    torch.testing.assert_close(w, torch.tensor([[0.8, 0.2, 0.0]], dtype=torch.float64))


def test_rows_without_choice_keep_what_they_hold():
    h = torch.tensor([[0.6, 0.3], [0.6, 0.3]], dtype=torch.float64)
    mask = torch.tensor([[True, True], [False, False]])
    closed = torch.tensor([[False, False], [True, True]])
    for limits in (Constraints(), Constraints(turnover=0.1)):
        w = project(torch.zeros(2, 2, dtype=torch.float64), limits, mask, holdings=h, tradable=closed)
        assert torch.equal(w, torch.where(mask, h, 0.0))


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Constraints(upper=0.3), "row 1: 3 assets .* at most 0.9, but the budget is 1: raise upper"),
        (Constraints(upper=0.5, turnover=0.2), "row 1: turnover is 0.2, .* at least 0.5: raise it"),
        (Constraints(upper=0.6, turnover=0.7), "row 1: found no weights that meet all constraints together"),
        (
            Constraints(caps={"sector": 0.4}),
            "row 0: found no weights that meet all constraints together.*(budget|sector)",
        ),
        (Constraints(0.0, 0.3, 1.0, 2.0), "row 0: .* at least 1.2, but the budget is 0"),
        (Constraints(None, 0.3, 1.0, 0.5), "row 0: gross is 0.5, .* at least 1.2"),
        (Constraints(0.5, 0.3, 1.0), "row 0: .* lower `lower`"),
        (Constraints(caps={"country": 0.4}), "pass groups="),
    ],
)
def test_infeasible_rows_are_named(limits, words):
    y = torch.zeros(2, 4, dtype=torch.float64)
    mask = torch.tensor([[True] * 4, [True] * 3 + [False]])
    h = torch.tensor([[0.25] * 4, [0.0, 0.0, 0.5, 0.5]], dtype=torch.float64)
    with pytest.raises(ValueError, match=words):
        project(y, limits, mask, holdings=h, groups={"sector": torch.zeros(y.shape[-1], dtype=torch.long)})


@pytest.mark.parametrize("limits", [Constraints(), Constraints(turnover=2.0)])
@pytest.mark.parametrize("what", ["scores", "holdings"])
def test_no_number_in_the_universe_is_refused(limits, what):
    u = universe(2, 6, 3)
    u.mask[:], u.tradable[:] = True, True
    u.tradable[1, 2] = False
    getattr(u, what)[1, 2 if what == "holdings" else 3] = torch.nan
    with pytest.raises(ValueError, match="row 1, asset [23]"):
        project(u.scores, limits, u.mask, **u.given)


def test_settings_are_checked():
    for wrong in ({"lower": 0.5, "upper": 0.1}, {"gross": -1.0}, {"budget": 2.0, "gross": 1.0}, {"budget": np.inf}):
        with pytest.raises(ValueError, match="="):
            Constraints(**wrong)
    with pytest.raises(ValueError, match="one length"):
        GroupCap((0.1, 0.2), labels=3)
    capped = Constraints(caps={"a": GroupCap(0.5, labels=2)})
    with pytest.raises(ValueError, match="from -1"):
        project(torch.zeros(2), capped, groups={"a": torch.tensor([0, 5])})
    with pytest.raises(ValueError, match="holdings"):
        project(torch.zeros(2), Constraints(turnover=1.0))
    with pytest.raises(ValueError, match="holdings"):
        Softmax()(torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool), tradable=torch.ones(1, 2, dtype=torch.bool))
