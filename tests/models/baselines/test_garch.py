from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from qtorch.data import Panel, WindowSpec
from qtorch.models import FilteredHistoricalSimulation, Garch

GJR = Garch(o=1, errors="skewed_t", spec=WindowSpec(horizons=(1,)))
QUICK = Garch(window=300, least=250, refit_every=10)


@pytest.fixture(scope="module")
def recent(sample) -> pd.DataFrame:
    """Two stocks, a rate, and a stock listed 150 sessions before the end."""
    frame = sample[sample["asset"].isin(["AAPL", "EURUSD", "JPM", "XOM"]) & (sample["date"] >= "2021-01-01")]
    late = frame[frame["asset"] == "XOM"]["date"].iloc[-150]
    return frame[(frame["asset"] != "XOM") | (frame["date"] >= late)]


@pytest.fixture(scope="module")
def recent_panel(recent) -> Panel:
    return Panel.from_frame(recent)


@pytest.mark.parametrize(("model", "name"), [(GJR, "gjr_skewt"), (None, "gjr_fhs")])
def test_backtests_are_those_of_arch(sample, model, name):
    """arch 8.0.0 refitted every 21 sessions on 2,000 returns, filtered daily; in per cent, losses negative."""
    model = FilteredHistoricalSimulation(GJR, spec=GJR.spec) if model is None else model
    reference = pd.read_csv(Path(__file__).with_name("arch_gjr.csv"), parse_dates=["date"]).query("model == @name")
    frame = sample[sample["asset"].isin(reference["asset"].unique()) & (sample["date"] >= "2013-06-01")]
    panel = Panel.from_frame(frame)
    days = pd.DatetimeIndex(reference["date"].unique())
    forecast = model.forecast(panel, panel.dates[panel.dates.get_indexer(days) - 1])
    for level in (0.975, 0.99):
        at = reference[np.isclose(reference["alpha"], 1 - level)].set_index(["date", "asset"])
        for measure, column in ((forecast.value_at_risk, "var"), (forecast.expected_shortfall, "es")):
            expected = -at[column].unstack()[list(panel.assets)].to_numpy() / 100
            np.testing.assert_allclose(measure(level)[:, 0], expected, rtol=3e-4)


@pytest.mark.parametrize("errors", ["normal", "student_t", "skewed_t"])
def test_one_session_ahead_the_law_is_that_of_the_fit(recent_panel, errors):
    model = Garch(o=1, errors=errors, window=300)
    date = recent_panel.dates[-1]
    forecast = model.forecast(recent_panel, date)
    own = recent_panel.returns()[:, [0]]
    fit = model.estimate(own[own.isfinite().squeeze(-1)][-300:])
    assert forecast.volatility[0, 0, 0].item() == pytest.approx(fit.variance_forecast(1).sqrt().item(), rel=1e-4)
    assert forecast.distribution.mean[0, 0, 0].item() == pytest.approx(fit.theta.mu.item(), abs=1e-6)
    assert forecast.distribution.variance[0, 1, 0].item() == pytest.approx(
        fit.variance_forecast(10).sum().item(), rel=2e-4
    )
    assert forecast.distribution.mean[0, 1, 0].item() == pytest.approx(10 * fit.theta.mu.item(), abs=1e-5)


def test_between_refits_the_parameters_stay_and_the_filter_goes_on(recent_panel):
    dates = recent_panel.dates[-25:]
    both = QUICK.forecast(recent_panel, dates)
    for begin, end in ((0, 10), (10, 20), (20, 25)):
        own = QUICK.forecast(recent_panel, dates[begin:end])
        torch.testing.assert_close(own.volatility, both.volatility[begin:end], rtol=1e-5, atol=0)
    mu = both.distribution.mean[:, 0, 0]
    assert len(mu.unique()) == 3
    shuffled = QUICK.forecast(recent_panel, dates[torch.randperm(25).numpy()])
    order = shuffled.dates.argsort()
    torch.testing.assert_close(shuffled.volatility[order], both.volatility, rtol=1e-5, atol=0)


def test_short_assets_are_forecast_from_the_others_parameters(recent_panel):
    n = recent_panel.assets.index("XOM")
    forecast = Garch(errors="student_t").forecast(recent_panel, recent_panel.dates[-100:])
    own = recent_panel.returns()[:, n]
    count = own.isfinite().cumsum(0)[-100:]
    assert torch.equal(forecast.mask[:, n], count >= 60)
    df = forecast.distribution.df[:, 0]
    others = [m for m in range(4) if m != n]
    first = int(forecast.mask[:, n].int().argmax())
    block = first - first % 21
    assert df[first, n].item() == pytest.approx(df[block, others].median().item(), rel=1e-6)
    sigma = forecast.volatility[:, 0, n]
    assert torch.isfinite(sigma[forecast.mask[:, n]]).all()
    assert sigma[-1].item() == pytest.approx(own.nan_to_num().std().item() * 1.6, rel=0.6)


def test_a_price_that_never_moves_makes_no_exception(recent):
    frame = recent.assign(close=recent["close"].where(recent["asset"] != "JPM", 100.0))
    panel = Panel.from_frame(frame)
    forecast = QUICK.forecast(panel, panel.dates[-2:])
    n = panel.assets.index("JPM")
    assert bool(forecast.mask[:, n].all())
    assert (forecast.volatility[:, 0, n] < 1e-4).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"least": 10}, "least=10"),
        ({"refit_every": 0}, "refit_every=0"),
        ({"o": 3}, "o=3"),
        ({"window": 100}, "least=250"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Garch(**settings)
