"""Basel's traffic light and P&L attribution."""

import numpy as np
import pytest
import torch
from scipy import stats

from qtorch.risk.backtests import pl_attribution, shortfall_traffic_light, traffic_light
from qtorch.risk.backtests.cumulative import violation_law
from tests.risk.backtests.panels import holes

# MAR99, the table of the three zones: cumulative probability in per cent of at most as many exceedances of 250 at 99 %.
CUMULATIVE = (8.11, 28.58, 54.32, 75.81, 89.22, 95.88, 98.63, 99.60, 99.89, 99.97, 99.99)
MULTIPLIER = (1.50, 1.50, 1.50, 1.50, 1.50, 1.70, 1.76, 1.83, 1.88, 1.92, 2.00)


def test_basels_table():
    light = traffic_light(torch.arange(250)[:, None] < torch.arange(15))
    assert light.zone.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert (100 * light.probability[:11]).tolist() == pytest.approx(CUMULATIVE, abs=0.0051)
    assert light.multiplier[:11].tolist() == pytest.approx(MULTIPLIER)
    assert light.multiplier[11:].tolist() == [2.0] * 4


def test_other_numbers_of_observations_take_the_binomial():
    exceeded = torch.rand(400, 30, generator=torch.Generator().manual_seed(0)) < 0.05
    mask = holes((400, 30), 0.3)
    light = traffic_light(exceeded, 0.95, mask)
    n, x = mask.sum(0).numpy(), (exceeded & mask).sum(0).numpy()
    assert light.probability.numpy() == pytest.approx(stats.binom.cdf(x, n, 0.05), rel=1e-9)
    assert light.count.tolist() == x.tolist()
    none = traffic_light(exceeded, 0.95, torch.zeros_like(mask))
    assert none.zone.tolist() == [-1] * 30
    assert none.multiplier.isnan().all()


def test_the_law_of_cumulative_violations_is_the_mixture_of_sums_of_uniforms():
    # Of at most x < 1: sum over k of the binomial mass times x^k / k!.
    n, p = 60, 0.025
    x = np.array([0.0, 0.3, 0.7, 0.99])
    k = np.arange(n + 1)
    factorial = np.cumprod(np.maximum(k, 1).astype(float))
    expected = [(stats.binom.pmf(k, n, p) * v**k / factorial).sum() for v in x]
    assert violation_law(n, p).cdf(torch.from_numpy(x)).numpy() == pytest.approx(expected, abs=2e-6)
    rng = np.random.default_rng(0)
    total = np.array([rng.random(m).sum() for m in rng.binomial(250, p, 40_000)])
    for q in (0.5, 0.9, 0.95, 0.99):
        at = torch.tensor(np.quantile(total, q))
        assert violation_law(250, p).cdf(at).item() == pytest.approx(q, abs=4 * np.sqrt(q * (1 - q) / 40_000))


def test_the_shortfalls_light():
    u = torch.rand(250, 4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    light = shortfall_traffic_light(u, 0.975)
    assert (light.zone > 0).double().mean().item() == pytest.approx(0.05, abs=0.014)
    assert (light.zone == 2).double().mean().item() < 0.002
    worse = torch.special.ndtr(1.8 * torch.special.ndtri(u))
    assert (shortfall_traffic_light(worse, 0.975).zone == 2).double().mean().item() > 0.3
    assert shortfall_traffic_light(u[:, :2], 0.975, torch.zeros(250, 2, dtype=torch.bool)).zone.tolist() == [-1, -1]


def test_attribution_is_scipys_on_each_desk():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((260, 6))
    b = a + np.array([0.1, 0.6, 1.5, 0.0, 0.5, 0.5]) * rng.standard_normal((260, 6))
    a[:, 4], b[:, 4] = a[:, 4].round(), b[:, 4].round()  # ties
    b[:, 5] = 3 * b[:, 5]
    mask = holes((260, 6), 0.05)
    test = pl_attribution(torch.from_numpy(a), torch.from_numpy(b), mask)
    for n in range(6):
        x, y = a[mask[:, n], n], b[mask[:, n], n]
        assert test.spearman[n].item() == pytest.approx(stats.spearmanr(x, y).statistic, rel=1e-10)
        assert test.kolmogorov_smirnov[n].item() == pytest.approx(stats.ks_2samp(x, y).statistic, abs=1e-12)
    assert test.zone[[0, 2, 3, 5]].tolist() == [0, 2, 0, 2]


def test_attributions_published_limits():
    # MAR32: 0.09 has the p-value 0.264 and 0.12 has 0.055, for 250 sessions.
    n = 250
    for shift, p_value in ((23, 0.264), (30, 0.055)):
        x = torch.arange(n, dtype=torch.float64)
        test = pl_attribution(x, x + shift)
        assert test.kolmogorov_smirnov.item() == pytest.approx(shift / n)
        if shift == 30:
            assert test.p_value.item() == pytest.approx(p_value, abs=5e-4)
            assert test.zone.item() == 1  # the limits themselves are amber
    between = [stats.kstwobign.sf(0.09 * np.sqrt(n / 2)), stats.kstwobign.sf(0.12 * np.sqrt(n / 2))]
    assert between == pytest.approx([0.264, 0.055], abs=1e-3)


def test_a_desk_without_variation_has_no_zone():
    test = pl_attribution(torch.zeros(10, 2), torch.randn(10, 2))
    assert test.zone.tolist() == [-1, -1]
    assert test.spearman.isnan().all()
