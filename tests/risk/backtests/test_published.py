"""One worked example of each backtest, from its paper or a reference package's documentation.

Where neither prints numbers that its inputs can be had for, the example is a direct calculation on small data, and says
so. Kupiec's regions, Basel's table of cumulative probabilities, Acerbi and Szekely's critical values and Benjamini and
Hochberg's fifteen hypotheses are in the files of those tests.
"""

import random

import numpy as np
import pytest
import torch
from scipy import optimize, stats
from torch.distributions import Normal

from qtorch.risk import LIQUIDITY_HORIZONS, RiskFactorCategory, liquidity_horizon_es
from qtorch.risk.backtests import (
    acerbi_szekely,
    acerbi_szekely_z3,
    benjamini_hochberg,
    berkowitz,
    christoffersen,
    diebold_mariano,
    du_escanciano,
    duration,
    dynamic_quantile,
    es_regression,
    kupiec,
    mcneil_frey,
    model_confidence_set,
    nolde_ziegel,
    pit_uniformity,
    pl_attribution,
    shortfall_traffic_light,
    time_until_first_failure,
    traffic_light,
)


def double(x) -> torch.Tensor:
    return torch.as_tensor(np.asarray(x), dtype=torch.float64)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def equity_index() -> torch.Tensor:
    """Exceedances with the counts that MATLAB's varbacktest prints of its EquityIndex beside Normal95.

    1,043 observations with 57 failures, the first at 58, of which 4 follow another; neither end is one.
    """
    exceeded = torch.zeros(1043, dtype=torch.bool)
    exceeded[57 + 15 * torch.arange(53)] = True
    exceeded[58 + 15 * torch.arange(4)] = True
    return exceeded


def test_the_counts_of_the_equity_index():
    x = equity_index()
    assert (int(x.sum()), int(x.int().argmax()) + 1) == (57, 58)
    pairs = [int((x[:-1] == before).logical_and(x[1:] == now).sum()) for before in (0, 1) for now in (0, 1)]
    assert pairs == [932, 53, 53, 4]


# MathWorks, Risk Management Toolbox, pages varbacktest.pof, .tuff, .cci, .cc and .tl.
def test_proportion_of_failures():
    test = kupiec(equity_index(), 0.95)
    assert (test.statistic.item(), test.p_value.item()) == pytest.approx((0.46147, 0.49694), abs=5e-6)


def test_time_until_first_failure():
    test = time_until_first_failure(equity_index(), 0.95)
    assert (test.statistic.item(), test.p_value.item()) == pytest.approx((1.7354, 0.18773), abs=5e-5)


def test_independence_and_conditional_coverage():
    independence, joint = christoffersen(equity_index(), 0.95)
    assert (independence.statistic.item(), independence.p_value.item()) == pytest.approx((0.25866, 0.61104), abs=5e-6)
    assert (joint.statistic.item(), joint.p_value.item()) == pytest.approx((0.72013, 0.69763), abs=5e-6)


def test_traffic_light_of_other_lengths_and_levels():
    light = traffic_light(equity_index(), 0.95)
    assert light.probability.item() == pytest.approx(0.77913, abs=5e-6)
    assert light.zone.item() == 0


def test_basels_zones_and_multipliers():
    # Basel Committee (2019), MAR99, table 2: green to 4 exceptions of 250, amber from 5, red from 10.
    multiplier = {4: 1.50, 5: 1.70, 6: 1.76, 7: 1.83, 8: 1.88, 9: 1.92, 10: 2.00}
    light = traffic_light(torch.arange(250)[:, None] < torch.tensor(list(multiplier)))
    assert light.zone.tolist() == [0, 1, 1, 1, 1, 1, 2]
    assert light.multiplier.tolist() == pytest.approx(list(multiplier.values()))


def test_durations_of_ball_bearings():
    # Lieblein and Zelen's (1956) 23 ball bearings, in hundredths of a million revolutions, as the times between
    # exceedances; the maximum likelihood estimate of the Weibull exponent in the literature is 2.102. The likelihood
    # ratio of exponent 1 is scipy's.
    life = [17.88, 28.92, 33.00, 41.52, 42.12, 45.60, 48.48, 51.84, 51.96, 54.12, 55.56, 67.80]
    life += [68.64, 68.64, 68.88, 84.12, 93.12, 98.64, 105.12, 105.84, 127.92, 128.04, 173.40]
    life = np.array(life)
    exponent, _, scale = stats.weibull_min.fit(life, floc=0)
    assert exponent == pytest.approx(2.102, abs=5e-4)
    expected = stats.weibull_min.logpdf(life, exponent, 0, scale) - stats.expon.logpdf(life, scale=life.mean())
    at = np.concatenate([[0], np.cumsum(np.round(100 * life).astype(int))])
    exceeded = torch.zeros(at[-1] + 1, dtype=torch.bool)
    exceeded[at] = True
    test = duration(exceeded, 0.99, draws=0)
    assert test.statistic.item() == pytest.approx(2 * expected.sum(), rel=1e-6)
    assert test.p_value.item() == pytest.approx(stats.chi2.sf(2 * expected.sum(), 1), rel=1e-5)


def test_durations_that_are_censored():
    # By scipy's fit of the Weibull law to censored data: first exceedance at 6, none in the last 30 days.
    times, ends = [3, 1, 20, 2, 1, 45, 7, 4], [6, 30]
    exceeded = torch.zeros(6 + sum(times) + 30, dtype=torch.bool)
    exceeded[5 + np.concatenate([[0], np.cumsum(times)])] = True
    data = stats.CensoredData(uncensored=times, right=ends)
    exponent, _, scale = stats.weibull_min.fit(data, floc=0)

    def log_likelihood(exponent, scale):
        law = stats.weibull_min(exponent, scale=scale)
        return law.logpdf(times).sum() + law.logsf(ends).sum()

    expected = 2 * (log_likelihood(exponent, scale) - log_likelihood(1, (sum(times) + sum(ends)) / len(times)))
    assert duration(exceeded, 0.95, draws=0).statistic.item() == pytest.approx(expected, abs=1e-6)


def test_dynamic_quantile():
    # Engle and Manganelli (2004), theorem 5, on 12 observations with one lag by ordinary least squares: DQ is the
    # explained sum of squares over p (1 - p).
    y = np.array([0.4, -1.7, -2.1, 0.3, 1.1, -0.2, -1.9, 0.8, -0.5, -2.6, 0.1, 0.9])
    var = np.array([1.5, 1.4, 1.6, 1.9, 1.8, 1.7, 1.6, 1.8, 1.7, 1.6, 2.0, 1.9])
    hit = (y <= -var) - 0.1
    x = np.column_stack([np.ones(11), hit[:-1], var[1:]])
    coefficients = np.linalg.solve(x.T @ x, x.T @ hit[1:])
    expected = coefficients @ (x.T @ x) @ coefficients / (0.1 * 0.9)
    test = dynamic_quantile(double(y), double(var), 0.9, lags=1)
    assert test.statistic.item() == pytest.approx(expected, rel=1e-10)
    assert test.p_value.item() == pytest.approx(stats.chi2.sf(expected, 3), rel=1e-8)


def one_exceedance(statistics: list[float], per: float, law, level: float) -> tuple[torch.Tensor, ...]:
    """1,966 days of constant VaR and ES with one loss that makes `per` the divisor of these statistics."""
    var = -law.ppf(1 - level)
    es = -law.expect(lambda x: x, ub=-var, conditional=True)
    y = torch.zeros(1966, len(statistics), dtype=torch.float64)
    y[3] = -es * per * (1 - double(statistics))
    return y, torch.full_like(y, var), torch.full_like(y, es)


# MathWorks, Risk Management Toolbox, pages esbacktest.unconditionalnormal and .unconditionalt: Z2 = -0.38265 of 1,966
# observations at 97.5 % has the p-values 0.0054099 and 0.018566, and the critical values at 1 % are -0.34639 and
# -0.42986. Both sides are simulated.
@pytest.mark.parametrize(
    ("law", "tail_index", "points"),
    [
        (stats.norm, 0.0, {-0.38265: 0.0054, -0.34639: 0.01}),
        (stats.t(3), 1 / 3, {-0.38265: 0.0186, -0.42986: 0.01}),
    ],
)
def test_z2(law, tail_index, points):
    sample = one_exceedance(list(points), 1966 * 0.025, law, 0.975)
    test = acerbi_szekely(*sample, 0.975, tail_index=tail_index, draws=5000, generator=seeded()).z2
    assert test.statistic.tolist() == pytest.approx(list(points))
    assert test.p_value.tolist() == pytest.approx(list(points.values()), abs=0.004)


def test_z1():
    # MathWorks, page esbacktestbysim.conditional: at 1,966 observations of Student's t with 10 degrees of freedom the
    # critical values of Z1 at 5 % are -0.043941 (95 %) and -0.052575 (97.5 %), from 1,000 samples.
    for level, critical in ((0.95, -0.043941), (0.975, -0.052575)):
        sample = one_exceedance([critical], 1, stats.t(10), level)
        test = acerbi_szekely(*sample, level, tail_index=0.1, draws=3000, generator=seeded()).z1
        assert test.statistic.item() == pytest.approx(critical)
        assert test.p_value.item() == pytest.approx(0.05, abs=0.02)


def test_z3():
    # With one law for all days Z3 compares the k lowest with normal order statistics, whose means of 20 are -1.86748
    # and -1.40760 (Harter 1961, Expected values of normal order statistics, Biometrika 48).
    y = np.linspace(-1.2, 2.0, 20)
    y[[4, 11]] = -2.5, -1.9
    test = acerbi_szekely_z3(double(y), Normal(double(0.0), 1.0), 0.9, draws=4000, generator=seeded())
    assert test.statistic.item() == pytest.approx(1 - (2.5 + 1.9) / (1.86748 + 1.40760), abs=1e-5)
    lowest = np.sort(np.random.default_rng(0).standard_normal((20_000, 20)), 1)[:, :2].sum(1)
    assert test.p_value.item() == pytest.approx((lowest <= -4.4).mean(), abs=0.025)


def esback_sample() -> tuple[torch.Tensor, ...]:
    """Returns, VaR, ES and volatilities of 40 days, 16 of them exceedances, as in test_er_cc of esback in Fortran."""
    i = np.arange(1, 41)
    r = -0.02 + 0.012 * np.sin(0.73 * i) + 0.006 * np.cos(0.19 * i)
    q = -0.021 + 0.002 * np.sin(0.17 * i)
    e = q - 0.008 - 0.001 * np.cos(0.31 * i)
    s = 0.012 + 0.001 * np.sin(0.11 * i)
    return double(r), double(-q), double(-e), double(s)


def test_conditional_calibration():
    # The p-values that the tests of the R package esback's Fortran translation expect of cc_backtest at 10 %.
    *risk, scale = esback_sample()
    simple = nolde_ziegel(*risk, 0.9, tail_index=None)
    general = nolde_ziegel(*risk, 0.9, general=True, scale=scale, tail_index=None)
    assert simple.p_value.item() == pytest.approx(0.0042733555437817665, rel=1e-10)
    assert general.p_value.item() == pytest.approx(0.8787136534102065, rel=1e-10)


def test_exceedance_residuals():
    # By hand, and the one-sided p-values that esback's er_backtest gives in its Fortran translation, from 250 samples.
    y, var, es, scale = esback_sample()
    for unit, p_value in ((torch.ones_like(y), 0.448), (scale, 0.460)):
        test = mcneil_frey(y, var, es, 0.9, scale=unit, draws=5000, generator=seeded())
        r = ((-y - es) / unit)[y <= -var].numpy()
        assert len(r) == 16
        assert test.statistic.item() == pytest.approx(stats.ttest_1samp(r, 0).statistic, rel=1e-10)
        assert test.p_value.item() == pytest.approx(p_value, abs=0.1)


def test_es_regression():
    # esback's strict regression on 120 days, from the tests of its Fortran translation: realised ES = 1.0108174 ES -
    # 0.2291886 at 10 %, by another estimator.
    i = np.arange(1, 121)
    x = 0.7 * (np.sin(0.37 * i) + 0.5 * np.cos(0.11 * i))
    y, es = double(x - 1.8 + 0.25 * np.sin(1.7 * i)), double(2.25 - x)
    intercept, slope = es_regression(y, None, es, 0.9).coefficients.tolist()
    for forecast in (1.5, 2.0, 2.5, 3.0):
        assert intercept + slope * forecast == pytest.approx(1.0108174 * forecast - 0.2291886, rel=0.025)


def test_es_regression_on_a_constant():
    # By hand: with constant forecasts the realised ES is the mean of Z = q + max(L - q, 0) / p, whatever q near the
    # quantile, and the null's variance of Z / ES that of exponential excesses.
    rng = np.random.default_rng(0)
    loss, p = rng.exponential(size=2000), 0.1
    var, es = -np.log(p), 1 - np.log(p)
    ones = torch.ones(2000, dtype=torch.float64)
    test = es_regression(double(-loss), var * ones, es * ones, 0.9, tail_index=0.0)
    q = np.quantile(loss, 1 - p)
    mean = (q + np.maximum(loss - q, 0) / p).mean() / es
    expected = (mean - 1) ** 2 / ((1 / es) ** 2 * (2 / p - 1) / 2000)
    assert test.joint.statistic.item() == pytest.approx(expected, rel=0.02)
    assert test.joint.p_value.item() == pytest.approx(stats.chi2.sf(test.joint.statistic.item(), 1), rel=1e-8)


# MathWorks, Risk Management Toolbox, page esbacktestbyde.unconditionalde: mean cumulative violations of 1,966
# observations of the S&P beside Student's t with 10 degrees of freedom, and their large-sample p-values.
@pytest.mark.parametrize(
    ("level", "mean", "p_value"),
    [(0.95, 0.028821, 0.181), (0.975, 0.015998, 0.086278), (0.99, 0.0080997, 0.016871)],
)
def test_cumulative_violations(level, mean, p_value):
    p = 1 - level
    pit = torch.full((1966,), 0.5, dtype=torch.float64)
    pit[:80] = p * (1 - mean * 1966 / 80)
    test = du_escanciano(pit, level, draws=0).unconditional
    assert test.p_value.item() == pytest.approx(p_value, abs=2e-4)


def test_autocorrelated_cumulative_violations():
    # Du and Escanciano (2017), by hand: autocovariances about p/2 with the divisor n - j, two lags.
    u = np.array([0.9, 0.02, 0.05, 0.7, 0.3, 0.01, 0.4, 0.08, 0.03, 0.6, 0.5, 0.2])
    d = np.where(u <= 0.1, 1 - u / 0.1, 0) - 0.05
    gamma = [d @ d / 12, d[1:] @ d[:-1] / 11, d[2:] @ d[:-2] / 10]
    expected = 12 * ((gamma[1] / gamma[0]) ** 2 + (gamma[2] / gamma[0]) ** 2)
    test = du_escanciano(double(u), 0.9, lags=2, draws=0).conditional
    assert test.statistic.item() == pytest.approx(expected, rel=1e-10)
    assert test.p_value.item() == pytest.approx(np.exp(-expected / 2), rel=1e-8)


def test_traffic_light_of_the_shortfall():
    # Costanzino and Curran's (2018) law by its definition: binomial numbers of uniforms, whose sums have the
    # distribution function sum_j (-1)^j C(k, j) max(x - j, 0)^k / k!.
    n, p = 100, 0.025

    def irwin_hall(x, k):
        j = np.arange(k + 1)
        terms = (-1.0) ** j * stats.binom.pmf(j, k, 0.5) * 2.0**k * np.maximum(x - j, 0) ** k
        return terms.sum() / np.prod(np.arange(1.0, k + 1)) if k else 1.0

    for total, zone in ((1.25, 0), (2.6, 0), (3.2, 1), (6.2, 2)):
        pit = torch.full((n,), 0.5, dtype=torch.float64)
        pit[:8] = p * (1 - total / 8)
        expected = sum(stats.binom.pmf(k, n, p) * irwin_hall(total, k) for k in range(16))
        light = shortfall_traffic_light(pit)
        assert light.probability.item() == pytest.approx(expected, abs=3e-6)
        assert light.zone.item() == zone


def test_normal_scores():
    # Berkowitz (2001), by hand: the regression of six scores on the one before, in scipy; and in the tail, where its
    # maximum over mu and sigma is found by scipy.
    z = np.array([0.3, -1.2, -0.4, 1.9, 0.7, -2.2, 0.1])
    line = stats.linregress(z[:-1], z[1:])
    residual = z[1:] - line.intercept - line.slope * z[:-1]
    expected = 2 * (stats.norm.logpdf(residual, scale=residual.std()).sum() - stats.norm.logpdf(z[1:]).sum())
    pit = double(stats.norm.cdf(z))
    test = berkowitz(pit)
    assert test.statistic.item() == pytest.approx(expected, rel=1e-9)
    assert test.p_value.item() == pytest.approx(stats.chi2.sf(expected, 3), rel=1e-8)

    data = stats.CensoredData(uncensored=[-1.2, -2.2], right=[stats.norm.ppf(0.15)] * 5)
    mu, sigma = stats.norm.fit(data)

    def log_likelihood(mu, sigma):
        return stats.norm.logpdf([-1.2, -2.2], mu, sigma).sum() + 5 * stats.norm.logsf(stats.norm.ppf(0.15), mu, sigma)

    best = optimize.minimize(lambda x: -log_likelihood(x[0], abs(x[1])), [mu, sigma], method="Nelder-Mead", tol=1e-12)
    tail = berkowitz(pit, level=0.85)
    assert tail.statistic.item() == pytest.approx(2 * (-best.fun - log_likelihood(0, 1)), abs=1e-8)


def test_transforms_of_leghorn_chicks():
    # D'Agostino and Stephens (1986), Goodness-of-Fit Techniques, pages 546 and 125: 20 weights have A^2 = 0.214 about
    # their own mean and deviation. Kolmogorov's 5 % point at n = 20 is 0.29408 (Miller 1956, JASA 51, table 1).
    weight = np.array(
        [156, 162, 168, 182, 186, 190, 190, 196, 202, 210, 214, 220, 226, 230, 230, 236, 236, 242, 246, 270]
    )
    u = stats.norm.cdf(weight, weight.mean(), weight.std(ddof=1))
    assert pit_uniformity(double(u)).anderson_darling.statistic.item() == pytest.approx(0.214, abs=5e-4)
    shifted = np.arange(1, 21) / 20 - 0.29408
    shifted[shifted < 0] = np.arange(1, (shifted < 0).sum() + 1) / 1000
    smirnov = pit_uniformity(double(shifted)).kolmogorov_smirnov
    assert smirnov.statistic.item() == pytest.approx(0.29408)
    assert smirnov.p_value.item() == pytest.approx(0.05, abs=3e-4)


# MAR32 and Commission Delegated Regulation (EU) 2022/2059, article 9: green above 0.80 and below 0.09, red below 0.70
# or above 0.12.
@pytest.mark.parametrize(("reversed_", "zone"), [(115, 0), (118, 1), (130, 1), (134, 2)])
def test_attribution_by_correlation(reversed_, zone):
    # By hand: 1 - 6 sum d^2 / (n (n^2 - 1)), and m of n ranks in reverse have sum d^2 = m (m^2 - 1) / 3.
    n, m = 250, reversed_
    rank = np.arange(n)
    rank[:m] = rank[:m][::-1]
    test = pl_attribution(torch.arange(n).double(), double(rank))
    assert test.spearman.item() == pytest.approx(1 - 2 * m * (m**2 - 1) / (n * (n**2 - 1)), rel=1e-10)
    assert test.kolmogorov_smirnov.item() == 0
    assert test.zone.item() == zone


@pytest.mark.parametrize(("distance", "zone"), [(0.088, 0), (0.1, 1), (0.12, 1), (0.124, 2)])
def test_attribution_by_distance(distance, zone):
    x = torch.arange(250, dtype=torch.float64)
    test = pl_attribution(x, x + distance * 250)
    assert (test.spearman.item(), test.kolmogorov_smirnov.item()) == pytest.approx((1.0, distance))
    assert test.zone.item() == zone


# The README of github.com/johntwk/Diebold-Mariano-Test: absolute, squared and quartic errors of random permutations,
# seed 123, with the correction of Harvey, Leybourne and Newbold.
@pytest.mark.parametrize(
    ("power", "statistic", "p_value"),
    [
        (1, 1.3275742446369585, 0.18737195617455585),
        (2, 1.2112523589452902, 0.22868210381769466),
        (4, 0.9124498079287283, 0.36374861695187799),
    ],
)
def test_equal_accuracy(power, statistic, p_value):
    source = random.Random(123)

    def permutation():
        """Python 2's random.sample of range(100)."""
        pool, drawn = list(range(100)), []
        for left in range(100, 0, -1):
            j = int(source.random() * left)
            drawn.append(pool[j])
            pool[j] = pool[left - 1]
        return np.array(drawn, dtype=float)

    actual, first, second = permutation(), permutation(), permutation()
    difference = np.abs(actual - first) ** power - np.abs(actual - second) ** power
    test = diebold_mariano(double(difference), lags=0, small_sample=True)
    assert test.statistic.item() == pytest.approx(statistic, rel=1e-12)
    assert test.p_value.item() == pytest.approx(p_value, rel=1e-10)


@pytest.mark.parametrize("method", ["range", "max"])
def test_confidence_set_of_two(method):
    # Hansen, Lunde and Nason (2011) with two models and independent resampling is a bootstrap of the t-ratio of their
    # difference, nearly normal for 400 days: two-sided by the range, one-sided twice over by the maximum of +-t.
    rng = np.random.default_rng(0)
    losses = rng.standard_normal((400, 2)) + np.array([0.12, 0.0])
    d = losses[:, 0] - losses[:, 1]
    t = d.mean() / (d.std() / 20)
    test = model_confidence_set(double(losses), method=method, block=1, draws=4000, generator=seeded())
    assert test.p_value.tolist() == pytest.approx([2 * stats.norm.sf(t), 1.0], abs=0.02)


def test_false_discoveries():
    # Benjamini and Hochberg (1995), section 3.2: p(4) = 0.0095 is the largest below 4 / 15 of 5 %.
    p = [
        0.0001,
        0.0004,
        0.0019,
        0.0095,
        0.0201,
        0.0278,
        0.0298,
        0.0344,
        0.0459,
        0.3240,
        0.4262,
        0.5719,
        0.6528,
        0.7590,
        1,
    ]
    assert (benjamini_hochberg(double(p)) <= 0.05).tolist() == [True] * 4 + [False] * 11


def test_liquidity_horizons():
    # MAR33.4, and by hand: a small-cap book beside large caps, 100 and 60 at ten sessions.
    assert LIQUIDITY_HORIZONS == (10, 20, 40, 60, 120)
    assert RiskFactorCategory.EQUITY_PRICE_LARGE_CAP.liquidity_horizon == 10
    assert RiskFactorCategory.EQUITY_PRICE_SMALL_CAP.liquidity_horizon == 20
    es = double([100.0, 60.0, 0.0, 0.0, 0.0])
    assert liquidity_horizon_es(es).item() == pytest.approx(np.sqrt(100**2 + (60 * np.sqrt((20 - 10) / 10)) ** 2))
    longest = double([100.0, 100.0, 100.0, 100.0, 100.0])
    assert liquidity_horizon_es(longest).item() == pytest.approx(100 * np.sqrt(120 / 10))
