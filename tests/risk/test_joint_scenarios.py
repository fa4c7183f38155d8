"""Fitted copulas, quasi-random scenarios, conditional ones, stress and odd nights."""

import numpy as np
import pytest
import torch
from scipy import stats

from qtorch.distributions import GaussianCopula, JointDistribution, SkewedStudentT, StudentT, StudentTCopula
from qtorch.risk import (
    anomaly,
    conditional_scenarios,
    estimate_value_at_risk,
    fit_copula,
    joint_scenarios,
    quasi_random_scenarios,
    randomised,
    stress,
)

N = 6
LOADINGS = torch.stack([torch.linspace(0.5, 0.8, N), torch.linspace(-0.4, 0.4, N)], dim=-1).double()
COPULAS = {
    "gaussian": GaussianCopula(LOADINGS),
    "student_t": StudentTCopula(torch.tensor(4.0).double(), LOADINGS),
}
every_copula = pytest.mark.parametrize("name", COPULAS)


def law(name, *batch):
    marginals = SkewedStudentT(torch.tensor(4.0).double(), 0.0, 0.01 * (1 + torch.arange(N)), 0.9)
    return JointDistribution(marginals.expand(torch.Size([*batch, N])), COPULAS[name])


def past(name, T=1500, holes=0.2, seed=0):
    torch.manual_seed(seed)
    u = COPULAS[name].sample((T,))
    return torch.where(torch.rand(T, N) < holes, torch.nan, u)


@every_copula
def test_a_fit_finds_the_copula_through_holes(name):
    fitted = fit_copula(past(name), 2, gaussian=name == "gaussian")
    assert type(fitted) is type(COPULAS[name])
    assert (fitted.correlation - COPULAS[name].correlation).abs().max() < 0.08
    if name == "student_t":
        assert 3.2 < fitted.df < 5.0
    new = past(name, seed=1)
    there = new.isfinite()
    excess = (COPULAS[name].log_prob(new, there) - fitted.log_prob(new, there)).mean()
    assert -0.01 < excess < 0.02


def test_a_fit_is_at_a_maximum_and_starts_anywhere():
    u = past("student_t", 600)
    fitted = fit_copula(u, 2)
    again = fit_copula(u, 2, start=fitted)
    torch.testing.assert_close(again.correlation, fitted.correlation, rtol=0, atol=5e-3)
    there = u.isfinite()
    best = fitted.log_prob(u, there).mean()
    for change in (0.97, 1.03):
        assert StudentTCopula(fitted.df * change**5, fitted.loadings).log_prob(u, there).mean() < best
        assert StudentTCopula(fitted.df, fitted.loadings * change).log_prob(u, there).mean() < best + 1e-3


def test_weights_choose_dates_and_assets_may_be_permuted():
    u = torch.cat((past("student_t", 400), torch.rand(400, N).double()))
    weights = (torch.arange(800) < 400).double()
    one, other = fit_copula(u, 2, weights), fit_copula(u[:400], 2)
    torch.testing.assert_close(one.correlation, other.correlation, rtol=0, atol=1e-6)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    turned = fit_copula(u[:400, order], 2)
    torch.testing.assert_close(turned.correlation, other.correlation[order][:, order], rtol=0, atol=2e-3)


def test_an_asset_without_history_is_taken_for_average():
    u = past("student_t")
    u[:, 5] = torch.nan
    correlation = fit_copula(u, 2).correlation
    off = ~torch.eye(5, dtype=torch.bool)
    assert abs(correlation[5, :5].mean() - correlation[:5, :5][off].mean()) < 0.1


@every_copula
def test_scenarios_have_the_marginals_and_the_dependence(name):
    joint = law(name)
    x = quasi_random_scenarios(joint, 2048, randomisations=2)
    assert x.shape == (2, 2048, N)
    assert torch.equal(x, quasi_random_scenarios(joint, 2048, randomisations=2))
    assert not torch.equal(x[0], x[1])
    pit = joint.transforms(x)
    assert (pit.mean((0, 1)) - 0.5).abs().max() < 2e-3
    truth = joint.sample((100_000,))
    for part in (x[0], x[1]):
        ranks, expected = (np.corrcoef(y.argsort(0).argsort(0).T) for y in (part, truth))
        np.testing.assert_allclose(ranks, expected, atol=0.03)
    both = ((pit[..., 0] < 0.05) & (pit[..., 1] < 0.05)).double().mean()
    expected = (joint.transforms(truth)[:, :2] < 0.05).all(1).double().mean()
    assert abs(both - expected) < 0.004
    wide = quasi_random_scenarios(law(name, 3), 256, randomisations=2)
    assert wide.shape == (2, 256, 3, N)


@every_copula
def test_quasi_random_scenarios_err_less_than_draws(name):
    joint, w = law(name), torch.full((N,), 1 / N).double()
    exact = joint.mean @ w

    def errors(statistic, truth):
        quasi = quasi_random_scenarios(joint, 512, randomisations=64)
        torch.manual_seed(0)
        draws = joint.sample((64, 512))
        return [
            (torch.stack([statistic(part @ w) for part in x]) - truth).square().mean().sqrt() for x in (quasi, draws)
        ]

    quasi, draws = errors(lambda x: x.mean(), exact)
    assert quasi < 0.25 * draws
    many = quasi_random_scenarios(joint, 16_384, randomisations=4).flatten(0, 1) @ w
    truth = estimate_value_at_risk(many, 0.95).value
    quasi, draws = errors(lambda x: estimate_value_at_risk(x, 0.95).value, truth)
    assert quasi < 0.9 * draws


def test_the_standard_error_covers_the_truth():
    joint, w = law("student_t"), torch.full((N,), 1 / N).double()
    near = [
        randomised(lambda x: (x @ w).mean(), quasi_random_scenarios(joint, 256, randomisations=8, seed=100 * k))
        for k in range(20)
    ]
    ratio = torch.stack([(e.value - joint.mean @ w) / e.standard_error for e in near])
    assert (ratio.abs() < 2.4).double().mean() >= 0.8


def test_conditional_scenarios_are_draws_whose_known_assets_are_there():
    joint = law("student_t")
    torch.manual_seed(0)
    x = joint.sample((200_000,))
    value = torch.full((N,), torch.nan, dtype=torch.float64)
    value[2] = joint.marginals.icdf(torch.tensor(0.05).double())[2]
    near = x[(joint.transforms(x)[:, 2] - 0.05).abs() < 0.01]
    given = conditional_scenarios(joint, value, value.isfinite(), 1024, randomisations=4).flatten(0, 1)
    assert (given[:, 2] == value[2]).all()
    for p in (0.05, 0.5, 0.9):
        a, b = (torch.quantile(y[:, [0, 1, 3, 5]], p, dim=0) for y in (given, near))
        torch.testing.assert_close(a, b, rtol=0.1, atol=2e-3)
    assert abs((near.sum(1).std() / given.sum(1).std()) - 1) < 0.15


def test_a_shock_to_one_is_felt_by_all():
    names = [f"A{n}" for n in range(N)]
    calm, crash = (stress(law("student_t"), {"A1": shock}, names, count=512) for shock in (-0.001, -0.2))
    assert (crash[..., 1] == -0.2).all()
    rest = [0, 2, 3, 4, 5]
    assert (crash[..., rest].mean((0, 1)) < calm[..., rest].mean((0, 1)) - 0.01).all()
    assert (crash[..., rest].std((0, 1)) > 1.5 * calm[..., rest].std((0, 1))).all()
    normal = [stress(law("gaussian"), {1: shock}, count=512)[..., 5].std() for shock in (-0.001, -0.06)]
    assert normal[1] < 1.5 * normal[0]
    with pytest.raises(ValueError, match=r"shocks=\['B'\]: give returns of some of"):
        stress(law("gaussian"), {"B": -0.1}, names)
    with pytest.raises(ValueError, match="assets=1: give the 6 names"):
        stress(law("gaussian"), {"A0": -0.1}, ["A0"])


@every_copula
def test_odd_nights_are_found_and_others_are_uniform(name):
    joint = law(name, 300)
    torch.manual_seed(3)
    x = joint.sample()
    x = torch.where(torch.rand(300, N) < 0.3, torch.nan, x)
    x[0] = torch.nan
    p = anomaly(joint, x, draws=400)
    assert p[0].isnan()
    assert stats.kstest(p[1:].numpy(), "uniform").pvalue > 1e-3
    odd = joint.marginals.icdf(torch.tensor([0.002, 0.998] * (N // 2)).double())[0]
    assert anomaly(law(name), odd) < 0.02
    assert torch.equal(p[1:], anomaly(joint, x, draws=400)[1:])


def test_past_transforms_and_fitted_copulas_agree_on_a_portfolio():
    joint, w = law("student_t"), torch.full((N,), 1 / N).double()
    u = past("student_t", 4000, holes=0.0)
    fitted = JointDistribution(joint.marginals, fit_copula(u, 2))
    one = estimate_value_at_risk(joint_scenarios(joint.marginals, u) @ w, 0.99).value
    other = estimate_value_at_risk(quasi_random_scenarios(fitted, 1024).flatten(0, 1) @ w, 0.99).value
    assert other.item() == pytest.approx(one.item(), rel=0.1)


def test_settings_are_checked():
    with pytest.raises(ValueError, match="count=1000: give a power of 2"):
        quasi_random_scenarios(law("gaussian"), 1000)
    with pytest.raises(ValueError, match="randomisations=1: give at least 2"):
        randomised(torch.mean, torch.zeros(1, 8).double())
    u = past("gaussian", 20)
    with pytest.raises(ValueError, match="factors=7: give 1 to 6"):
        fit_copula(u, 7)
    with pytest.raises(ValueError, match="give dates of positive weight with transforms of two assets"):
        fit_copula(torch.full((5, N), torch.nan).double(), 2)
    with pytest.raises(ValueError, match=r"start=\(6, 2\): give loadings \[6, 3\]"):
        fit_copula(u, 3, start=StudentTCopula(4.0, LOADINGS))
    with pytest.raises(ValueError, match="give 20 numbers, none negative"):
        fit_copula(u, 2, torch.full((20,), -1.0).double())
    tight = StudentT(torch.full((2,), 4.0).double())
    assert quasi_random_scenarios(JointDistribution(tight, GaussianCopula(LOADINGS[:2])), 8).isfinite().all()
