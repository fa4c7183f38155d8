"""Bootstrapped intervals against arch's, and how often they hold the truth."""

import numpy as np
import pytest
import torch

from qtorch.backtest import block_length, sharpe_interval, volatility_interval
from qtorch.backtest.intervals import _interval


def autoregressive(phi: float, n: int, seed: int = 0) -> np.ndarray:
    e = np.random.default_rng(seed).standard_normal(n + 100)
    for t in range(1, len(e)):
        e[t] += phi * e[t - 1]
    return e[100:]


@pytest.mark.parametrize("phi", [0.1, 0.3, 0.6, 0.9, -0.4])
@pytest.mark.parametrize("n", [250, 1000, 2012])
def test_block_lengths_are_those_of_arch(phi, n):
    bootstrap = pytest.importorskip("arch.bootstrap")
    x = autoregressive(phi, n)
    expected = max(bootstrap.optimal_block_length(x)["stationary"].iloc[0], 1.0)
    assert block_length(torch.tensor(x)) == pytest.approx(expected, rel=1e-9)


def test_block_lengths_have_bounds():
    assert block_length(torch.zeros(50)) == 1.0
    assert block_length(torch.arange(400.0)) <= 60
    with pytest.raises(ValueError, match="at least 8"):
        block_length(torch.zeros(7))


def test_intervals_are_those_of_arch():
    bootstrap = pytest.importorskip("arch.bootstrap")
    x = 0.05 + autoregressive(0.2, 800)
    y = 0.6 * x + 0.02 + autoregressive(0.0, 800, seed=1)

    def ratio(a):
        return a.mean() / a.std() * 252**0.5

    def deviation(a):
        return a.std() * 252**0.5

    for ours, statistic in ((sharpe_interval, ratio), (volatility_interval, deviation)):
        sample = bootstrap.StationaryBootstrap(8, x, y, seed=0)

        def difference(a, b, statistic=statistic):
            return statistic(a) - statistic(b)

        theirs = sample.conf_int(difference, reps=2000, method="percentile").ravel()
        found = ours(torch.tensor(x), torch.tensor(y), block=8, draws=8000)
        assert found.estimate == pytest.approx(difference(x, y), rel=2e-3)  # they divide by T - 1
        error = found.standard_error
        assert (found.lower, found.upper) == pytest.approx(
            theirs, abs=0.2 * error
        )  # a quantile's own error is 6 % of it
        assert error == pytest.approx((theirs[1] - theirs[0]) / 3.92, rel=0.05)


def test_a_portfolio_differs_from_itself_by_nothing():
    x = torch.randn(300, generator=torch.Generator().manual_seed(0))
    found = sharpe_interval(x, x, block=5)
    assert (found.estimate, found.lower, found.upper) == (0.0, 0.0, 0.0)
    assert not found.excludes_zero


def test_twice_the_leverage_has_the_same_sharpe_and_twice_the_volatility():
    x = 0.0004 + 0.01 * torch.randn(500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    one, two = sharpe_interval(x), sharpe_interval(2 * x)
    assert (one.estimate, one.lower, one.upper) == pytest.approx((two.estimate, two.lower, two.upper))
    more = volatility_interval(2 * x, x)
    assert more.excludes_zero
    assert more.estimate == pytest.approx(float(x.std(correction=0)) * 252**0.5)


def test_the_same_returns_give_the_same_interval():
    x = torch.randn(300, generator=torch.Generator().manual_seed(0))
    assert sharpe_interval(x) == sharpe_interval(x)
    assert sharpe_interval(x, level=0.5).upper < sharpe_interval(x).upper


def test_arguments_outside_their_domain_are_refused():
    x = torch.randn(300)
    for wrong in ({"level": 1.0}, {"draws": 10}, {"block": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            sharpe_interval(x, **wrong)
    with pytest.raises(ValueError, match="b="):
        _interval(torch.add, x, x[:20], 0.95, 1000, None, None)


@pytest.mark.slow
@pytest.mark.parametrize("clustered", [False, True])
def test_intervals_hold_the_truth(clustered):
    rng, held, trials = np.random.default_rng(0), 0, 600
    for _ in range(trials):
        e = rng.standard_t(5, 1200) * (3 / 5) ** 0.5
        if clustered:
            variance = 1.0
            for t in range(len(e)):
                e[t] *= variance**0.5
                variance = 0.05 + 0.1 * e[t] ** 2 + 0.85 * variance
        found = sharpe_interval(torch.tensor(0.05 + e[200:]), draws=1000)
        held += found.lower <= 0.05 * 252**0.5 <= found.upper
    assert held / trials == pytest.approx(0.94, abs=0.03)
