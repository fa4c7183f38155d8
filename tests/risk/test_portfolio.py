import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import Normal

from qtorch.distributions import MultivariateStudentT, SkewedStudentT, StudentT
from qtorch.risk import (
    elliptical_risk,
    estimate_expected_shortfall,
    estimate_value_at_risk,
    expected_shortfall,
    incremental_risk,
    portfolio_risk,
    student_t_risk,
    value_at_risk,
)


def normals(S: int, covariance: torch.Tensor, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shocks = torch.randn(S, len(covariance), generator=generator, dtype=torch.float64)
    return shocks @ torch.linalg.cholesky(covariance).T


COVARIANCE = 0.02**2 * (0.7 * torch.eye(4, dtype=torch.float64) + 0.3)
EXPOSURES = torch.tensor([0.4, 0.3, 0.2, -0.1], dtype=torch.float64)


def test_portfolio_risk_of_normals_is_the_closed_form():
    risk = portfolio_risk(normals(200_000, COVARIANCE), EXPOSURES, 0.99)
    sigma = torch.sqrt(EXPOSURES @ COVARIANCE @ EXPOSURES).item()
    assert risk.value_at_risk.item() == pytest.approx(sigma * stats.norm.ppf(0.99), rel=0.02)
    es = sigma * stats.norm.pdf(stats.norm.ppf(0.99)) / 0.01
    assert risk.expected_shortfall.item() == pytest.approx(es, rel=0.02)
    euler = EXPOSURES * (COVARIANCE @ EXPOSURES) / sigma**2
    shares = risk.component_expected_shortfall / risk.expected_shortfall
    torch.testing.assert_close(shares, euler, rtol=0, atol=0.02)
    torch.testing.assert_close(risk.component_value_at_risk / risk.value_at_risk, euler, rtol=0, atol=0.04)


def test_contributions_sum_and_scale_with_the_exposures():
    x = 0.02 * torch.randn(700, 5, dtype=torch.float64)
    w = torch.randn(5, dtype=torch.float64)
    one, ten = portfolio_risk(x, w, 0.975), portfolio_risk(x, 10 * w, 0.975)
    torch.testing.assert_close(one.component_value_at_risk.sum(), one.value_at_risk)
    torch.testing.assert_close(one.component_expected_shortfall.sum(), one.expected_shortfall)
    torch.testing.assert_close(one.component_expected_shortfall, w * one.marginal_expected_shortfall)
    torch.testing.assert_close(ten.expected_shortfall, 10 * one.expected_shortfall)
    torch.testing.assert_close(ten.marginal_value_at_risk, one.marginal_value_at_risk)
    losses = np.sort(-(x @ w).numpy())[::-1]
    assert one.value_at_risk.item() == pytest.approx(losses[17])  # ceil(700 * 0.025) = 18


def test_marginal_expected_shortfalls_are_derivatives():
    x = normals(1001, COVARIANCE)
    marginal = portfolio_risk(x, EXPOSURES, 0.975).marginal_expected_shortfall
    for i in range(4):
        up, down = (EXPOSURES + d * torch.eye(4, dtype=torch.float64)[i] for d in (1e-7, -1e-7))
        change = estimate_expected_shortfall(x @ up, 0.975).value - estimate_expected_shortfall(x @ down, 0.975).value
        assert marginal[i].item() == pytest.approx(change.item() / 2e-7, rel=1e-6)


def test_incremental_risk_is_the_risk_without_each_position():
    x = normals(900, COVARIANCE)
    var, es = incremental_risk(x, EXPOSURES, 0.95)
    for i in range(4):
        rest = torch.where(torch.arange(4) == i, 0.0, EXPOSURES)
        for got, estimate in ((var, estimate_value_at_risk), (es, estimate_expected_shortfall)):
            expected = estimate(x @ EXPOSURES, 0.95).value - estimate(x @ rest, 0.95).value
            assert got[i].item() == pytest.approx(expected.item(), abs=1e-14)
    assert es[3] < 0  # the short position hedges


def test_pieces_of_the_sort_change_nothing(monkeypatch):
    x = normals(300, COVARIANCE)
    whole = incremental_risk(x, EXPOSURES, 0.95)
    monkeypatch.setattr("qtorch.risk.portfolio._PIECE", 300)
    torch.testing.assert_close(incremental_risk(x, EXPOSURES, 0.95), whole, rtol=0, atol=0)


def test_a_batch_of_portfolios_is_each_by_itself():
    x, weights = normals(400, COVARIANCE), torch.rand(400)
    w = torch.randn(3, 2, 4, dtype=torch.float64)
    batch, added = portfolio_risk(x, w, 0.9, weights), incremental_risk(x, w, 0.9, weights)
    alone, alone_added = portfolio_risk(x, w[2, 1], 0.9, weights), incremental_risk(x, w[2, 1], 0.9, weights)
    for name, value in vars(batch).items():
        torch.testing.assert_close(value[2, 1], getattr(alone, name))
    for many, one in zip(added, alone_added, strict=True):
        torch.testing.assert_close(many[2, 1], one)


def test_a_whole_weight_is_a_repeated_scenario():
    x, weights = normals(150, COVARIANCE), 2 * (torch.arange(150) % 2)
    weighted = portfolio_risk(x, EXPOSURES, 0.92, weights.double())
    repeated = portfolio_risk(x.repeat_interleave(weights, dim=0), EXPOSURES, 0.92)
    torch.testing.assert_close(weighted.value_at_risk, repeated.value_at_risk)
    torch.testing.assert_close(weighted.expected_shortfall, repeated.expected_shortfall)
    torch.testing.assert_close(weighted.component_expected_shortfall, repeated.component_expected_shortfall)


def test_portfolio_risk_is_had_in_inference_mode():
    with torch.inference_mode():
        x = normals(200, COVARIANCE)
        inside = portfolio_risk(x, EXPOSURES, 0.9, torch.ones(200))
    assert not inside.marginal_expected_shortfall.requires_grad
    torch.testing.assert_close(
        inside.marginal_expected_shortfall.clone(),
        portfolio_risk(normals(200, COVARIANCE), EXPOSURES, 0.9).marginal_expected_shortfall,
    )


@pytest.mark.slow
def test_standard_errors_are_the_spread_over_repeated_simulations():
    runs = [portfolio_risk(normals(2000, COVARIANCE, seed), EXPOSURES, 0.95) for seed in range(200)]
    for value, error in (
        ("value_at_risk", "value_at_risk_error"),
        ("expected_shortfall", "expected_shortfall_error"),
        ("component_expected_shortfall", "component_expected_shortfall_error"),
    ):
        spread = torch.stack([getattr(run, value) for run in runs]).std(0)
        stated = torch.stack([getattr(run, error) for run in runs]).square().mean(0).sqrt()
        torch.testing.assert_close(stated, spread, rtol=0.2, atol=0)


def test_an_elliptical_portfolio_is_its_own_univariate_law():
    loc = torch.tensor([0.001, 0.0, -0.002, 0.003], dtype=torch.float64)
    sigma = torch.sqrt(EXPOSURES @ COVARIANCE @ EXPOSURES)
    for standard, whole in (
        (Normal(torch.zeros(()).double(), 1.0), Normal(EXPOSURES @ loc, sigma)),
        (
            SkewedStudentT(torch.tensor(4.0).double()),
            SkewedStudentT(torch.tensor(4.0).double(), EXPOSURES @ loc, sigma),
        ),
    ):
        risk = elliptical_risk(standard, loc, COVARIANCE @ EXPOSURES, EXPOSURES, 0.975)
        torch.testing.assert_close(risk.value_at_risk, value_at_risk(whole, 0.975))
        torch.testing.assert_close(risk.expected_shortfall, expected_shortfall(whole, 0.975))
        torch.testing.assert_close(risk.component_value_at_risk.sum(), risk.value_at_risk)

        def shortfall(w, standard=standard):
            return elliptical_risk(standard, loc, COVARIANCE @ w, w, 0.975).expected_shortfall

        w = EXPOSURES.clone().requires_grad_()
        torch.testing.assert_close(torch.autograd.grad(shortfall(w), w)[0], risk.marginal_expected_shortfall)
        torch.testing.assert_close(shortfall(5 * EXPOSURES), 5 * risk.expected_shortfall)


def test_scenarios_of_an_elliptical_law_come_to_its_closed_form():
    x = normals(100_000, COVARIANCE)
    w = torch.stack([EXPOSURES, torch.zeros(4, dtype=torch.float64)])
    closed = elliptical_risk(Normal(torch.zeros(()).double(), 1.0), torch.zeros(4), w @ COVARIANCE, w, 0.975)
    drawn = portfolio_risk(x, w, 0.975)
    for name, error in (("value_at_risk", "value_at_risk_error"), ("expected_shortfall", "expected_shortfall_error")):
        gap = getattr(drawn, name) - getattr(closed, name)
        assert (gap.abs() <= 4 * getattr(drawn, error)).all()
    assert closed.value_at_risk[1] == 0
    gap = drawn.component_expected_shortfall - closed.component_expected_shortfall
    assert (gap.abs() <= 4 * drawn.component_expected_shortfall_error).all()
    with pytest.raises(ValueError, match="positive semi-definite"):
        elliptical_risk(Normal(0.0, 1.0), torch.zeros(4), -EXPOSURES, EXPOSURES, 0.975)


def test_a_multivariate_student_t_is_its_elliptical_law():
    D = torch.tensor([1e-4, 2e-4, 3e-4, 1e-4]).double()
    loc, F = 0.001 * torch.randn(3, 4).double(), 0.01 * torch.randn(3, 4, 2).double()
    law = MultivariateStudentT(torch.tensor([3.0, 5.0, 9.0]).double(), loc, F, D)
    portfolios = torch.stack([EXPOSURES, torch.ones(4).double()]).unsqueeze(1)
    risk = student_t_risk(law, portfolios, 0.975)
    whole = law.combination(portfolios)
    torch.testing.assert_close(risk.value_at_risk, value_at_risk(whole, 0.975))
    torch.testing.assert_close(risk.expected_shortfall, expected_shortfall(whole, 0.975))
    torch.testing.assert_close(risk.component_expected_shortfall.sum(-1), risk.expected_shortfall)
    for p in range(2):
        for b in range(3):
            w = portfolios[p, 0]
            product = (F[b] @ F[b].T + D.diag()) @ w
            alone = elliptical_risk(StudentT(law.df[b]), loc[b], product, w, 0.975)
            torch.testing.assert_close(risk.marginal_value_at_risk[p, b], alone.marginal_value_at_risk)
    one = student_t_risk(law, EXPOSURES, 0.975)
    torch.testing.assert_close(one.component_value_at_risk, risk.component_value_at_risk[0])
    with pytest.raises(ValueError, match="must end in the law's N = 4"):
        student_t_risk(law, EXPOSURES[:3], 0.975)
