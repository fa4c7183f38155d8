"""Finite-sample coverage of conformal quantiles, one-sided, two-sided, weighted and pooled."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from qtorch.calibration import ConformalisedQuantiles, backtest, conformal_interval, conformal_quantile
from tests.calibration.markets import draws, normal_forecast


@pytest.mark.parametrize(("n", "p"), [(19, 0.05), (30, 0.1), (99, 0.03)])
def test_coverage_is_exact_where_scores_are_exchangeable(n, p):
    trials = 40_000
    scores = draws(n + 1, trials, seed=n)
    beyond = int((scores[-1] > conformal_quantile(scores[:-1], p)).sum())
    # The next of n + 1 has any rank with the same probability.
    exact = 1 - math.ceil((1 - p) * (n + 1) - 1e-9) / (n + 1)
    assert p - 1 / (n + 1) <= exact <= p + 1e-12
    assert stats.binomtest(beyond, trials, exact).pvalue > 1e-3


def test_too_few_scores_have_no_finite_bound():
    scores = draws(40, 3)
    scores[18:, 0], scores[19:, 1] = torch.nan, torch.inf
    q = conformal_quantile(scores, 0.05)
    assert q[0] == torch.inf
    assert q[1] == scores[:19, 1].max()
    assert q[2] == scores[:, 2].sort().values[math.ceil(0.95 * 41) - 1]


def test_weights_are_those_of_the_definition():
    scores, weights = draws(50, 2), torch.rand(50, dtype=torch.float64)
    mask = torch.rand(50, 2) > 0.2
    q = conformal_quantile(scores, 0.2, weights, mask)
    for n in range(2):
        s, w = scores[mask[:, n], n].numpy(), weights[mask[:, n]].numpy()
        enough = [x for x in np.sort(s) if w[s <= x].sum() >= 0.8 * (1 + w.sum())]
        assert q[n].item() == enough[0]


def test_a_group_has_the_quantile_of_all_its_scores():
    forecast, returns = normal_forecast(60, 3), 3 * draws(60, 1, 3)
    groups = {"A0": "XNYS", "A1": None, "A2": "XNYS"}
    calibrator = ConformalisedQuantiles([0.9], 200, groups=groups)
    calibrator.update(forecast, returns)
    shift = calibrator.apply(forecast).shift[0, 0, 0]
    scores = -returns[:-1, 0] - forecast.value_at_risk(0.9)[:-1, 0]
    together = conformal_quantile(scores[:, [0, 2]].reshape(-1), 0.1)
    torch.testing.assert_close(shift, torch.stack([together, conformal_quantile(scores[:, 1], 0.1), together]))
    with pytest.raises(ValueError, match="no label for A2"):
        ConformalisedQuantiles([0.9], groups={"A0": "XNYS", "A1": None}).update(forecast, returns)


def test_raw_values_at_risk_stay_until_scores_are_enough():
    forecast, returns = normal_forecast(60), 3 * draws(60, 1, 1)
    made = backtest(ConformalisedQuantiles([0.95]), forecast, returns)
    assert (made.shift[0, :19] == 0).all()
    assert (made.shift[0, 19:] != 0).all()


def test_intervals_cover_as_often_as_they_say():
    trials, n = 4000, 39
    law = normal_forecast(n + 1, trials)
    y = 2 * draws(n + 1, 1, trials)
    past, new = law.select(slice(0, n)), law.select(slice(n, None))
    low, high = conformal_interval(past, y[:n], new, 0.9)
    covered = int(((y[n:] >= low) & (y[n:] <= high)).sum())
    assert stats.binomtest(covered, trials, 36 / 40).pvalue > 1e-3
    raw = (y[n:].abs() <= 1.645).double().mean()
    assert raw < 0.65
    with pytest.raises(ValueError, match="new ones start"):
        conformal_interval(law, y, new, 0.9)
    one = conformal_interval(past, y[:n], new, 0.9, half_life=10.0, groups=dict.fromkeys(law.assets, "all"))
    assert one[0].unique().numel() == 1
    assert one[1].item() if one[1].numel() == 1 else one[1].mean().item() == pytest.approx(2 * 1.645, rel=0.05)


def test_a_session_counts_once_in_intervals_however_many_closed_rows_forecast_it():
    D, n = 80, 70
    observed = draws(D, 2, seed=2) > -0.7
    observed[0] = observed[n] = True
    forecast = normal_forecast(D, 2, observed=observed)
    y = draws(D, 1, 2)
    for t in range(D - 2, -1, -1):  # rows up to the next session have one outcome
        y[t] = torch.where(observed[t + 1], y[t], y[t + 1])
    past, new = forecast.select(slice(0, n)), forecast.select(slice(n, None))
    assert past.state.ne(past.state[0]).any()
    interval = conformal_interval(past, y[:n], new, 0.8)
    once = torch.where(observed[:n, None], y[:n], torch.nan)
    for end, expected in zip(interval, conformal_interval(past, once, new, 0.8), strict=True):
        torch.testing.assert_close(end, expected, rtol=0, atol=0)
    # Where the session's own row has no outcome, the first closed one's counts.
    later = y[:n].clone()
    later[:-1][(observed[: n - 1] & ~observed[1:n])[:, None]] = torch.nan
    for end, expected in zip(conformal_interval(past, later, new, 0.8), interval, strict=True):
        torch.testing.assert_close(end, expected, rtol=0, atol=0)


def test_intervals_refuse_outcomes_of_later_and_of_the_training_set():
    D, n = 60, 50
    observed = torch.ones(D, 2, dtype=torch.bool)
    observed[44:47, 1] = False
    forecast, y = normal_forecast(D, 2, (1, 10), observed=observed), draws(D, 2, 2)
    past, new = forecast.select(slice(0, n)), forecast.select(slice(n, None))
    # Ten sessions up to the first new row begin on row 40 of the first asset, and of the other on row 37.
    with pytest.raises(ValueError, match=rf"21 outcomes are not known on {new.dates[0]:%Y-%m-%d}.*A1 over 10 sessions"):
        conformal_interval(past, y[:n], new, 0.9)
    known = y[:n].clone()
    known[41:, 1, 0] = known[39:, 1, 1] = torch.nan
    with pytest.raises(ValueError, match="1 outcomes .* A1"):
        conformal_interval(past, known, new, 0.9)
    known[38, 1, 1] = torch.nan
    low, high = conformal_interval(past, known, new, 0.9)
    assert (low < high).all()
    with pytest.raises(ValueError, match=r"8 of the 50 .* trained"):
        conformal_interval(past, known, new, 0.9, trained_through=past.dates[7])
    conformal_interval(past, known, new, 0.9, trained_through=past.dates[0] - pd.Timedelta(days=1))
