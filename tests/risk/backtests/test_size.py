"""Rejection rates of true models, with and without windows that overlap; the docstrings' figures come from here."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy import stats

from qtorch.risk.backtests import (
    BacktestResult,
    acerbi_szekely,
    acerbi_szekely_z3,
    berkowitz,
    christoffersen,
    diebold_mariano,
    du_escanciano,
    duration,
    dynamic_quantile,
    es_regression,
    exceedances,
    kupiec,
    mcneil_frey,
    model_confidence_set,
    nolde_ziegel,
    pit_uniformity,
    time_until_first_failure,
)
from tests.risk.backtests.panels import normal_tail, share_rejected, student_tail


def windows(sessions: int, series: int, span: int, df: float | None, seed: int = 0) -> np.ndarray:
    """Sums of `span` independent returns, one ending every session."""
    rng = np.random.default_rng(seed)
    shape = (sessions + span - 1, series)
    path = (rng.standard_normal(shape) if df is None else rng.standard_t(df, shape)).cumsum(0)
    return path[span - 1 :] - np.concatenate([np.zeros((1, series)), path[: sessions - 1]])


def true_model(sessions: int, series: int, level: float, span: int, df: float | None, seed: int = 0):
    """Returns, VaR, ES, volatility and transforms of windows whose law is known, or taken from many of them."""
    y = windows(sessions, series, span, df, seed)
    if span == 1:
        var, es = normal_tail(level) if df is None else student_tail(level, df)
        u = (stats.norm if df is None else stats.t(df)).cdf(y)
    else:
        many = np.sort(windows(1500, 1500, span, df, seed + 1).ravel())
        tail = int(len(many) * (1 - level))
        var, es = -many[tail], -many[:tail].mean()
        u = np.clip(np.searchsorted(many, y) / len(many), 1e-6, 1 - 1e-6)
    scale = np.repeat(1 + 0.3 * np.sin(np.arange(sessions) / 40)[:, None], series, axis=1)
    return tuple(torch.from_numpy(x) for x in (y * scale, var * scale, es * scale, scale, u))


def all_tests(sample: tuple[torch.Tensor, ...], level: float, overlap: int) -> Iterator[BacktestResult]:
    y, var, es, scale, u = sample
    hit = exceedances(y, var)
    options = {"overlap": overlap, "generator": torch.Generator().manual_seed(3)}
    yield kupiec(hit, level, overlap=overlap)
    yield time_until_first_failure(hit, level, overlap=overlap)
    yield from christoffersen(hit, level, overlap=overlap)
    yield duration(hit, level, **options)
    yield dynamic_quantile(y, var, level, **options)
    yield from acerbi_szekely(y, var, es, level, **options)
    yield mcneil_frey(y, var, es, level, **options)
    yield from es_regression(y, var, es, level, overlap=overlap)[:2]
    for one_sided in (False, True):
        for general in (False, True):
            yield nolde_ziegel(y, var, es, level, one_sided=one_sided, general=general, scale=scale, overlap=overlap)
    yield from du_escanciano(u, level, **options)
    yield berkowitz(u, overlap=overlap)
    yield berkowitz(u, level=level, overlap=overlap)
    yield from pit_uniformity(u, overlap=overlap)


def test_ten_day_windows_are_rejected_no_more_often_than_one_day_returns():
    sample = true_model(400, 100, 0.975, 10, None)
    for result in all_tests(sample, 0.975, 10):
        assert share_rejected(result.p_value) < 0.15, result.name
    y, var, es, _, u = sample
    hit = exceedances(y, var)
    naive = (kupiec(hit, 0.975), *christoffersen(hit, 0.975), dynamic_quantile(y, var, 0.975), berkowitz(u))
    for result in (*naive, *pit_uniformity(u), nolde_ziegel(y, var, es, 0.975), es_regression(y, var, es, 0.975).joint):
        assert share_rejected(result.p_value) > 0.2, result.name
    # Losses of windows: differences of squares.
    squares = y**2
    difference = squares - squares.roll(1, 1)
    assert share_rejected(diebold_mariano(difference, overlap=10).p_value) < 0.15
    assert share_rejected(diebold_mariano(difference, lags=0).p_value) > 0.2


# More than 5 % by what the docstrings say: discrete statistics, and chi-squared laws of few exceedances.
LOOSER = {
    ("Kupiec proportion of failures", 0.99): 0.115,
    ("Kupiec proportion of failures", 0.975): 0.085,
    ("Kupiec time until first failure", 0.99): 0.16,
    ("Engle-Manganelli dynamic quantile", 0.99): 0.20,
    ("Engle-Manganelli dynamic quantile", 0.975): 0.11,
    ("Engle-Manganelli dynamic quantile", 0.95): 0.08,
}


@pytest.mark.slow
@pytest.mark.parametrize("df", [None, 5])
@pytest.mark.parametrize("level", [0.99, 0.975, 0.95])
@pytest.mark.parametrize("sessions", [250, 500, 1500])
def test_sizes(sessions, level, df):
    for result in all_tests(true_model(sessions, 2000, level, 1, df), level, 1):
        rate = share_rejected(result.p_value)
        print(f"{sessions} {level} {df} {result.name}: {rate:.3f}")
        assert rate < LOOSER.get((result.name, level), 0.08), result.name


@pytest.mark.slow
@pytest.mark.parametrize("df", [None, 4])
@pytest.mark.parametrize("level", [0.99, 0.975, 0.95])
@pytest.mark.parametrize("sessions", [250, 500, 1500])
def test_sizes_of_ten_day_windows(sessions, level, df):
    for result in all_tests(true_model(sessions, 800, level, 10, df), level, 10):
        rate = share_rejected(result.p_value)
        print(f"{sessions} {level} {df} {result.name}: {rate:.3f}")
        assert rate < 0.12, result.name


@pytest.mark.slow
@pytest.mark.parametrize(("sessions", "level"), [(250, 0.99), (500, 0.975), (1500, 0.95)])
def test_powers_against_a_scale_a_quarter_larger(sessions, level):
    y, var, es, scale, u = true_model(sessions, 1000, level, 1, None)
    wider = torch.special.ndtr(1.25 * torch.special.ndtri(u))
    weak = ("until", "independence", "duration", "Z1", "McNeil", "general, two-sided", "Du-Escanciano conditional")
    for result in all_tests((1.25 * y, var, es, scale, wider), level, 1):
        rate = share_rejected(result.p_value)
        print(f"{sessions} {level} {result.name}: {rate:.3f}")
        if not any(word in result.name for word in weak):
            assert rate > (0.2 if result.name == "ES regression" else 0.45), result.name


@pytest.mark.slow
def test_sizes_and_power_of_z3():
    law = torch.distributions.Normal(torch.zeros(1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64))
    for sessions in (250, 500):
        for level in (0.975, 0.99):
            y = torch.from_numpy(windows(sessions, 2000, 1, None))
            size = share_rejected(acerbi_szekely_z3(y, law, level).p_value)
            power = share_rejected(acerbi_szekely_z3(1.25 * y, law, level).p_value)
            print(f"{sessions} {level}: size {size:.3f}, power {power:.3f}")
            assert size < 0.075
            assert power > 0.6


@pytest.mark.slow
def test_sizes_of_comparisons():
    for sessions in (250, 500, 1500):
        y = torch.from_numpy(windows(sessions, 4000, 10, None))
        difference = y**2 - y.roll(1, 1) ** 2
        rate = share_rejected(diebold_mariano(difference, overlap=10).p_value)
        independent = share_rejected(diebold_mariano(torch.from_numpy(windows(sessions, 4000, 1, None))).p_value)
        print(f"{sessions}: ten-day windows {rate:.3f}, independent {independent:.3f}")
        assert rate < 0.07
        assert independent < 0.07
        losses = torch.randn(sessions, 5, 300, dtype=torch.float64) + torch.randn(sessions, 1, 300)
        for method in ("range", "max"):
            missed = (~model_confidence_set(losses, method=method, draws=500).included()).any(0).double().mean().item()
            print(f"{sessions}: equal models missed by the {method} set {missed:.3f}")
            assert missed < 0.22
