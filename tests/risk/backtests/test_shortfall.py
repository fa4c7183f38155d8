"""Tests of the expected shortfall from returns, VaR and ES."""

import numpy as np
import pytest
import torch
from scipy import integrate, optimize, stats
from torch.distributions import Normal

from qtorch.risk.backtests import acerbi_szekely, acerbi_szekely_z3, es_regression, mcneil_frey, nolde_ziegel
from tests.risk.backtests.panels import forecasts, holes, normal_tail, share_rejected, student_tail


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_z1_and_z2_on_a_panel_with_holes_are_the_loop_over_series():
    f, mask = forecasts(300, 5, 0.95), holes((300, 5))
    var = f.value_at_risk.clone()
    var[:, 4] = f.expected_shortfall[:, 4] = 1.0
    z1, z2 = acerbi_szekely(f.returns, var, f.expected_shortfall, 0.95, mask, draws=20)
    for n in range(5):
        y, v, e = (x[mask[:, n], n].numpy() for x in (f.returns, var, f.expected_shortfall))
        hit = y <= -v
        assert z2.statistic[n].item() == pytest.approx((y * hit / e).sum() / (len(y) * 0.05) + 1, rel=1e-12)
        expected = (y * hit / e).sum() / hit.sum() + 1 if hit.any() else np.nan
        assert z1.statistic[n].item() == pytest.approx(expected, rel=1e-10, nan_ok=True)
    assert (z2.statistic[4].item(), z2.p_value[4].item()) == (1.0, 1.0)


# Acerbi and Szekely (2014): at T = 250 and 97.5 % the critical values of Z2 are -0.70 at 5 % and -1.8 at 0.01 % for
# the normal and light-tailed Student's t; at 5 % -0.82 for Student's t with 3 degrees of freedom.
@pytest.mark.parametrize(("df", "tail_index", "published"), [(None, 0.0, -0.70), (10, 0.1, -0.70), (3, 1 / 3, -0.82)])
def test_acerbi_and_szekelys_critical_values(df, tail_index, published):
    var, es = normal_tail(0.975) if df is None else student_tail(0.975, df)

    def z2(statistics, draws):
        """Samples whose one exceedance has the size that gives these statistics."""
        returns = torch.zeros(250, len(statistics), dtype=torch.float64)
        returns[7] = -es * 250 * 0.025 * (1 - torch.tensor(statistics, dtype=torch.float64))
        ones = torch.ones_like(returns)
        options = {"tail_index": tail_index, "draws": draws, "generator": seeded()}
        return acerbi_szekely(returns, var * ones, es * ones, 0.975, **options).z2

    around = z2([published - 0.03, published + 0.03], 20_000)
    assert around.statistic.tolist() == pytest.approx([published - 0.03, published + 0.03])
    assert around.p_value[0] < 0.05 < around.p_value[1]
    if df is None:
        assert z2([-1.8], 50_000).p_value.item() < 2e-4


def test_simulating_from_the_distribution_gives_the_p_values_of_its_tail():
    f = forecasts(250, 6, 0.975)
    given = acerbi_szekely(
        *f.risk,
        0.975,
        distribution=Normal(torch.zeros(1, dtype=torch.float64), f.scale),
        draws=4000,
        generator=seeded(),
    )
    implied = acerbi_szekely(*f.risk, 0.975, tail_index=0.0, draws=4000, generator=seeded())
    assert torch.allclose(given.z2.p_value, implied.z2.p_value, atol=0.02)
    assert torch.allclose(given.z1.p_value, implied.z1.p_value, atol=0.06)
    # A plain simulation of whole samples of one series.
    y = f.scale[:, 0].numpy() * np.random.default_rng(0).standard_normal((4000, 250))
    v, e = f.value_at_risk[:, 0].numpy(), f.expected_shortfall[:, 0].numpy()
    z2 = (y * (y <= -v) / e).sum(1) / (250 * 0.025) + 1
    assert given.z2.p_value[0].item() == pytest.approx((z2 <= given.z2.statistic[0].item()).mean(), abs=0.03)


def test_z3_by_a_plain_loop():
    f = forecasts(120, 3, 0.95, seed=5)
    mask = holes((120, 3))
    distribution = Normal(torch.zeros(1, dtype=torch.float64), f.scale)
    test = acerbi_szekely_z3(f.returns, distribution, 0.95, mask, draws=2000, generator=seeded())
    for n in range(3):
        sigma, u = f.scale[mask[:, n], n].numpy(), np.sort(f.pit[mask[:, n], n].numpy())
        t = len(u)
        k = int(t * 0.05)
        weight = lambda x, k=k, t=t: t / k * stats.binom.cdf(k - 1, t - 1, x)  # noqa: E731
        expected = sigma * integrate.quad(lambda x, w=weight: stats.norm.ppf(x) * w(x), 0, 1, limit=500)[0]
        z3 = 1 - (stats.norm.ppf(u[:k]).mean() * sigma / expected).mean()
        assert test.statistic[n].item() == pytest.approx(z3, abs=1e-7)
        draws = np.sort(np.random.default_rng(0).random((4000, t)), 1)[:, :k]
        simulated = 1 - stats.norm.ppf(draws).mean(1) / (expected[0] / sigma[0])
        assert test.p_value[n].item() == pytest.approx((simulated <= z3).mean(), abs=0.03)


def test_exceedance_residuals_by_hand_and_by_a_plain_bootstrap():
    f, mask = forecasts(400, 4, 0.95, df=5), holes((400, 4))
    test = mcneil_frey(*f.risk, 0.95, mask, draws=4000, generator=seeded())
    scaled = mcneil_frey(*f.risk, 0.95, mask, scale=f.scale, draws=100, generator=seeded())
    rng = np.random.default_rng(0)
    for n in range(4):
        y, v, e, s = (x[mask[:, n], n].numpy() for x in (*f.risk, f.scale))
        hit = y <= -v
        r = ((-y - e) / e)[hit]
        t = r.mean() / r.std(ddof=1) * np.sqrt(len(r))
        assert test.statistic[n].item() == pytest.approx(t, rel=1e-9)
        sample = rng.choice(r - r.mean(), (4000, len(r)))
        star = sample.mean(1) / sample.std(1, ddof=1) * np.sqrt(len(r))
        assert test.p_value[n].item() == pytest.approx((star >= t).mean(), abs=0.03)
        r = ((-y - e) / s)[hit]
        assert scaled.statistic[n].item() == pytest.approx(r.mean() / r.std(ddof=1) * np.sqrt(len(r)), rel=1e-9)
    same = torch.full((50, 1), -0.03, dtype=torch.float64)
    assert mcneil_frey(same, 0.5 * -same, 0.9 * -same, 0.95).p_value.isnan().all()


def reference_calibration(y, v, e, s, p, one_sided, general):
    hit = (y <= -v).astype(float)
    v1, v2 = hit - p, hit * (-y - v) / p - (e - v)
    if not general:
        w = np.column_stack([v1, v2])
    elif one_sided:
        w = np.column_stack([v1, v1 * np.abs(v), v2, v2 / s])
    else:
        w = (hit * (-y - e) / (p * s))[:, None]
    omega, mean = w.T @ w / len(w), w.mean(0)
    if one_sided:
        t = mean / np.sqrt(np.diag(omega)) * np.sqrt(len(w))
        return t.max(), min(1, w.shape[1] * stats.norm.sf(t).min())
    statistic = len(w) * mean @ np.linalg.solve(omega, mean)
    return statistic, stats.chi2.sf(statistic, w.shape[1])


@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize("general", [False, True])
def test_calibration_on_a_panel_with_holes_is_the_loop_over_series(one_sided, general):
    f, mask = forecasts(400, 5, 0.95), holes((400, 5))
    options = {"one_sided": one_sided, "general": general, "scale": f.scale}
    test = nolde_ziegel(*f.risk, 0.95, mask, tail_index=None, **options)
    for n in range(5):
        columns = [x[mask[:, n], n].numpy() for x in (*f.risk, f.scale)]
        statistic, p_value = reference_calibration(*columns, 0.05, one_sided, general)
        assert test.statistic[n].item() == pytest.approx(statistic, rel=1e-8)
        assert test.p_value[n].item() == pytest.approx(p_value, rel=1e-6)
    never = torch.ones(400, 5, dtype=torch.float64)
    given = nolde_ziegel(f.returns, never, 1.2 * never, 0.95, tail_index=None, **options)
    assert given.p_value.isnan().all()


def test_the_null_covariance_of_calibration_is_that_of_exponential_excesses():
    rng = np.random.default_rng(0)
    hit = rng.random((200_000, 1)) < 0.05
    y = torch.from_numpy(np.where(hit, -(2 + 0.5 * rng.exponential(size=hit.shape)), 0.0))
    risk = (y, torch.full_like(y, 2.0), torch.full_like(y, 2.5))
    for options in ({}, {"general": True}):
        null = nolde_ziegel(*risk, 0.95, tail_index=0.0, **options).statistic.item()
        sample = nolde_ziegel(*risk, 0.95, tail_index=None, **options).statistic.item()
        assert null == pytest.approx(sample, rel=0.05)


def test_es_regression_solves_its_two_steps():
    f, mask = forecasts(500, 4, 0.95, seed=3), holes((500, 4))
    test = es_regression(*f.risk, 0.95, mask, tail_index=None)
    for n in range(4):
        y, v, e = (x[mask[:, n], n].numpy() for x in f.risk)
        loss = -y

        def gradient(b, loss=loss, v=v, e=e):
            x = np.column_stack([np.ones_like(v), v]) / e[:, None]
            above = stats.norm.cdf((loss / e - x @ b) / 0.05) - 0.05
            return x.T @ above

        b = optimize.root(gradient, [0.0, 1.0], tol=1e-12).x
        assert np.abs(gradient(b)).max() < 1e-6
        q = b[0] + b[1] * v
        z = q + np.maximum(loss - q, 0) / 0.05
        x = np.column_stack([np.ones_like(e), e]) / e[:, None]
        coefficients = np.linalg.lstsq(x, z / e, rcond=None)[0]
        assert test.coefficients[:, n].numpy() == pytest.approx(coefficients, rel=1e-3, abs=1e-5)
        residual = z / e - x @ coefficients
        bread = np.linalg.inv(x.T @ x)
        covariance = bread @ (x * residual[:, None] ** 2).T @ x @ bread
        gap = coefficients - [0, 1]
        assert test.joint.statistic[n].item() == pytest.approx(gap @ np.linalg.solve(covariance, gap), rel=2e-2)


def test_es_regression_does_not_depend_on_the_unit_and_allows_a_constant_es():
    f = forecasts(500, 3, 0.95)
    one, hundred = es_regression(*f.risk, 0.95), es_regression(*(100 * x for x in f.risk), 0.95)
    assert torch.allclose(one.joint.statistic, hundred.joint.statistic, rtol=1e-6)
    assert torch.allclose(100 * one.coefficients[0], hundred.coefficients[0], rtol=1e-4)
    constant = es_regression(f.returns / f.scale, *(x / f.scale for x in f.risk[1:]), 0.95).joint
    assert constant.p_value.numpy() == pytest.approx(stats.chi2.sf(constant.statistic.numpy(), 1))
    assert es_regression(f.returns, None, f.expected_shortfall, 0.95).joint.p_value.isfinite().all()


def test_all_find_a_scale_that_is_a_third_too_small_and_none_a_right_one():
    right, wrong = forecasts(500, 400, 0.975, df=5), forecasts(500, 400, 0.975, df=5, wrong=1.5)

    def results(f):
        yield from acerbi_szekely(*f.risk, 0.975, generator=seeded())
        yield nolde_ziegel(*f.risk, 0.975)
        yield nolde_ziegel(*f.risk, 0.975, general=True, scale=f.scale)
        yield nolde_ziegel(*f.risk, 0.975, one_sided=True)
        yield nolde_ziegel(*f.risk, 0.975, one_sided=True, general=True, scale=f.scale)
        yield from es_regression(*f.risk, 0.975)[:2]

    for result in results(right):
        assert share_rejected(result.p_value) < 0.09, result.name
    for result in results(wrong):
        # Z1 and the general two-sided calibration look at the size of the exceedances alone, whose mean hardly changes
        # with the scale of a Pareto tail.
        least = 0.0 if result.name.endswith("Z1") else 0.4 if "general, two-sided" in result.name else 0.6
        assert share_rejected(result.p_value) > least, result.name
    deeper = (wrong.returns, 1.5 * wrong.value_at_risk, wrong.expected_shortfall.clamp(min=1.5 * wrong.value_at_risk))
    assert share_rejected(mcneil_frey(*deeper, 0.975, generator=seeded()).p_value) > 0.4
    assert share_rejected(mcneil_frey(*right.risk, 0.975, generator=seeded()).p_value) < 0.09


def test_no_observation_gives_no_verdict():
    f = forecasts(20, 2, 0.95)
    nothing = torch.zeros(20, 2, dtype=torch.bool)
    for result in (
        *acerbi_szekely(*f.risk, 0.95, nothing, draws=10),
        acerbi_szekely_z3(f.returns, Normal(0.0, f.scale), 0.95, nothing, draws=10),
        mcneil_frey(*f.risk, 0.95, nothing, draws=10),
        nolde_ziegel(*f.risk, 0.95, nothing),
        nolde_ziegel(*f.risk, 0.95, nothing, one_sided=True),
        *es_regression(*f.risk, 0.95, nothing)[:2],
    ):
        assert result.p_value.isnan().all(), result.name
        assert result.observations.tolist() == [0, 0]


def test_an_es_below_its_var_is_refused_with_its_place():
    f = forecasts(20, 2, 0.95)
    es = f.expected_shortfall.clone()
    es[3, 1] = 0.5 * f.value_at_risk[3, 1]
    for test in (acerbi_szekely, mcneil_frey, nolde_ziegel, es_regression):
        with pytest.raises(ValueError, match=r"expected_shortfall\[3, 1\] = .* lies below its value at risk"):
            test(f.returns, f.value_at_risk, es, 0.95)
        with pytest.raises(ValueError, match="is not positive"):
            test(f.returns, f.value_at_risk, -f.expected_shortfall, 0.95)
