import math

import numpy as np
import pandas as pd
import pytest
import torch

from qtorch.data import Panel, WindowSpec
from qtorch.data.features import garman_klass
from qtorch.models import HAR

MODEL = HAR(window=400, refit_every=5)


@pytest.fixture(scope="module")
def index_frame(sample) -> pd.DataFrame:
    """Two indices with ranges, and a stock with closes alone."""
    return sample[
        sample["asset"].isin(["SP500", "NASDAQ", "AAPL"]) & sample["date"].between("2016-01-01", "2018-12-20")
    ]


@pytest.fixture(scope="module")
def indices(index_frame) -> Panel:
    return Panel.from_frame(index_frame)


def by_hand(
    close: np.ndarray, x: np.ndarray, refit: int, last: int, horizon: int, window: int, share: float
) -> np.ndarray:
    """The sample of the forecast, by loops; x and returns begin with the second close, as do `refit` and `last`."""
    month = np.array([x[max(0, t - 21) : t + 1].mean() for t in range(len(x))])
    week = np.array([x[max(0, t - 4) : t + 1].mean() for t in range(len(x))])
    lift = share * month + 1e-12
    X = np.stack([np.ones_like(x), np.log(x + lift), np.log(week + lift), np.log(month + lift)], axis=1)
    rows = list(range(max(21, refit - horizon - window + 1), refit - horizon + 1))
    y = [math.log(x[t + 1 : t + 1 + horizon].mean() + lift[t]) for t in rows]
    coefficients = np.linalg.lstsq(X[rows], np.array(y), rcond=None)[0]
    sigma = np.exp(0.5 * X @ coefficients)
    ends = range(max(0, last - horizon - window + 1), last - horizon + 1)
    return np.sort([(close[t + 1 + horizon] / close[t + 1] - 1) / sigma[t] * sigma[last] for t in ends])


@pytest.mark.parametrize("asset", ["SP500", "AAPL"])
def test_the_law_is_that_of_the_regression_by_hand(index_frame, indices, asset):
    forecast = MODEL.forecast(indices, indices.dates[-4:])
    of = index_frame[index_frame["asset"] == asset].dropna(subset=["close"])
    close = of["close"].to_numpy()
    if asset == "SP500":
        share, x = 0.001, garman_klass(*(of[name].to_numpy() for name in ("open", "high", "low", "close")))
    else:
        share, x = 0.05, np.append(np.nan, (close[1:] / close[:-1] - 1) ** 2)
    n = indices.assets.index(asset)
    for h, horizon in enumerate((1, 10)):
        expected = by_hand(close, x[1:], len(x) - 5, len(x) - 2, horizon, 400, share)
        np.testing.assert_allclose(forecast.distribution.values[-1, h, n], expected, rtol=2e-4, atol=1e-6)


def test_a_named_proxy_is_taken_where_it_is_and_another_where_not(indices):
    date = indices.dates[-1]
    found = {
        name: HAR(name, window=400).forecast(indices, date).volatility[0, 0] for name in ("parkinson", "garman_klass")
    }
    returns = HAR("squared_return", window=400).forecast(indices, date).volatility[0, 0]
    default = HAR(window=400).forecast(indices, date).volatility[0, 0]
    n = indices.assets.index("SP500")
    assert torch.equal(default, found["garman_klass"])
    assert len({value[n].item() for value in (*found.values(), returns)}) == 3
    n = indices.assets.index("AAPL")
    assert len({value[n].item() for value in (*found.values(), returns)}) == 1


def test_realised_variance_comes_first(index_frame):
    of = index_frame.assign(realised_variance=lambda f: (np.log(f["close"] / f["close"].shift()) ** 2).clip(1e-8, 1e-2))
    panel = Panel.from_frame(of)
    date = panel.dates[-1]
    a, b = (HAR(name, window=400).forecast(panel, date).volatility for name in (None, "realised"))
    assert torch.equal(a, b)
    assert not torch.equal(a, HAR("garman_klass", window=400).forecast(panel, date).volatility)


def test_short_and_still_assets_take_the_others_coefficients(index_frame):
    late = index_frame[index_frame["asset"] == "NASDAQ"]["date"].iloc[-80]
    frame = index_frame[(index_frame["asset"] != "NASDAQ") | (index_frame["date"] >= late)]
    frame = pd.concat([frame, frame[frame["asset"] == "AAPL"].assign(asset="STILL", close=10.0)], ignore_index=True)
    panel = Panel.from_frame(frame)
    forecast = MODEL.forecast(panel, panel.dates[-3:])
    assert bool(forecast.mask.all())
    volatility = dict(zip(panel.assets, forecast.volatility[-1, 0].tolist(), strict=True))
    assert 0.005 < volatility["NASDAQ"] < 0.05
    assert volatility["STILL"] < 1e-6
    short = panel.select(["NASDAQ"])
    assert bool(MODEL.forecast(short, panel.dates[-3:]).volatility.isfinite().all())


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="proxy=range: give one of realised"):
        HAR("range")
    with pytest.raises(ValueError, match="min_history=60: give at least 92 returns"):
        HAR(spec=WindowSpec(horizons=(1, 60)))
