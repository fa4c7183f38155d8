import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from qtorch.data import Panel
from qtorch.models import HAR, FilteredHistoricalSimulation, Garch, HistoricalSimulation, RiskMetrics


@pytest.fixture(scope="module")
def closes(sample):
    stock = sample[(sample["asset"].isin(["AAPL", "EURUSD"])) & (sample["date"] >= "2019-01-01")]
    return stock, Panel.from_frame(stock)


def returns(frame, asset) -> pd.Series:
    return frame[frame["asset"] == asset].set_index("date")["close"].pct_change().dropna()


def test_riskmetrics_is_a_scaled_normal_of_the_ewma(closes):
    frame, panel = closes
    forecast = RiskMetrics().forecast(panel, panel.dates[-3:])
    for n, asset in enumerate(panel.assets):
        sigma = np.sqrt((returns(frame, asset) ** 2).ewm(alpha=0.06).mean().iloc[-1])
        for h, horizon in enumerate((1, 10)):
            s = sigma * np.sqrt(horizon)
            assert forecast.value_at_risk(0.99)[-1, h, n].item() == pytest.approx(s * stats.norm.ppf(0.99), rel=1e-5)
            es = s * stats.norm.pdf(stats.norm.ppf(0.975)) / 0.025
            assert forecast.expected_shortfall(0.975)[-1, h, n].item() == pytest.approx(es, rel=1e-5)


def test_historical_simulation_is_the_empirical_tail(closes):
    frame, panel = closes
    forecast = HistoricalSimulation(window=400).forecast(panel, panel.dates[-3:])
    for n, asset in enumerate(panel.assets):
        last = np.sort(returns(frame, asset).to_numpy()[-400:])
        assert forecast.value_at_risk(0.99)[-1, 0, n].item() == pytest.approx(-last[3], abs=1e-7)
        assert forecast.expected_shortfall(0.975)[-1, 0, n].item() == pytest.approx(-last[:10].mean(), abs=1e-7)
        price = frame[frame["asset"] == asset]["close"].to_numpy()
        ten = np.sort((price[10:] / price[:-10] - 1)[-400:])
        assert forecast.value_at_risk(0.99)[-1, 1, n].item() == pytest.approx(-ten[3], abs=1e-7)


MODELS = (
    RiskMetrics(),
    HistoricalSimulation(100),
    FilteredHistoricalSimulation(window=200, paths=100),
    FilteredHistoricalSimulation(Garch(window=300), window=200, paths=100),
    Garch(o=1, window=300, refit_every=5),
    HAR(window=300, refit_every=5),
)
names = [f"{type(model).__name__}{i}" for i, model in enumerate(MODELS)]


@pytest.fixture(scope="module")
def futures(closes) -> tuple[Panel, Panel]:
    """The panel with other prices after a date, and the panel up to it."""
    frame, panel = closes
    cut = panel.dates[-100]
    later = frame.assign(close=frame["close"].where(frame["date"] <= cut, frame["close"] * 1.5))
    return Panel.from_frame(later), Panel.from_frame(frame[frame["date"] <= cut])


@pytest.mark.parametrize("model", MODELS, ids=names)
def test_baselines_know_nothing_of_the_future(closes, futures, model):
    _, panel = closes
    dates = panel.dates[-103:-99]
    there, other, shorter = (model.forecast(p, dates).value_at_risk(0.99) for p in (panel, *futures))
    assert there.isfinite().all()
    assert torch.equal(there, other)
    # Nor does the market's end matter, which sets the lengths of all that is computed.
    torch.testing.assert_close(shorter, there, rtol=1e-6, atol=0)


@pytest.mark.parametrize("model", MODELS, ids=names)
def test_the_order_of_assets_and_dates_does_not_matter(closes, model):
    _, panel = closes
    dates = panel.dates[-4:]
    straight = model.forecast(panel, dates).expected_shortfall(0.975)
    turned = model.forecast(panel.select(panel.assets[::-1]), dates[::-1]).expected_shortfall(0.975)
    torch.testing.assert_close(turned.flip(0, 2), straight, rtol=1e-5, atol=0)


@pytest.fixture(scope="module")
def gone_and_new(closes) -> Panel:
    """AAPL, silent for its last ten sessions, and EURUSD, whose history is some 40."""
    frame, _ = closes
    dates = np.sort(frame["date"].unique())
    silent = (frame["asset"] == "AAPL") & (frame["date"] < dates[-9])
    return Panel.from_frame(frame[silent | ((frame["asset"] == "EURUSD") & (frame["date"] >= dates[-40]))])


@pytest.mark.parametrize("model", MODELS, ids=names)
def test_assets_with_few_returns_or_long_silence_have_no_forecast(gone_and_new, model):
    now, before = gone_and_new.dates[-1], gone_and_new.dates[-8]
    forecast = model.forecast(gone_and_new, [before, now])
    assert forecast.mask.tolist() == [[True, False], [False, False]]
    measure = forecast.value_at_risk(0.99)
    assert measure[0, :, 0].isfinite().all()
    assert measure[1].isnan().all()
    assert measure[0, :, 1].isnan().all()


@pytest.mark.gpu
@pytest.mark.parametrize("model", MODELS, ids=names)
def test_a_panel_on_a_gpu_is_forecast_alike(closes, model):
    _, panel = closes
    dates = panel.dates[-4:]
    here, there = (model.forecast(p, dates).value_at_risk(0.99) for p in (panel, panel.to("cuda")))
    torch.testing.assert_close(there.cpu(), here, rtol=1e-4, atol=1e-7)
