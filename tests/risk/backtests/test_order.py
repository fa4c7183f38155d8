"""Tests that lean on the order of exceedances: durations and the dynamic quantile."""

import numpy as np
import pytest
import torch
from scipy import optimize, stats

from qtorch.risk.backtests import duration, dynamic_quantile
from qtorch.risk.backtests.duration import durations
from tests.risk.backtests.panels import forecasts, holes, share_rejected


def reference_duration(hits: np.ndarray) -> float:
    """Christoffersen and Pelletier's likelihood ratio, by scipy over both parameters."""
    at = np.flatnonzero(hits) + 1
    if len(at) < 2:
        return np.nan
    times, censored = list(np.diff(at)), [False] * (len(at) - 1)
    if at[0] > 1:
        times, censored = [at[0], *times], [True, *censored]
    if at[-1] < len(hits):
        times, censored = [*times, len(hits) - at[-1]], [*censored, True]
    d, c = np.array(times, float), np.array(censored)

    def minus(parameters):
        a, b = np.exp(parameters)
        density = b * np.log(a) + np.log(b) + (b - 1) * np.log(d) - (a * d) ** b
        return -np.where(c, -((a * d) ** b), density).sum()

    start = np.log((~c).sum() / d.sum())
    null = -minus([start, 0.0])
    best = optimize.minimize(minus, [start, 0.0], method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-12})
    return 2 * (-best.fun - null)


def test_durations_on_a_panel_with_holes_are_the_loop_over_series():
    exceeded = torch.rand(400, 7, generator=torch.Generator().manual_seed(0)) < 0.04
    exceeded[:, 4] = torch.arange(400) % 100 < 4
    exceeded[:, 5] = False
    exceeded[0, 6] = exceeded[-1, 6] = True
    mask = holes((400, 7))
    mask[[0, -1], 6] = True
    test = duration(exceeded, 0.96, mask, draws=0)
    for n in range(7):
        expected = reference_duration(exceeded[mask[:, n], n].numpy())
        assert test.statistic[n].item() == pytest.approx(expected, abs=1e-7, nan_ok=True)
        assert test.p_value[n].item() == pytest.approx(stats.chi2.sf(expected, 1), rel=1e-6, nan_ok=True)
    assert test.p_value[4] < 1e-4
    assert test.p_value[5].isnan()


def test_times_are_censored_at_both_ends():
    hit = torch.tensor([[0, 0, 1, 0, 1, 0], [1, 0, 0, 1, 0, 1], [0] * 6], dtype=torch.bool).T
    times, kind = durations(torch.ones_like(hit), hit)
    read = [
        sorted(zip(times[kind[:, n] >= 0, n].tolist(), kind[kind[:, n] >= 0, n].tolist(), strict=True))
        for n in range(3)
    ]
    assert read == [[(1, 0), (2, 1), (3, 0)], [(2, 1), (3, 1)], [(6, 0)]]


def test_simulated_durations_have_their_size_and_find_clusters():
    generator = torch.Generator().manual_seed(0)
    exceeded = torch.rand(500, 1500, generator=generator) < 0.025
    assert share_rejected(duration(exceeded, 0.975, generator=generator).p_value) == pytest.approx(0.05, abs=0.025)
    clustered = exceeded | exceeded.roll(2, 0)
    assert share_rejected(duration(clustered, 0.95, generator=generator).p_value) > 0.6


def reference_dq(hits: np.ndarray, var: np.ndarray, p: float, lags: int = 4) -> tuple[float, int]:
    h = hits - p
    x = np.column_stack([np.ones(len(h) - lags), *(h[lags - k : len(h) - k] for k in range(1, lags + 1)), var[lags:]])
    fitted = x @ np.linalg.lstsq(x, h[lags:], rcond=None)[0]
    return fitted @ fitted / (p * (1 - p)), np.linalg.matrix_rank(x)


def test_dynamic_quantile_on_a_panel_with_holes_is_the_loop_over_series():
    f = forecasts(400, 6, 0.975)
    var = f.value_at_risk.clone()
    var[:, 3] = 0.02  # constant
    var[:, 4] = 1.0  # never exceeded
    mask = holes((400, 6))
    test = dynamic_quantile(f.returns, var, 0.975, mask)
    unit = dynamic_quantile(100 * f.returns, 100 * var, 0.975, mask)
    for n in range(6):
        y, v = f.returns[mask[:, n], n].numpy(), var[mask[:, n], n].numpy()
        expected, rank = reference_dq(y <= -v, -100 * v, 1 - 0.975)
        assert rank == (6, 6, 6, 5, 1, 6)[n]
        assert test.statistic[n].item() == pytest.approx(expected, rel=1e-9)
        assert test.p_value[n].item() == pytest.approx(stats.chi2.sf(expected, rank), rel=1e-8)
    assert torch.allclose(test.statistic, unit.statistic, rtol=1e-9)


def test_dynamic_quantile_finds_a_var_that_comes_too_late():
    f = forecasts(1000, 300, 0.95, seed=2)
    assert share_rejected(dynamic_quantile(f.returns, f.value_at_risk, 0.95).p_value) < 0.1
    late = 1.645 * f.scale.mean() * torch.ones_like(f.scale)
    assert share_rejected(dynamic_quantile(f.returns, late, 0.95).p_value) > 0.8


def test_short_samples_give_no_verdict():
    f = forecasts(6, 2, 0.95)
    assert dynamic_quantile(f.returns, f.value_at_risk, 0.95).p_value.isnan().all()
    assert duration(torch.zeros(6, 2, dtype=torch.bool), 0.95).p_value.isnan().all()
