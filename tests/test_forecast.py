"""Joint forecasts: dependence given to marginals, scenarios, a portfolio's law."""

import dataclasses

import pytest
import torch

from qtorch.distributions import GaussianCopula, JointDistribution, StudentTCopula
from qtorch.models import RiskMetrics
from qtorch.risk import fit_copula, quasi_random_scenarios, value_at_risk
from tests.training.runs import SPEC, small_panel

COPULA = StudentTCopula(torch.tensor(5.0).double(), torch.tensor([[0.8], [0.7], [-0.5], [0.0]]).double())


@pytest.fixture(scope="module")
def forecast():
    panel = small_panel()
    return RiskMetrics(SPEC).forecast(panel, panel.dates[-4:])


def test_marginals_keep_every_measure_and_gain_a_dependence(forecast):
    joint = forecast.with_copula(COPULA)
    law = joint.distribution
    assert isinstance(law, JointDistribution)
    assert (law.batch_shape, law.event_shape) == ((4, 2), (4,))
    assert joint.to_frame().equals(forecast.to_frame())
    other = joint.with_copula(GaussianCopula(COPULA.loadings))
    assert isinstance(other.distribution.copula, GaussianCopula)
    assert other.marginals is forecast.distribution
    torch.manual_seed(0)
    fitted = fit_copula(COPULA.sample((200,)), 1)
    assert forecast.with_copula(fitted).distribution.copula is fitted


def test_scenarios_are_those_of_the_law_of_the_date_and_horizon(forecast):
    joint = forecast.with_copula(COPULA)
    x = joint.scenarios(joint.dates[1], 3, 256, seed=4)
    law = JointDistribution(forecast.distribution, COPULA)
    every = quasi_random_scenarios(law, 256, randomisations=1, seed=4)[0]
    torch.testing.assert_close(x, every[:, 1, 1])
    assert torch.equal(x, joint.scenarios(f"{joint.dates[1]:%Y-%m-%d}", 3, 256, seed=4))
    assert not torch.equal(x, joint.scenarios(joint.dates[1], 3, 256, seed=5))


def test_an_asset_without_a_forecast_has_no_scenario_and_must_not_be_held():
    panel = small_panel()
    whole = RiskMetrics(SPEC).forecast(panel, panel.dates[-1:]).with_copula(COPULA)
    mask = whole.mask.clone()
    mask[0, 2] = False
    part = dataclasses.replace(whole, mask=mask)
    x = part.scenarios(part.dates[0], 1, 64)
    assert x[:, 2].isnan().all()
    assert x[:, [0, 1, 3]].isfinite().all()
    with pytest.raises(ValueError, match=rf"1 of the held positions.*{part.assets[2]} on {part.dates[0]:%Y-%m-%d}"):
        part.portfolio(torch.full((4,), 0.25))
    held = torch.tensor([0.5, 0.5, 0.0, 0.0])
    torch.testing.assert_close(part.portfolio(held).values, whole.portfolio(held).values)


@pytest.mark.parametrize("batch", [(), (2,), (4, 1), (4, 2)])
def test_a_portfolios_law_is_that_of_its_scenarios(forecast, batch):
    generator = torch.Generator().manual_seed(0)
    loadings = COPULA.loadings * torch.rand(*batch, 1, 1, generator=generator)
    joint = forecast.with_copula(StudentTCopula(torch.full(batch, 5.0).double(), loadings))
    weights = torch.randn(4, 4, generator=generator)
    law = joint.portfolio(weights, 256, seed=1)
    assert law.batch_shape == (4, 2)
    for d, date in enumerate(joint.dates):
        for h, horizon in enumerate(joint.horizons):
            profit = joint.scenarios(date, horizon, 256, seed=1) @ weights[d].double()
            torch.testing.assert_close(law.values[d, h], profit.sort().values, rtol=2e-3, atol=1e-5)
    torch.testing.assert_close(
        joint.portfolio(weights[0], 256, seed=1).values[0], law.values[0], msg="one set of weights is for all dates"
    )


def test_independent_and_common_risks_bound_a_portfolios_value_at_risk(forecast):
    """Of normal marginals under one factor of loading r, variance is that of w' C w."""
    weights = torch.full((4,), 0.25)
    sigma = forecast.volatility[0, 0]
    for r in (0.0, 0.6, 0.99):
        joint = forecast.with_copula(GaussianCopula(torch.full((4, 1), r).double()))
        correlation = torch.full((4, 4), r * r).double().fill_diagonal_(1.0)
        expected = torch.sqrt((0.25 * sigma) @ correlation @ (0.25 * sigma)) * 2.3263
        var = value_at_risk(joint.portfolio(weights, 8192), 0.99)[0, 0]
        assert var.item() == pytest.approx(expected.item(), rel=0.02)


def test_what_does_not_fit_is_said(forecast):
    with pytest.raises(ValueError, match="scenarios needs a joint law.*with_copula"):
        forecast.scenarios(forecast.dates[0], 1)
    with pytest.raises(ValueError, match="a portfolio's law needs a joint law.*JointHead"):
        forecast.portfolio(torch.ones(4))
    joint = forecast.with_copula(COPULA)
    with pytest.raises(ValueError, match=r"no forecast of 2010-01-04; the dates are 2019-12-"):
        joint.scenarios("2010-01-04", 1)
    with pytest.raises(ValueError, match=r"over 7 sessions; the horizons are \(1, 3\)"):
        joint.scenarios(joint.dates[0], 7)
    with pytest.raises(ValueError, match=r"weights are \[4\] or \[4, 4\] finite numbers"):
        joint.portfolio(torch.ones(3))
    with pytest.raises(ValueError, match=r"weights are \[4\] or \[4, 4\] finite numbers"):
        joint.portfolio(torch.tensor([1.0, torch.nan, 0.0, 0.0]))
    with pytest.raises(ValueError, match=r"\(3, 1\) does not broadcast to \[4, 2\]"):
        forecast.with_copula(StudentTCopula(torch.full((3, 1), 5.0), torch.zeros(3, 1, 4, 1)))
    with pytest.raises(ValueError, match="a copula of N coordinates, here 3"):
        forecast.with_copula(GaussianCopula(torch.zeros(3, 1)))
