"""Scores of forecasts: higher for what to buy."""

from functools import partial

import pandas as pd
import pytest
import torch
from scipy import stats

from qtorch.backtest.adapters.scores import gain_probability, less_risk, mean_return
from qtorch.forecast import Forecast

LAW = stats.norm(0.01, 0.02)


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (mean_return, 0.01),
        (gain_probability, LAW.sf(0)),
        (less_risk, LAW.ppf(0.01)),
        (partial(less_risk, level=0.95), LAW.ppf(0.05)),
    ],
)
def test_scores_of_a_normal_law_are_scipys(score, expected):
    there = torch.ones(1, 1, dtype=torch.bool)
    law = torch.distributions.Normal(torch.full((1, 1, 1), 0.01).double(), torch.tensor(0.02).double())
    forecast = Forecast(law, there, there.byte(), pd.DatetimeIndex(["2024-01-02"]), ("A",), (1,))
    assert score(forecast).item() == pytest.approx(expected, rel=1e-6)
