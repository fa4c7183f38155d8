import numpy as np
import pytest
import torch
from torch.distributions import StudentT

from qtorch.distributions import Empirical
from qtorch.risk import (
    estimate_expected_shortfall,
    estimate_expectile,
    estimate_spectral_risk,
    estimate_value_at_risk,
    expected_shortfall,
    expectile,
    exponential_spectrum,
    spectral_risk,
    value_at_risk,
)

LEVEL = 0.95


def step(p):
    return 20.0 * (p <= 0.05)


ESTIMATES = {
    "value_at_risk": lambda x, w=None: estimate_value_at_risk(x, LEVEL, w),
    "expected_shortfall": lambda x, w=None: estimate_expected_shortfall(x, LEVEL, w),
    "spectral": lambda x, w=None: estimate_spectral_risk(x, exponential_spectrum(20.0), weights=w),
    "step": lambda x, w=None: estimate_spectral_risk(x, step, (0.05,), w),
    "expectile": lambda x, w=None: estimate_expectile(x, 0.99, w),
}


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return StudentT(torch.tensor(5.0, dtype=torch.float64)).sample(shape)


def test_values_are_those_of_the_empirical_distribution():
    x = draws(500, 3)
    law = Empirical(x.T)
    torch.testing.assert_close(ESTIMATES["value_at_risk"](x).value, value_at_risk(law, LEVEL))
    torch.testing.assert_close(ESTIMATES["expected_shortfall"](x).value, expected_shortfall(law, LEVEL))
    torch.testing.assert_close(ESTIMATES["expectile"](x).value, expectile(law, 0.99))
    torch.testing.assert_close(ESTIMATES["step"](x).value, expected_shortfall(law, LEVEL))
    holed = Empirical(torch.cat([x.T, torch.full((3, 40), torch.nan, dtype=torch.float64)], dim=1))
    torch.testing.assert_close(spectral_risk(holed, step, (0.05,)), expected_shortfall(law, LEVEL))
    losses = np.sort(-x.numpy(), axis=0)[::-1]
    np.testing.assert_allclose(ESTIMATES["value_at_risk"](x).value, losses[24])
    np.testing.assert_allclose(ESTIMATES["expected_shortfall"](x).value, losses[:25].mean(0))


def test_an_expectile_of_scenarios_minimises_the_asymmetric_squares():
    x = draws(200)
    e = -estimate_expectile(x, 0.97).value
    gains, losses = (x - e).clamp(min=0).mean(), (e - x).clamp(min=0).mean()
    assert (0.03 * gains).item() == pytest.approx(0.97 * losses.item())


@pytest.mark.parametrize("name", ESTIMATES)
def test_standard_errors_are_the_spread_over_repeated_simulations(name):
    estimate = ESTIMATES[name](draws(2000, 500))
    spread = estimate.value.std().item()
    assert estimate.standard_error.square().mean().sqrt().item() == pytest.approx(spread, rel=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("name", ESTIMATES)
def test_standard_errors_of_importance_sampling(name):
    """Draws of a wider law with the weights of the likelihood ratio: the same measures, known better."""
    generator = torch.Generator().manual_seed(1)
    wide = 2.0
    x = wide * torch.randn(1500, 150, generator=generator, dtype=torch.float64)
    log_ratio = -0.5 * x**2 + 0.5 * (x / wide) ** 2
    estimates = [ESTIMATES[name](x[:, i], torch.exp(log_ratio[:, i])) for i in range(x.shape[1])]
    values = torch.stack([estimate.value for estimate in estimates])
    errors = torch.stack([estimate.standard_error for estimate in estimates])
    plain = ESTIMATES[name](torch.randn(200_000, generator=generator, dtype=torch.float64))
    assert values.mean().item() == pytest.approx(plain.value.item(), rel=0.02)
    assert errors.square().mean().sqrt().item() == pytest.approx(values.std().item(), rel=0.25)


@pytest.mark.parametrize("name", ESTIMATES)
def test_a_whole_weight_is_a_repeated_scenario(name):
    x = draws(100, seed=2)
    weights = torch.arange(100) % 3
    weighted, repeated = ESTIMATES[name](x, 5.0 * weights.double()), ESTIMATES[name](x.repeat_interleave(weights))
    torch.testing.assert_close(weighted.value, repeated.value, rtol=1e-9, atol=1e-12)


def test_bad_scenarios_are_refused():
    x = draws(10)
    with pytest.raises(ValueError, match=r"1 of 10 scenarios are not finite, the first at \(3,\)"):
        estimate_value_at_risk(x.index_fill(0, torch.tensor([3]), torch.nan), LEVEL)
    for weights in (torch.zeros(10), -torch.ones(10), torch.full((10,), torch.nan)):
        with pytest.raises(ValueError, match="Weights"):
            estimate_expected_shortfall(x, LEVEL, weights)
    with pytest.raises(ValueError, match="two or more"):
        estimate_value_at_risk(x[:1], LEVEL)
