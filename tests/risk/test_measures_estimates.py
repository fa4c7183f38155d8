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
    estimate = ESTIMATES[name](draws(4000, 1000))
    spread = estimate.value.std().item()
    assert estimate.standard_error.square().mean().sqrt().item() == pytest.approx(spread, rel=0.12)


def test_bad_scenarios_are_refused():
    x = draws(10)
    with pytest.raises(ValueError, match=r"1 of 10 scenarios are not finite, the first at \(3,\)"):
        estimate_value_at_risk(x.index_fill(0, torch.tensor([3]), torch.nan), LEVEL)
    for weights in (torch.zeros(10), -torch.ones(10), torch.full((10,), torch.nan)):
        with pytest.raises(ValueError, match="Weights"):
            estimate_expected_shortfall(x, LEVEL, weights)
    with pytest.raises(ValueError, match="two or more"):
        estimate_value_at_risk(x[:1], LEVEL)
