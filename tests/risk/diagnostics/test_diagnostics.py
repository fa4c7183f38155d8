"""Diagnostics against closed forms, simulation and reference implementations; what is masked changes nothing."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from qtorch.distributions import StudentT
from qtorch.risk.backtests import kupiec
from qtorch.risk.diagnostics import (
    calibration_error,
    clustered_mean,
    coverage_by_group,
    history_length,
    interval_width,
    rank_correlation,
    selective_risk,
    sharpness,
    volatility_regimes,
)

P = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95], dtype=torch.float64)


def uniforms(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def normals(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def joint_normals(T, N, common=0.8, seed=0):
    """Correlated by `common` across the assets of a date."""
    return common**0.5 * normals(T, 1, seed=seed) + (1 - common) ** 0.5 * normals(T, N, seed=seed + 1)


def test_a_normal_of_the_wrong_width_has_the_error_that_theory_gives():
    s = 1.5
    truth = torch.special.ndtri((torch.arange(20_000) + 0.5).double() / 20_000)  # evenly over the law
    result = calibration_error(torch.special.ndtr(truth / s), P.tolist())
    expected = (torch.special.ndtr(s * torch.special.ndtri(P)) - P).abs().mean()
    assert result.error.item() == pytest.approx(expected.item(), abs=5e-5)
    assert result.p_value.item() == 0


def test_the_error_of_one_quantile_has_the_binomials_mean_and_bound():
    n, p = 400, 0.3
    result = calibration_error(uniforms(n), [p])
    k = np.arange(n + 1)
    exact = (stats.binom.pmf(k, n, p) * abs(k / n - p)).sum()
    assert result.expected.item() == pytest.approx(exact, rel=0.03)
    assert result.bound.item() == pytest.approx(1.96 * (p * (1 - p) / n) ** 0.5, rel=0.04)
    assert result.standard_error.item() == pytest.approx((p * (1 - p) / n) ** 0.5)


@pytest.mark.parametrize("n", [50, 500])
def test_a_right_forecast_is_beyond_its_bound_as_often_as_said(n):
    result = calibration_error(uniforms(n, 3000))
    beyond = (result.error > result.bound).double().mean().item()
    assert beyond == pytest.approx(0.05, abs=0.015)
    assert result.error.mean().item() == pytest.approx(result.expected[0].item(), rel=0.05)
    assert (result.p_value < 0.05).double().mean().item() == pytest.approx(beyond, abs=0.003)


def test_a_panels_bound_allows_for_what_a_date_has_in_common():
    beyond = {False: 0, True: 0}
    for seed in range(100):
        u = torch.special.ndtr(joint_normals(250, 10, seed=2 * seed))
        beyond[True] += int(calibration_error(u, P.tolist(), panel=True).p_value < 0.05)
        beyond[False] += int(calibration_error(u.reshape(-1), P.tolist()).p_value < 0.05)
    assert 1 <= beyond[True] <= 12  # 5 % of 100, more or less
    assert beyond[False] > 30


def test_windows_that_overlap_widen_the_bound():
    x = normals(2000).unfold(0, 10, 1).sum(-1) / 10**0.5
    u = torch.special.ndtr(x)
    assert calibration_error(u, P.tolist(), overlap=10).bound > 2 * calibration_error(u, P.tolist()).bound


@pytest.mark.parametrize("panel", [False, True])
def test_what_is_masked_changes_no_calibration_error(panel):
    u, mask = uniforms(120, 3), uniforms(120, 3, seed=1) < 0.7
    holed = torch.where(mask, u, torch.nan)
    spoilt = torch.where(mask, u, torch.inf)
    names = ("observed", "error", "bound", "p_value", "observations")
    one, two = (calibration_error(x, P.tolist(), m, panel=panel) for x, m in ((holed, None), (spoilt, mask)))
    for name in names:
        assert torch.equal(getattr(one, name), getattr(two, name))
    order = torch.tensor([2, 0, 1])
    three = calibration_error(holed[:, order], P.tolist(), panel=panel)
    torch.testing.assert_close(three.error, one.error if panel else one.error[order])


def test_a_series_without_outcomes_has_no_calibration_error():
    u = torch.stack([uniforms(30), torch.full((30,), torch.nan)], 1)
    result = calibration_error(u)
    frame = result.to_frame(["A", "B"])
    assert frame.loc["A"].notna().all()
    assert frame.loc["B", ["error", "expected", "bound", "p_value"]].isna().all()
    assert frame["observations"].tolist() == [30, 0]
    with pytest.raises(ValueError, match="transforms are probabilities"):
        calibration_error(u + 1)
    with pytest.raises(ValueError, match="probabilities"):
        calibration_error(u, [0.0])


def test_clustered_means_are_those_of_a_regression_with_clusters():
    x = joint_normals(300, 7)
    mask = uniforms(300, 7, seed=5) < 0.8
    result = clustered_mean(torch.where(mask, x, torch.nan).unsqueeze(-1))
    values, dates = x[mask].numpy(), mask.nonzero()[:, 0].numpy()
    sums = np.array([(values[dates == t] - values.mean()).sum() for t in np.unique(dates)])
    G = len(sums)
    assert result.mean.item() == pytest.approx(values.mean())
    assert result.standard_error.item() == pytest.approx((G / (G - 1) * (sums**2).sum()) ** 0.5 / len(values))
    assert (result.observations, result.dates) == (len(values), G)


def test_clustered_errors_of_overlapping_windows_are_near_the_truth():
    x = normals(2000, 400).unfold(0, 5, 5).sum(-1)  # windows that do not overlap
    every = normals(2004, 60, seed=1).unfold(0, 5, 1).sum(-1)
    errors = torch.stack([clustered_mean(every[:, k : k + 1, None], overlap=5).standard_error for k in range(60)])
    assert errors.mean().item() == pytest.approx(5 / 2000**0.5, rel=0.03)
    plain = clustered_mean(x.unsqueeze(-1)).standard_error.item()
    assert plain == pytest.approx((5 / 400 / 400) ** 0.5, rel=0.15)


def test_sharpness_is_the_width_of_the_law():
    law = StudentT(5.0, torch.zeros(6, 2), torch.tensor([1.0, 2.0]).expand(6, 2))
    width, volatility = sharpness(law, 0.9)
    t = stats.t(5)
    assert width.tolist() == pytest.approx([2 * t.ppf(0.95), 4 * t.ppf(0.95)], rel=1e-5)
    assert volatility.tolist() == pytest.approx([t.std(), 2 * t.std()], rel=1e-5)
    mask = torch.tensor([[True, False]]).expand(6, 2)
    assert sharpness(law, 0.9, mask).width.isnan().tolist() == [False, True]
    with pytest.raises(ValueError, match="coverage"):
        interval_width(law, 1.0)


def test_regimes_know_nothing_later_and_skip_holes():
    v = normals(200, 2).exp()
    v[20:40, 0] = torch.nan
    regimes = volatility_regimes(v, minimum=30)
    changed = v.clone()
    changed[150:] *= 7
    assert torch.equal(volatility_regimes(changed, minimum=30)[:150], regimes[:150])
    assert (regimes[20:40, 0] == -1).all()
    column = v[:, 0][v[:, 0].isfinite()]
    last = (column <= column[-1]).double().mean().item()
    assert regimes[-1, 0].item() == int(np.ceil(3 * last) - 1)
    assert torch.equal(volatility_regimes(v[:, 1].log().exp() ** 2, minimum=30), regimes[:, 1])  # any rising map
    there = torch.tensor([[False], [True], [False], [True]])
    assert history_length(there)[:, 0].tolist() == [0, 1, 1, 2]


def test_coverage_of_one_series_is_kupiecs_and_of_many_is_clustered():
    u = uniforms(1000, 1)
    zero = torch.zeros(1000, 1, dtype=torch.long)
    (row,) = coverage_by_group(u < 0.05, 0.95, zero).to_dict("records")
    hits = int((u < 0.05).sum())
    rate = hits / 1000
    assert row["rate"] == rate
    assert row["standard_error"] == pytest.approx((rate * (1 - rate) / 999) ** 0.5)
    low, high = stats.binom.interval(0.95, 1000, 0.05)
    assert (row["binomial_low"], row["binomial_high"]) == (low / 1000, high / 1000)
    assert row["p_value"] == pytest.approx(kupiec(u[:, 0] < 0.05, 0.95).p_value.item(), abs=0.05)
    alike = coverage_by_group((u < 0.05).expand(1000, 9), 0.95, zero.expand(1000, 9))
    assert alike["standard_error"].item() == pytest.approx(row["standard_error"])


def test_groups_and_masks_split_coverage():
    exceeded = uniforms(500, 4) < 0.05
    groups = torch.arange(500).unsqueeze(1).expand(500, 4) % 3 - 1  # a third in no group
    mask = uniforms(500, 4, seed=3) < 0.9
    frame = coverage_by_group(exceeded, 0.95, groups, mask, names={0: "a", 1: "b"})
    assert frame["group"].tolist() == ["a", "b"]
    for name, k in (("a", 0), ("b", 1)):
        own = (groups == k) & mask
        row = frame.set_index("group").loc[name]
        assert row["observations"] == int(own.sum())
        assert row["exceedances"] == int((exceeded & own).sum())
    spoilt = coverage_by_group(exceeded ^ ~mask, 0.95, groups, mask, names={0: "a", 1: "b"})
    pd.testing.assert_frame_equal(frame, spoilt)
    none = coverage_by_group(torch.zeros_like(exceeded), 0.95, groups)
    assert none["p_value"].isna().all()
    assert coverage_by_group(exceeded, 0.95, torch.full_like(groups, -1)).empty


def test_selective_risk_is_least_for_the_oracle_and_flat_at_random():
    loss = uniforms(300)
    curve = selective_risk(loss, loss)
    assert torch.equal(curve.risk, curve.oracle)
    assert curve.gain == pytest.approx(1)
    assert curve.excess_area == 0
    # Of n uniform losses in order the mean of the first k is (k + 1) / (2 (n + 1)), and of these 1/4 and a little.
    assert curve.area == pytest.approx(0.25, abs=0.02)
    assert selective_risk(-loss, loss).gain < -0.9
    flat = selective_risk(torch.ones(300), loss)
    torch.testing.assert_close(flat.risk, torch.full_like(loss, flat.random))
    assert flat.gain == pytest.approx(0, abs=1e-12)
    random = [selective_risk(uniforms(300, seed=k), loss).gain for k in range(1, 60)]
    assert np.mean(random) == pytest.approx(0, abs=0.06)


def test_selective_risk_needs_only_the_order_and_skips_what_is_masked():
    loss, uncertainty = uniforms(50, 2), uniforms(50, 2, seed=1).round(decimals=1)
    mask = uniforms(50, 2, seed=2) < 0.8
    curve = selective_risk(uncertainty, loss, mask)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    u, x, m = (t.reshape(-1)[order] for t in (uncertainty.exp(), loss, mask))
    other = selective_risk(u, torch.where(m, x, torch.nan))
    torch.testing.assert_close(other.risk, curve.risk)
    torch.testing.assert_close(other.oracle, curve.oracle)
    assert len(curve.coverage) == int(mask.sum())
    with pytest.raises(ValueError, match="no usable element"):
        selective_risk(uncertainty, loss, torch.zeros_like(mask))


def test_rank_correlations_are_spearmans():
    a = normals(200, 3).round(decimals=1)  # with ties
    b = (0.5 * a + normals(200, 3, seed=1)).round(decimals=1)
    mask = uniforms(200, 3, seed=2) < 0.8
    result = rank_correlation(a, torch.where(mask, b, torch.nan))
    assert result.estimate == pytest.approx(stats.spearmanr(a[mask], b[mask]).statistic)
    assert result.lower < result.estimate < result.upper
    assert (result.observations, result.dates) == (int(mask.sum()), 200)
    assert rank_correlation(a.exp(), b, mask) == result
    # Of independent rows the error is that of the jackknife.
    lone, other = a[:, 0], b[:, 0]
    keep = ~torch.eye(200, dtype=torch.bool)
    each = np.array([stats.spearmanr(lone[k], other[k]).statistic for k in keep])
    jackknife = (199 * each.var()) ** 0.5
    assert rank_correlation(lone, other, block=1, draws=2000).standard_error == pytest.approx(jackknife, rel=0.1)


def test_rank_correlations_of_few_dates_or_constants_are_not_made_up():
    one = rank_correlation(uniforms(1, 20), uniforms(1, 20, seed=1))
    assert np.isfinite(one.estimate)
    assert np.isnan([one.lower, one.upper, one.standard_error]).all()
    assert np.isnan(rank_correlation(torch.ones(20), uniforms(20)).estimate)
    assert np.isnan(rank_correlation(uniforms(20), uniforms(20), torch.zeros(20, dtype=torch.bool)).estimate)
