"""Probabilistic and deflated Sharpe ratios: the paper's example, and simulations."""

import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from qtorch.backtest import deflated_sharpe, expected_best_sharpe, probabilistic_sharpe
from qtorch.backtest.deflated_sharpe import probability_above


@pytest.mark.parametrize(("trials", "best", "probability"), [(100, 0.1132, 0.9004), (46, None, 0.9505)])
def test_the_papers_example(trials, best, probability):
    """Bailey and Lopez de Prado (2014): five years of 250 days, Sharpe 2.5, skewness -3, kurtosis 10, variance 1/2."""
    threshold = expected_best_sharpe(trials, 0.5 / 250)
    if best is not None:
        assert threshold == pytest.approx(best, abs=5e-5)
    found = probability_above(2.5 / 250**0.5, 1250, -3.0, 10.0, threshold)
    assert found == pytest.approx(probability, abs=6e-4 if trials == 46 else 5e-5)


def test_normal_returns_have_the_closed_form():
    x = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)
    returns = 0.001 + 0.01 * torch.special.ndtri(x)
    ratio = returns.mean() / returns.std()
    z = ratio * 998**0.5 / (1 + ratio**2 / 2) ** 0.5  # Lo (2002)
    assert probabilistic_sharpe(returns) == pytest.approx(torch.special.ndtr(z).item(), abs=2e-4)
    assert probabilistic_sharpe(returns, float(ratio)) == pytest.approx(0.5)
    assert deflated_sharpe(returns, 1) == probabilistic_sharpe(returns)
    assert deflated_sharpe(returns, 100) < deflated_sharpe(returns, 10) < probabilistic_sharpe(returns)
    assert deflated_sharpe(returns, 50, 1 / 999) == deflated_sharpe(returns, 50)


@pytest.mark.parametrize(("trials", "above"), [(10, 0.023), (100, 0.009), (1000, 0.004)])
def test_the_best_of_many_is_near_the_exact_mean_of_a_largest_normal(trials, above):
    exact = quad(lambda z: z * trials * norm.pdf(z) * norm.cdf(z) ** (trials - 1), -8, 10)[0]
    assert expected_best_sharpe(trials, 0.04) / (0.2 * exact) - 1 == pytest.approx(above, abs=5e-4)


def test_probabilities_are_uniform_when_the_benchmark_is_the_truth():
    draws = 1.1 - torch.empty(2000, 2000).exponential_(
        generator=torch.Generator().manual_seed(0)
    )  # deviation 1, skewed
    found = torch.tensor([probabilistic_sharpe(row, 0.1) for row in draws])
    for level in (0.05, 0.5, 0.95):
        assert (found < level).double().mean().item() == pytest.approx(level, abs=0.02)


def test_arguments_outside_their_domain_are_refused():
    with pytest.raises(ValueError, match="trials=0"):
        expected_best_sharpe(0, 1.0)
    with pytest.raises(ValueError, match="variance=-1"):
        expected_best_sharpe(5, -1.0)
    with pytest.raises(ValueError, match="at least 3"):
        probabilistic_sharpe(torch.ones(2))
