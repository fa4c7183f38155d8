import math

import numpy as np
import pandas as pd
import pytest
import torch

from qtorch.data import Panel, WindowSpec
from qtorch.models import Ewma, FilteredHistoricalSimulation, Garch


@pytest.fixture(scope="module")
def stocks(sample) -> Panel:
    return Panel.from_frame(sample[sample["asset"].isin(["AAPL", "JPM"]) & (sample["date"] >= "2020-06-01")])


def own(panel: Panel, n: int) -> np.ndarray:
    returns = panel.returns()[:, n]
    return returns[returns.isfinite()].numpy()


def test_one_session_ahead_it_is_the_empirical_tail_of_scaled_residuals(stocks):
    forecast = FilteredHistoricalSimulation(Ewma(0.97), window=333).forecast(stocks, stocks.dates[-2:])
    for n in range(2):
        r = pd.Series(own(stocks, n))
        sigma = np.sqrt((r**2).ewm(alpha=0.03).mean()).to_numpy()
        z = np.sort((r.to_numpy()[1:] / sigma[:-1])[-333:])
        for level in (0.975, 0.99):
            k = math.ceil(333 * (1 - level) - 1e-9)
            assert forecast.value_at_risk(level)[-1, 0, n].item() == pytest.approx(-sigma[-1] * z[k - 1], rel=1e-5)
            shortfall = -sigma[-1] * z[:k].mean()
            assert forecast.expected_shortfall(level)[-1, 0, n].item() == pytest.approx(shortfall, rel=1e-5)


@pytest.mark.parametrize("filter_", [Ewma(), Garch(o=1, window=500)])
def test_paths_are_the_filters_recursion_a_path_after_the_other(stocks, filter_):
    model = FilteredHistoricalSimulation(filter_, window=100, paths=150, spec=WindowSpec(horizons=(1, 3)), seed=4)
    forecast = model.forecast(stocks, stocks.dates[-1])
    uniforms = torch.rand(2, 150, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    if isinstance(filter_, Ewma):
        r = pd.Series(own(stocks, 0))
        variance = (r**2).ewm(alpha=0.06).mean().to_numpy()
        z, tonight = (r.to_numpy()[1:] / np.sqrt(variance[:-1]))[::-1][:100], variance[-1]
        mu, omega, alpha, gamma, beta = 0.0, 0.0, 0.06, 0.0, 0.94
    else:
        fit = filter_.estimate(torch.tensor(own(stocks, 0)[-500:, None]))
        z, tonight = fit.residuals[:, 0].numpy()[::-1][:100], fit.variance_forecast(1).item()
        mu, omega, alpha, gamma, beta = fit.parameters[0].tolist()
    found = []
    for i in range(150):
        growth, variance = 1.0, tonight
        for session in range(3):
            e = math.sqrt(variance) * z[i % 100 if session == 0 else int(uniforms[session - 1, i] * 100)]
            growth *= 1 + mu + e
            variance = omega + (alpha + gamma * (e < 0)) * e**2 + beta * variance
        found.append(growth - 1)
    values = forecast.distribution.values[0, 1, 0]
    np.testing.assert_allclose(values[:150], np.sort(found), rtol=1e-3, atol=2e-6)
    assert values[150:].isnan().all()
    assert int(forecast.distribution.count[0, 0, 0]) == 100


def test_a_forecast_does_not_depend_on_what_else_is_asked_for(stocks):
    model = FilteredHistoricalSimulation(window=200, paths=300)
    many = model.forecast(stocks, stocks.dates[-5:])
    one = model.forecast(stocks, stocks.dates[-3])
    assert torch.equal(one.value_at_risk(0.99)[0], many.value_at_risk(0.99)[2])
    alone = stocks.select(["JPM"])
    at = stocks.assets.index("JPM")
    assert torch.equal(
        model.forecast(alone, stocks.dates[-3]).value_at_risk(0.99)[0, :, 0], one.value_at_risk(0.99)[0, :, at]
    )


def test_over_ten_sessions_the_variance_is_the_sum_of_the_expected_ones(stocks):
    garch = Garch(window=500)
    simulated = FilteredHistoricalSimulation(garch, window=500, paths=20_000).forecast(stocks, stocks.dates[-1])
    expected = garch.forecast(stocks, stocks.dates[-1])
    ratio = simulated.volatility / expected.volatility
    assert ((ratio - 1).abs() < 0.05).all()


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="min_history=20"):
        FilteredHistoricalSimulation(min_history=20)
    with pytest.raises(ValueError, match="paths=0"):
        FilteredHistoricalSimulation(paths=0)
    with pytest.raises(ValueError, match=r"decay=1\.0"):
        Ewma(1.0)
