import numpy as np
import pandas as pd
import pytest
from matplotlib.dates import date2num
from matplotlib.figure import Figure
from scipy import stats

from qtorch.risk.plots import (
    exceedance_chart,
    fan_chart,
    legend_above,
    loss_difference,
    pit_histogram,
    reliability_curve,
    rolling_coverage,
)
from qtorch.risk.plots.comparison import running_mean

PROBABILITIES = (0.01, 0.05, 0.25, 0.75, 0.95, 0.99)


@pytest.fixture
def ax():
    return Figure().subplots()


def drawn(ax) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {line.get_label(): (np.asarray(line.get_xdata()), np.asarray(line.get_ydata())) for line in ax.lines}


def days(T: int) -> pd.DatetimeIndex:
    return pd.bdate_range("2020-01-01", periods=T)


def test_a_fan_chart_counts_what_fell_out_of_the_bands(ax):
    dates = pd.bdate_range("2022-01-03", periods=6)
    quantiles = np.tile(stats.norm.ppf(PROBABILITIES), (6, 1))
    fan_chart(ax, dates, quantiles, np.array([0.1, -3.0, -2.0, np.nan, -1.8, 5.0]), PROBABILITIES)
    labels = ax.get_legend_handles_labels()[1]
    assert labels == ["98% band", "90% band", "50% band", "beyond 95% VaR: 3", "of these beyond 99%: 1"]
    assert drawn(ax)["of these beyond 99%: 1"][1].tolist() == [-3.0]
    assert drawn(ax)["beyond 95% VaR: 3"][1].tolist() == [-2.0, -1.8]


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


def test_an_exceedance_chart_marks_exceedances_and_basels_zones(ax):
    T = 700
    returns, var = np.full(T, 0.01), np.full(T, 0.02)
    returns[[300, 310, 320, 330, 340]] = -0.03  # the fifth of 250 days makes the zone yellow
    returns[400:405] = -0.05  # the tenth makes it red
    returns[5], var[6] = np.nan, np.nan
    exceedance_chart(ax, days(T), returns, var)
    lines = drawn(ax)
    at, marked = lines["10 exceedances, 7.0 expected"]
    assert marked.tolist() == [-0.03] * 5 + [-0.05] * 5
    assert at[0] == days(T).to_numpy()[300]
    assert set(lines["VaR at 99 %"][1]) == {-0.02}
    strips = {c.get_label(): c for c in ax.collections if "zone" in c.get_label() or "fewer" in c.get_label()}
    assert set(strips) == {"green zone", "yellow zone", "red zone", "fewer than 250 days"}

    def runs(name):
        return [(path.vertices[:, 0].min(), path.vertices[:, 0].max()) for path in strips[name].get_paths()]

    number = date2num(days(T).to_numpy())
    # Two days do not count, so that the 250th that does is the day 251, the first yellow 340, the red 404 to 549.
    assert runs("fewer than 250 days") == [(number[0], number[251])]
    assert runs("red zone") == [(number[404], number[550])]
    assert runs("yellow zone") == [(number[340], number[404]), (number[550], number[650])]
    low, high = ax.get_ylim()
    assert (-0.05 - low) / (high - low) > 0.035  # the strip is below the data


def test_a_reliability_curve_is_the_empirical_distribution_within_its_bands(ax):
    u = np.random.default_rng(0).random(500)
    reliability_curve(ax, np.append(u, np.nan))
    x, y = drawn(ax)["observed, n = 500"]
    np.testing.assert_allclose(x[1:-1], np.sort(u))
    np.testing.assert_allclose(y[1:-1], np.arange(1, 501) / 500)
    bands = {c.get_label(): c.get_paths()[0].vertices for c in ax.collections}
    outer, inner = bands["95% band, whole curve"], bands["95% band, each point"]
    reach = stats.kstwo.ppf(0.95, 500)
    middle = outer[np.isclose(outer[:, 0], 0.5), 1]
    assert (middle.min(), middle.max()) == pytest.approx((0.5 - reach, 0.5 + reach))
    middle = inner[np.isclose(inner[:, 0], 0.5), 1]
    assert (middle.min(), middle.max()) == pytest.approx([k / 500 for k in stats.binom.interval(0.95, 500, 0.5)])


def test_rolling_coverage_counts_the_last_days_that_count(ax):
    rng = np.random.default_rng(0)
    returns, var = rng.standard_normal(400), np.full(400, 1.3)
    returns[rng.random(400) < 0.1] = np.nan
    rolling_coverage(ax, days(400), returns, var, level=0.9, window=50)
    there = np.isfinite(returns)
    x, rate = drawn(ax)["exceedances, last 50 days"]
    expected = pd.Series((returns < -var)[there].astype(float)).rolling(50).mean().to_numpy()[49:]
    np.testing.assert_allclose(rate, expected)
    assert (x == days(400).to_numpy()[there][49:]).all()
    low, high = np.array(stats.binom.interval(0.95, 50, 0.1)) / 50
    band = next(patch for patch in ax.patches if patch.get_label().startswith("95%"))
    assert (band.get_y(), band.get_y() + band.get_height()) == pytest.approx((low, high))
    outside = drawn(ax).get("outside the band", (None, np.array([])))[1]
    assert np.isfinite(outside).sum() == ((rate < low) | (rate > high)).sum()


def newey_west(d: np.ndarray) -> tuple[float, float]:
    n, u = len(d), d - d.mean()
    lags = int(4 * (n / 100) ** (2 / 9))
    s = u @ u / n + 2 * sum((1 - k / (lags + 1)) * (u[k:] @ u[:-k]) / n for k in range(1, min(lags, n - 1) + 1))
    return d.mean(), np.sqrt(max(s, 0) / n)


@pytest.mark.parametrize("window", [None, 60])
def test_loss_differences_have_the_mean_and_error_of_each_days_test(ax, window):
    d = np.random.default_rng(0).standard_normal(300).cumsum() * 0.1
    mean, error = running_mean(d, window)
    ends = range(1 if window is None else window, 301)
    expected = np.array([newey_west(d[0 if window is None else end - window : end]) for end in ends])
    np.testing.assert_allclose(mean, expected[:, 0], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(error, expected[:, 1], rtol=1e-6, atol=1e-9)
    holed = np.insert(d, [10, 200], np.nan)
    loss_difference(ax, days(302), holed, window, names=("A", "B"))
    name = "mean so far" if window is None else "mean of 60 days"
    np.testing.assert_allclose(drawn(ax)[name][1], mean)
    assert drawn(ax)[name][0][-1] == days(302).to_numpy()[-1]
    (band,) = ax.collections
    top = band.get_paths()[0].vertices[:, 1].max()
    assert top == pytest.approx((mean + stats.norm.ppf(0.975) * error).max())
    assert [text.get_text() for text in ax.texts] == ["B better", "A better"]


@pytest.mark.parametrize("T", [0, 1, 40])
def test_short_and_empty_series_are_drawn_as_far_as_they_go(T):
    dates, returns, var = days(T), np.full(T, -0.01), np.full(T, 0.02)
    for values in (returns, np.full(T, np.nan)):
        for draw in (
            lambda ax, v: exceedance_chart(ax, dates, v, var),
            lambda ax, v: rolling_coverage(ax, dates, v, var),
            lambda ax, v: loss_difference(ax, dates, v),
            lambda ax, v: loss_difference(ax, dates, v, window=250),
            lambda ax, v: reliability_curve(ax, v + 0.5),
        ):
            figure = Figure()
            ax = figure.subplots()
            draw(ax, values)
            legend_above(ax)
            figure.canvas.draw()
            assert len(ax.get_legend().get_texts()) > 0
