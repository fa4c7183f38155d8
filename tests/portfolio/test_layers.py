"""Layers that are saved, and the one that needs cvxpylayers."""

import sys

import pytest
import torch

from qtorch.nn import build, describe
from qtorch.portfolio import (
    Constraints,
    ConvexProgram,
    GroupCap,
    MarketNeutral,
    MinimumVariance,
    Projected,
    Softmax,
    project,
)
from tests.portfolio.universes import CASES, universe

LAYERS = [
    Softmax(0.5),
    Projected(CASES["all"]),
    Projected(),
    MarketNeutral(2.0, 0.3, caps={"sector": GroupCap(0.1, -0.1)}),
]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
def test_layers_are_plain_text_and_back(layer):
    u = universe(4, 40, 1)
    again = build(describe(layer))
    assert torch.equal(again(u.scores, u.mask, **u.given), layer(u.scores, u.mask, **u.given))


def test_market_neutral_is_a_projection():
    u = universe(4, 40, 1)
    limits = Constraints(0.0, -0.3, 0.3, 1.5)
    assert torch.equal(
        MarketNeutral(1.5, 0.3)(u.scores, u.mask, **u.given), project(u.scores, limits, u.mask, **u.given)
    )


def test_softmax_is_torch_s_over_the_universe():
    u = universe(4, 10, 2)
    w = Softmax(0.5)(u.scores, u.mask)
    for row in range(4):
        there = u.mask[row]
        torch.testing.assert_close(w[row, there], (u.scores[row, there] / 0.5).softmax(-1))
    assert not Softmax()(u.scores, torch.zeros_like(u.mask)).any()


def test_softmax_refuses_closed_assets_beyond_the_budget():
    h = torch.tensor([[0.9, 0.3, 0.0]])
    there = torch.ones(1, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match="row 0"):
        Softmax()(torch.zeros(1, 3), there, holdings=h, tradable=torch.tensor([[False, False, True]]))


def nearest(w, scores, holdings):
    """The projection with a cap of 0.4."""
    cp = pytest.importorskip("cvxpy")
    return cp.Minimize(cp.sum_squares(w - scores)), [cp.sum(w) == 1, w >= 0, w <= 0.4]


def test_convex_program_agrees_with_the_projection():
    pytest.importorskip("cvxpylayers")
    u = universe(4, 8, 3)
    limits = Constraints(upper=0.4)
    results = []
    layer = ConvexProgram("tests.portfolio.test_layers:nearest", 8, {"solve_method": "Clarabel"})
    assert describe(layer)["init_args"]["program"] == "tests.portfolio.test_layers:nearest"
    for function in (Projected(limits), layer):
        y = torch.where(u.mask, u.scores, torch.nan).requires_grad_()
        w = function(y, u.mask, holdings=u.holdings, tradable=u.tradable)
        results.append((w, *torch.autograd.grad(w.square().sum(), y)))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=0, atol=1e-5)  # its gap is 1e-8
    torch.testing.assert_close(results[0][1], results[1][1], rtol=0, atol=1e-3)
    assert torch.equal(results[1][0][~u.mask], torch.zeros_like(results[1][0][~u.mask]))


def test_convex_program_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "cvxpylayers.torch", None)
    with pytest.raises(ImportError, match=r"qtorch-finance\[convex\]"):
        ConvexProgram(nearest, 3)


@pytest.mark.parametrize("layer", [Projected(), Projected(Constraints(turnover=2.0)), MinimumVariance()], ids=str)
def test_closed_weights_beyond_the_budget_leave_the_others_nothing(layer):
    h = torch.tensor([[0.7, 0.301, 0.0, 0.0], [0.3, 0.3, 0.2, 0.2]], dtype=torch.float64, requires_grad=True)
    tradable = torch.tensor([[False, False, True, True], [True, True, True, True]])
    y = torch.randn(2, 4, dtype=torch.float64)
    views = torch.eye(4, dtype=torch.float64).expand(2, 4, 4) if isinstance(layer, MinimumVariance) else y
    w = layer(views, torch.ones(2, 4, dtype=torch.bool), holdings=h, tradable=tradable)
    torch.testing.assert_close(w[0], h[0])
    torch.testing.assert_close(w[1].sum(), torch.ones((), dtype=torch.float64))
    (w[0] * torch.arange(4)).sum().backward()
    torch.testing.assert_close(h.grad[0, :2], torch.tensor([0.0, 1.0], dtype=torch.float64))


def test_a_holding_above_its_cap_comes_down_to_it_while_the_others_are_closed():
    mask, tradable = torch.tensor([[True, True, True, False]]), torch.tensor([[True, False, False, True]])
    held = torch.tensor([[0.6, 0.3, 0.1, 0.0]])
    expected = torch.tensor([[0.4, 0.3, 0.1, 0.0]])
    for limits in (Constraints(upper=0.4), Constraints(upper=0.4, gross=1.0), Constraints(upper=0.4, turnover=0.5)):
        scores = torch.zeros(1, 4, requires_grad=True)
        w = project(scores, limits, mask, holdings=held, tradable=tradable)
        torch.testing.assert_close(w, expected)
        w.square().sum().backward()
        assert (scores.grad == 0).all()
    covariance = torch.eye(4).unsqueeze(0).requires_grad_()
    w = MinimumVariance(upper=0.4, inertia=1.0)(covariance, mask, holdings=held, tradable=tradable)
    torch.testing.assert_close(w, expected)
    w.square().sum().backward()
    assert (covariance.grad == 0).all()
    with pytest.raises(ValueError, match=r"row 0: 1 assets .* add up to at most 0\.7"):  # all open could not meet it
        project(torch.zeros(1, 4), Constraints(upper=0.3), mask, holdings=held, tradable=tradable)
