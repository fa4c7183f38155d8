"""By how much constraints are broken, by hand."""

import pytest
import torch

from qtorch.backtest import violations
from qtorch.portfolio import Constraints, GroupCap, project

WEIGHTS = torch.tensor([[0.5, 0.4, -0.1, 0.1], [0.25, 0.25, 0.25, 0.25]], dtype=torch.float64)
HELD = torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.25, 0.25, 0.4, 0.1]], dtype=torch.float64)


def test_each_limit_by_hand():
    limits = Constraints(lower=-0.05, upper=0.3, gross=1.05, turnover=0.2, caps={"sector": GroupCap(0.6, 0.1)})
    found = violations(WEIGHTS, HELD, limits, groups={"sector": torch.tensor([0, 0, 1, 1])})
    expected = {
        "budget": [0.1, 0.0],
        "lower": [0.05, 0.0],
        "upper": [0.2, 0.0],
        "gross": [0.05, 0.0],
        "turnover": [0.9, 0.1],
        "sector": [0.3, 0.0],
    }
    assert found.keys() == expected.keys()
    for name, excess in expected.items():
        assert found[name].tolist() == pytest.approx(excess), name


def test_limits_that_are_not_set_are_not_broken():
    assert violations(WEIGHTS, HELD, Constraints(budget=None, lower=None, upper=None)) == {}


def test_what_cannot_be_traded_breaks_no_bound_and_may_exceed_the_budget():
    held = torch.tensor([[0.7, 0.5, 0.0, 0.0]], dtype=torch.float64)
    open_ = torch.tensor([[False, False, True, True]])
    limits = Constraints(upper=0.3)
    kept = violations(held, held, limits, open_)
    assert all(excess.item() == 0 for excess in kept.values())
    more = held + torch.tensor([0.0, 0.0, 0.1, 0.0], dtype=torch.float64)
    assert violations(more, held, limits, open_)["budget"].item() == pytest.approx(0.1)
    nothing = torch.zeros_like(open_)
    assert all(excess.item() == 0 for excess in violations(more, held, limits, nothing).values())


def test_projected_weights_break_nothing():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(200, 12, generator=generator, dtype=torch.float64)
    held = torch.rand(200, 12, generator=generator, dtype=torch.float64).softmax(-1)
    limits = Constraints(upper=0.3, turnover=1.0, caps={"sector": 0.6})
    sector = {"sector": torch.arange(12) % 3}
    weights = project(scores, limits, holdings=held, groups=sector)
    assert max(excess.max().item() for excess in violations(weights, held, limits, groups=sector).values()) < 1e-9
