import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import Normal

from qtorch.risk import (
    estimate_value_at_risk,
    expected_shortfall,
    filtered_scenarios,
    horizon_scenarios,
    scale_to_horizon,
    variance_factor,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("horizon", [1, 2, 10])
@pytest.mark.parametrize("rho", [-0.4, 0.0, 0.3])
def test_the_variance_factor_is_the_sum_over_the_autocovariances(horizon, rho):
    lags = np.abs(np.subtract.outer(np.arange(horizon), np.arange(horizon)))
    expected = np.where(lags == 0, 1.0, np.power(rho, lags)).sum()
    assert variance_factor(horizon, rho).item() == pytest.approx(expected)
    assert variance_factor(horizon, torch.tensor([rho, 0.1])).shape == (2,)


def test_scaling_is_exact_for_sums_of_normals():
    one, ten = Normal(torch.tensor(0.001).double(), 0.02), Normal(torch.tensor(0.01).double(), 0.02 * 10**0.5)
    scaled = scale_to_horizon(expected_shortfall(one, 0.975), 10, mean=0.001)
    torch.testing.assert_close(scaled, expected_shortfall(ten, 0.975))
    trending = scale_to_horizon(torch.tensor(0.02, dtype=torch.float64), 2, autocorrelation=0.5)
    assert trending.item() == pytest.approx(0.02 * 3**0.5)


def test_independent_sessions_add_up():
    x = 0.01 * torch.randn(50_000, 2, generator=generator(), dtype=torch.float64) + 0.0005
    got = horizon_scenarios(x, 10, 50_000, generator(1))
    mean, second = x.mean(0), (1 + x).square().mean(0)
    torch.testing.assert_close(got.mean(0), (1 + mean) ** 10 - 1, rtol=0, atol=5e-4)
    variance = second**10 - (1 + mean) ** 20
    torch.testing.assert_close(got.var(0), variance, rtol=0.03, atol=0)
    # Compounded, 1 + r is nearly lognormal: the value at risk of ten sessions by its closed form.
    sigma = torch.log1p(x).std(0) * 10**0.5
    closed = 1 - torch.exp(10 * torch.log1p(x).mean(0) + sigma * stats.norm.ppf(0.01))
    estimate = estimate_value_at_risk(got, 0.99)
    assert ((estimate.value - closed).abs() < 4 * estimate.standard_error).all()


def test_sessions_come_whole_and_blocks_in_order():
    x = torch.randn(300, 1, dtype=torch.float64) * 0.01
    both = torch.cat([x, -x], dim=1)
    got = horizon_scenarios(both, 1, 1000, generator())
    torch.testing.assert_close(got[:, 0], -got[:, 1])
    count = torch.arange(100, dtype=torch.float64) / 1e6  # sums of h neighbours tell where a block began
    blocked = horizon_scenarios(count, 5, 200, generator(), block=5)
    starts = torch.arange(100)
    possible = (1 + count[(starts[:, None] + torch.arange(5)) % 100]).prod(1) - 1
    assert torch.isclose(blocked[:, None], possible, rtol=0, atol=1e-15).any(1).all()
    only = horizon_scenarios(x, 3, 10, generator(), weights=(torch.arange(300) == 7).double())
    torch.testing.assert_close(only, ((1 + x[7]) ** 3 - 1).expand(10, 1))


def test_blocks_keep_autocorrelation():
    noise = torch.randn(20_000, generator=generator(), dtype=torch.float64)
    x = torch.empty_like(noise)
    x[0] = noise[0]
    for t in range(1, len(x)):
        x[t] = 0.5 * x[t - 1] + noise[t]
    x = 0.001 * x
    for block, rho in ((1, 0.0), (5, 0.5)):
        got = horizon_scenarios(x, 5, 40_000, generator(), block=block)
        assert (got.var() / x.var()).item() == pytest.approx(variance_factor(5, rho).item(), rel=0.06)


def test_filtered_variance_reverts_as_the_closed_form():
    z = torch.randn(20_000, generator=generator(), dtype=torch.float64)
    z = torch.cat([z, -z]).unsqueeze(-1).expand(-1, 2) / z.square().mean().sqrt()
    omega, alpha, gamma, beta = 2e-6, 0.03, 0.08, 0.9
    first, persistence = torch.tensor([4e-4, 2e-5], dtype=torch.float64), 0.03 + 0.08 / 2 + 0.9
    got = filtered_scenarios(z, first, 10, 200_000, generator(), omega=omega, alpha=alpha, gamma=gamma, beta=beta)
    level = omega / (1 - persistence)
    ahead = sum(level + persistence**k * (first - level) for k in range(10))
    torch.testing.assert_close(got.var(0), ahead, rtol=0.02, atol=0)
    skew = ((got - got.mean(0)) ** 3).mean(0) / got.std(0) ** 3
    assert (skew < -0.05).all()  # falls raise the variance of what follows


def test_the_default_filter_is_the_ewma_and_one_session_is_history():
    z = torch.randn(500, 3, dtype=torch.float64)
    one = filtered_scenarios(z, torch.tensor([1e-4, 4e-4, 9e-4]), 1, 5000, generator(), mean=0.001)
    scaled = 0.001 + z * torch.tensor([0.01, 0.02, 0.03], dtype=torch.float64)
    assert torch.isclose(one[:50, None], scaled, atol=1e-9).all(-1).any(1).all()
    two = filtered_scenarios(torch.full((1,), -2.0), torch.tensor(1e-4), 2, 1, generator())
    after = 0.94 * 1e-4 + 0.06 * 4e-4
    assert two.item() == pytest.approx((1 - 0.02) * (1 - 2 * after**0.5) - 1)


def test_bad_settings_are_refused():
    x = torch.zeros(10)
    with pytest.raises(ValueError, match="horizon=0"):
        horizon_scenarios(x, 0, 10, generator())
    with pytest.raises(ValueError, match="block=11"):
        horizon_scenarios(x, 5, 10, generator(), block=11)
    with pytest.raises(ValueError, match="draws=0"):
        filtered_scenarios(x, torch.tensor(1.0), 5, 0, generator())
    with pytest.raises(ValueError, match="1 residuals"):
        filtered_scenarios(torch.tensor([0.0, torch.nan]), torch.tensor(1.0), 5, 10, generator())
    with pytest.raises(ValueError, match="variance"):
        filtered_scenarios(x, torch.tensor(0.0), 5, 10, generator())
    with pytest.raises(ValueError, match="autocorrelation"):
        scale_to_horizon(x, 5, autocorrelation=1.0)
