"""Tests from probability integral transforms."""

import numpy as np
import pytest
import torch
from scipy import optimize, stats

from qtorch.risk.backtests import berkowitz, du_escanciano, pit_uniformity
from qtorch.risk.backtests.laws import anderson_darling_sf, kolmogorov_limit_sf, kolmogorov_sf
from tests.risk.backtests.panels import holes, share_rejected


@pytest.fixture
def pit() -> torch.Tensor:
    return torch.rand(300, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_uniformity_on_a_panel_with_holes_is_the_loop_over_series(pit):
    mask = holes((300, 5))
    pit[:, 4] **= 1.5
    smirnov, darling = pit_uniformity(pit, mask)
    for n in range(5):
        u = np.sort(pit[mask[:, n], n].numpy())
        expected = stats.kstest(u, "uniform", method="exact")
        assert smirnov.statistic[n].item() == pytest.approx(expected.statistic, rel=1e-10)
        assert smirnov.p_value[n].item() == pytest.approx(expected.pvalue, abs=1e-6)
        i = np.arange(1, len(u) + 1)
        a = -len(u) - ((2 * i - 1) * (np.log(u) + np.log1p(-u[::-1]))).mean()
        assert darling.statistic[n].item() == pytest.approx(a, rel=1e-10)
    assert darling.p_value[4] < 1e-4


@pytest.mark.parametrize(("n", "error"), [(20, 2.1e-4), (50, 3e-5), (100, 7e-6), (250, 7e-7), (1000, 4e-8)])
def test_kolmogorovs_law_is_as_near_as_documented(n, error):
    d = np.linspace(0.2, 3.0, 300) / np.sqrt(n)
    ours = kolmogorov_sf(torch.from_numpy(d), torch.full((300,), n, dtype=torch.float64)).numpy()
    assert np.abs(ours - stats.kstwo.sf(d, n)).max() < error
    x = np.linspace(0.05, 3, 100)
    assert kolmogorov_limit_sf(torch.from_numpy(x)).numpy() == pytest.approx(stats.kstwobign.sf(x), abs=1e-12)


def test_anderson_and_darlings_law_by_simulation():
    # The limit's upper 10, 5 and 1 % points, Anderson and Darling (1954): 1.933, 2.492 and 3.857 (later 3.878).
    point = torch.tensor([1.933, 2.492, 3.878], dtype=torch.float64)
    p = anderson_darling_sf(point, torch.full_like(point, 1e9))
    assert p.tolist() == pytest.approx([0.10, 0.05, 0.01], abs=2e-4)
    u = np.sort(np.random.default_rng(0).random((40_000, 30)), 1)
    i = np.arange(1, 31)
    a = -30 - ((2 * i - 1) * (np.log(u) + np.log1p(-u[:, ::-1]))).mean(1)
    p = anderson_darling_sf(torch.from_numpy(a), torch.full((40_000,), 30.0, dtype=torch.float64)).numpy()
    for size in (0.01, 0.05, 0.2, 0.5, 0.9):
        assert (p < size).mean() == pytest.approx(size, abs=4 * np.sqrt(size * (1 - size) / 40_000))


def test_berkowitz_on_a_panel_with_holes_is_the_regression_of_each_series(pit):
    mask = holes((300, 5))
    test = berkowitz(pit, mask)
    for n in range(5):
        z = stats.norm.ppf(pit[mask[:, n], n].numpy())
        x = np.column_stack([np.ones(len(z) - 1), z[:-1]])
        residual = z[1:] - x @ np.linalg.lstsq(x, z[1:], rcond=None)[0]
        null, best = stats.norm.logpdf(z[1:]).sum(), stats.norm.logpdf(residual, scale=residual.std()).sum()
        assert test.statistic[n].item() == pytest.approx(2 * (best - null), rel=1e-8)
        assert test.p_value[n].item() == pytest.approx(stats.chi2.sf(2 * (best - null), 3), rel=1e-8)


def test_berkowitz_tail_maximises_the_censored_likelihood(pit):
    pit = pit.clone()
    pit[:, 3] = torch.special.ndtr(1.6 * torch.special.ndtri(pit[:, 3]))
    pit[:, 4] = 0.1 + 0.9 * pit[:, 4]  # no exceedance
    mask = holes((300, 5))
    test = berkowitz(pit, mask, level=0.95)
    c = stats.norm.ppf(0.05)
    for n in range(4):
        z = stats.norm.ppf(pit[mask[:, n], n].numpy())
        tail = z[z <= c]

        censored = (z > c).sum()

        def minus(parameters, tail=tail, censored=censored):
            mu, sigma = parameters[0], np.exp(parameters[1])
            return -(stats.norm.logpdf(tail, mu, sigma).sum() + censored * stats.norm.logsf(c, mu, sigma))

        best = optimize.minimize(minus, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-11})
        expected = 2 * (minus([0.0, 0.0]) - best.fun)
        assert test.statistic[n].item() == pytest.approx(expected, abs=1e-6)
        assert test.p_value[n].item() == pytest.approx(stats.chi2.sf(expected, 2), rel=1e-5)
    assert test.p_value[3] < 0.01
    assert test.statistic[4].item() == pytest.approx(-2 * mask[:, 4].sum().item() * np.log(0.95), rel=1e-9)


def test_cumulative_violations_by_hand(pit):
    mask = holes((300, 5))
    unconditional, conditional = du_escanciano(pit, 0.9, mask, lags=3, draws=0)
    for n in range(5):
        u = pit[mask[:, n], n].numpy()
        h, t = np.where(u <= 0.1, 1 - u / 0.1, 0), len(u)
        expected = np.sqrt(t) * (h.mean() - 0.05) / np.sqrt(0.1 * (1 / 3 - 0.025))
        assert unconditional.statistic[n].item() == pytest.approx(expected, rel=1e-9)
        assert unconditional.p_value[n].item() == pytest.approx(2 * stats.norm.sf(abs(expected)), rel=1e-8)
        d = h - 0.05
        gamma = [(d[j:] * d[: t - j]).sum() / (t - j) for j in range(4)]
        expected = t * sum((g / gamma[0]) ** 2 for g in gamma[1:])
        assert conditional.statistic[n].item() == pytest.approx(expected, rel=1e-9)
        assert conditional.p_value[n].item() == pytest.approx(stats.chi2.sf(expected, 3), rel=1e-8)


def test_sizes_and_powers():
    generator = torch.Generator().manual_seed(0)
    u = torch.rand(250, 1500, generator=generator, dtype=torch.float64)
    wide = torch.special.ndtr(1.4 * torch.special.ndtri(u))

    def results(u):
        return (
            *pit_uniformity(u),
            *du_escanciano(u, 0.95, generator=generator),
            berkowitz(u),
            berkowitz(u, level=0.95),
        )

    for result, power in zip(results(u), results(wide), strict=True):
        assert share_rejected(result.p_value) == pytest.approx(0.05, abs=0.025), result.name
        if result.name != "Du-Escanciano conditional":
            assert share_rejected(power.p_value) > 0.5, result.name


def test_no_observation_gives_no_verdict_and_a_wrong_transform_is_refused(pit):
    nothing = torch.zeros_like(pit, dtype=torch.bool)
    for result in (
        *pit_uniformity(pit, nothing),
        *du_escanciano(pit, 0.95, nothing),
        berkowitz(pit, nothing),
        berkowitz(pit, nothing, level=0.95),
    ):
        assert result.p_value.isnan().all(), result.name
    pit[7, 2] = 1.2
    for test in (pit_uniformity, berkowitz, lambda u: du_escanciano(u, 0.95)):
        with pytest.raises(ValueError, match=r"pit\[7, 2\] = 1.2, and 1 in all"):
            test(pit)
