import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import Normal

from qtorch.distributions import Empirical, Mixture, SkewedStudentT, SplicedTails, StudentT
from qtorch.risk import anchored, anchored_profits, complete, joint_scenarios, portfolio_risk, rolling_scenarios


def correlated(S: int, N: int, rho: float, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(S, 1, generator=generator, dtype=torch.float64)
    own = torch.randn(S, N, generator=generator, dtype=torch.float64)
    return torch.special.ndtr(rho**0.5 * common + (1 - rho) ** 0.5 * own)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_observed_transforms_stay_and_holes_are_filled():
    u = correlated(400, 6, 0.5)
    holes = torch.rand(u.shape, generator=generator()) < 0.2
    filled = complete(torch.where(holes, torch.nan, u), generator())
    torch.testing.assert_close(filled[~holes], u[~holes], rtol=1e-9, atol=1e-9)
    assert ((filled > 0) & (filled < 1)).all()
    assert stats.kstest(filled[holes].numpy(), "uniform").pvalue > 0.01


def test_holes_follow_what_the_others_did():
    u = correlated(4000, 8, 0.7)
    holed = u.clone()
    holed[::2, 0] = torch.nan
    filled = complete(holed, generator())
    z = torch.special.ndtri(filled[::2])
    others = torch.special.ndtri(u[::2, 1:]).mean(1)
    truth = np.corrcoef(torch.special.ndtri(u[::2, 0]), others)[0, 1]
    assert np.corrcoef(z[:, 0], others)[0, 1] == pytest.approx(truth, abs=0.05)
    assert stats.kstest(filled[::2, 0].numpy(), "uniform").pvalue > 0.01


def test_an_asset_without_history_is_taken_for_average():
    u = correlated(2000, 6, 0.6)
    u[:, 5] = torch.nan
    z = torch.special.ndtri(complete(u, generator()))
    correlation = np.corrcoef(z.T.numpy())[5, :5]
    assert correlation.mean() == pytest.approx(0.6, abs=0.06)


def test_the_past_does_not_depend_on_later_rows_when_fitted_before():
    u = correlated(300, 5, 0.5)
    u[torch.rand(u.shape, generator=generator()) < 0.1] = torch.nan
    changed = u.clone()
    changed[250:] = 1 - changed[250:]
    a, b = (complete(x, generator(), fit=x[:200]) for x in (u, changed))
    torch.testing.assert_close(a[:250], b[:250], rtol=0, atol=1e-12)
    assert not torch.equal(a[250:], b[250:])


def test_scenarios_keep_marginals_and_dependence():
    u = correlated(5000, 3, 0.5)
    law = Normal(torch.zeros(3, dtype=torch.float64), torch.tensor([0.01, 0.02, 0.05], dtype=torch.float64))
    x = joint_scenarios(law, u)
    assert x.std(0).tolist() == pytest.approx([0.01, 0.02, 0.05], rel=0.03)
    assert np.corrcoef(x.T.numpy())[0, 1] == pytest.approx(0.5, abs=0.03)


def test_rolling_scenarios_are_the_exact_ones_to_a_thousandth():
    u = correlated(120, 3, 0.5).clamp(1e-6, 1 - 1e-6)
    law = SkewedStudentT(torch.rand(4, 3, dtype=torch.float64) * 5 + 2.5, 0.0, torch.rand(4, 3) + 0.5, 0.9)
    first = torch.tensor([0, 10, 15, 20])
    exposures = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64).expand(4, 3)
    got = rolling_scenarios(law, u, first, 100, exposures)
    for d, start in enumerate(first.tolist()):
        exact = law.icdf(u[start : start + 100].unsqueeze(1).expand(-1, 4, -1))[:, d, 0]
        torch.testing.assert_close(got[d], exact, rtol=1e-3, atol=1e-4)


def one(*values):
    return torch.tensor([[values if len(values) > 1 else values[0]]], dtype=torch.float64)


LAWS = {
    "heavy": StudentT(one(2.1), one(0.0), one(1.0)),
    "skewed": SkewedStudentT(one(4.0), one(0.1), one(1.0), one(1.3)),
    "mixture": Mixture(one(0.8, 0.2), StudentT(one(5.0, 5.0), one(0.0, 0.0), one(0.5, 3.0))),
    "spliced": SplicedTails(Normal(one(0.0), one(1.0)), 0.05, 0.2),
    "gap": Mixture(one(0.98, 0.02), Normal(one(0.0, -8.0), one(1.0, 1.0))),
    "pegged": Mixture(one(0.2, 0.8), StudentT(one(4.0, 4.0), one(0.0, 0.0), one(1.0, 0.01))),
    "scenarios": Empirical(torch.linspace(-2, 1, 500, dtype=torch.float64).reshape(1, 1, 500)),
}


@pytest.mark.parametrize("name", LAWS)
def test_tabulated_quantiles_of_every_kind_of_law(name):
    law, score = LAWS[name], torch.linspace(-5.9, 5.9, 2001, dtype=torch.float64)
    u = torch.special.ndtr(score)[:, None]
    exposures = torch.ones(1, 1, dtype=torch.float64)
    got = rolling_scenarios(law, u, torch.zeros(1, dtype=torch.int64), len(u), exposures)[0]
    exact = law.icdf(u.unsqueeze(-1))[:, 0, 0]
    assert (got.diff() >= -1e-15).all()
    if name in ("heavy", "skewed", "mixture", "spliced"):
        error, near = ((got - exact) / exact).abs(), score.abs() < 3.5
        error = torch.where(exact.abs() > 0.05, error, 0.0)
        assert error[near].max() < 2e-4
        assert error.max() < 1e-3
    else:  # between the quantiles of the nodes about it
        below, above = (torch.special.ndtr(score + side * 12 / 128).reshape(-1, 1, 1) for side in (-1, 1))
        assert (law.icdf(below)[:, 0, 0] - 1e-12 <= got).all()
        assert (got <= law.icdf(above)[:, 0, 0] + 1e-12).all()


def test_anchored_profits_are_means_of_quantiles_at_the_same_rank():
    profits = torch.tensor([[0.3, -0.2, 0.1, -0.5], [1.0, 2.0, 4.0, 3.0]], dtype=torch.float64)
    law = Normal(torch.tensor([0.0, 1.0], dtype=torch.float64), torch.tensor([0.1, 2.0], dtype=torch.float64))
    quantiles = stats.norm.ppf([0.125, 0.375, 0.625, 0.875])
    expected = 0.75 * profits[0] + 0.25 * torch.tensor(0.1 * quantiles[[3, 1, 2, 0]])
    moved = anchored_profits(profits, law, 0.25)
    torch.testing.assert_close(moved[0], expected)
    assert torch.equal(moved.argsort(-1), profits.argsort(-1))
    assert torch.equal(anchored_profits(profits, law, 0.0), profits)
    torch.testing.assert_close(anchored_profits(profits, law, 1.0)[1].sort().values, torch.tensor(1 + 2 * quantiles))
    with pytest.raises(ValueError, match="weight=1.5"):
        anchored_profits(profits, law, 1.5)


def test_anchored_scenarios_have_the_moved_profits_and_contributions_that_sum():
    pit = correlated(2000, 5, 0.4)
    scenarios = joint_scenarios(Normal(torch.zeros(5, dtype=torch.float64), 0.01), pit)
    exposures = torch.tensor([10.0, -5.0, 0.0, 20.0, 5.0], dtype=torch.float64)
    law = Normal(torch.tensor(0.0, dtype=torch.float64), 0.5)
    moved = anchored(scenarios, exposures, law)
    torch.testing.assert_close(moved @ exposures, anchored_profits(scenarios @ exposures, law), rtol=1e-10, atol=1e-12)
    wide, narrow = (portfolio_risk(s, exposures, 0.99) for s in (moved, scenarios))
    assert wide.value_at_risk > 1.3 * narrow.value_at_risk  # the law's volatility is about three times theirs
    torch.testing.assert_close(wide.component_expected_shortfall.sum(), wide.expected_shortfall)
    torch.testing.assert_close(anchored(scenarios, exposures, law, 0.0), scenarios)
    torch.testing.assert_close(anchored(scenarios, 0 * exposures, law), scenarios)  # nothing is held: nothing moves
    scenarios[:, 2] = torch.nan  # of an asset that is not held
    others = anchored(scenarios, exposures, law)
    assert torch.equal(others[:, [0, 1, 3, 4]], moved[:, [0, 1, 3, 4]])
