import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from scipy import stats

from qtorch.risk.plots import fan_chart, pit_histogram

PROBABILITIES = (0.01, 0.05, 0.25, 0.75, 0.95, 0.99)


@pytest.fixture
def ax():
    return Figure().subplots()


def test_a_fan_chart_counts_what_fell_out_of_the_bands(ax):
    dates = pd.bdate_range("2022-01-03", periods=6)
    quantiles = np.tile(stats.norm.ppf(PROBABILITIES), (6, 1))
    fan_chart(ax, dates, quantiles, np.array([0.1, -3.0, -2.0, np.nan, -1.8, 5.0]), PROBABILITIES)
    labels = ax.get_legend_handles_labels()[1]
    assert labels == ["98% band", "90% band", "50% band", "beyond 95% VaR: 2", "beyond 99% VaR: 1"]
    drawn = {line.get_label(): np.asarray(line.get_ydata()).tolist() for line in ax.lines}
    assert drawn["beyond 99% VaR: 1"] == [-3.0]
    assert drawn["beyond 95% VaR: 2"] == [-2.0, -1.8]


def test_a_pit_histogram_has_area_one_and_the_binomial_band(ax):
    u = np.random.default_rng(0).random(2000)
    u[::10] = np.nan
    pit_histogram(ax, u, bins=20)
    bars = [patch for patch in ax.patches if patch.get_width() == pytest.approx(0.05)]
    assert sum(bar.get_height() * bar.get_width() for bar in bars) == pytest.approx(1)
    low, high = stats.binom.interval(0.95, 1800, 0.05)
    band = next(patch for patch in ax.patches if patch.get_label().startswith("95%"))
    assert band.get_y() == pytest.approx(low / 90)
    assert band.get_y() + band.get_height() == pytest.approx(high / 90)
