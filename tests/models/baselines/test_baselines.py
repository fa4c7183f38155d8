import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from qtorch.data import Panel, WindowSpec
from qtorch.models import HistoricalSimulation, RiskMetrics


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


def test_baselines_know_nothing_of_the_future(closes):
    frame, panel = closes
    cut = panel.dates[-100]
    later = frame.assign(close=frame["close"].where(frame["date"] <= cut, frame["close"] * 1.5))
    other = Panel.from_frame(later)
    for model in (RiskMetrics(), HistoricalSimulation(100, WindowSpec())):
        a, b = (model.forecast(p, panel.dates[-110:-99]).value_at_risk(0.99) for p in (panel, other))
        assert torch.equal(a, b)
