"""The frame of all diagnostics, and the pictures of two of them."""

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from scipy import stats

from qtorch import Forecast
from qtorch.distributions import Posterior, StudentT
from qtorch.risk import crps, log_score
from qtorch.risk.diagnostics import calibration_error, clustered_mean, rank_correlation, report, selective_risk
from qtorch.risk.plots import legend_above, reliability_diagram, selective_risk_curve

D, N = 300, 3
DATES = pd.bdate_range("2020-06-01", periods=D)


def forecast_of(law, mask=None):
    days = law.batch_shape[0]
    there = torch.ones(days, N, dtype=torch.bool) if mask is None else mask
    return Forecast(law, there, there.byte(), DATES[:days], ("A", "B", "C"), (1,))


@pytest.fixture(scope="module")
def right():
    """A forecast that is right, its outcomes with holes, and where they are."""
    g = torch.Generator().manual_seed(0)
    scale = torch.rand(D, 1, N, generator=g) * 0.02 + 0.005
    law = StudentT(torch.tensor(5.0), torch.zeros(D, 1, N), scale)
    torch.manual_seed(1)
    y = law.sample()
    there = torch.rand(D, 1, N, generator=g) < 0.9
    return law, torch.where(there, y, torch.nan), there[:, 0]


def of(frame, by, group, measure, level=None):
    rows = frame[(frame["by"] == by) & (frame["group"] == group) & (frame["measure"] == measure)]
    (row,) = (rows if level is None else rows[rows["level"] == level]).to_dict("records")
    return row


def test_each_row_is_that_of_its_measure(right):
    law, y, there = right
    age = torch.arange(D).unsqueeze(1).expand(D, N) + torch.tensor([0, 300, 800])
    crisis = np.where(DATES < "2020-12-01", "crisis", None)
    frame = report(forecast_of(law), y, history=age, labels={"regime": crisis})
    assert set(frame["by"]) == {"all", "asset", "volatility", "year", "history", "regime"}
    assert set(frame.loc[frame["by"] == "volatility", "group"]) == {"calm", "usual", "rough"}
    assert set(frame.loc[frame["by"] == "year", "group"]) == {"2020", "2021"}
    assert set(frame.loc[frame["by"] == "regime", "group"]) == {"crisis"}
    spans = frame[(frame["by"] == "history") & (frame["measure"] == "crps")].set_index("group")["observations"]
    assert spans["below 250 sessions"] == int(there[:250, 0].sum())
    assert spans["1000 sessions and more"] == int(there[200:, 2].sum())
    score = log_score(law, y)[:, 0]
    mean = clustered_mean(score[:, 1:2].unsqueeze(-1))
    row = of(frame, "asset", "B", "log_score")
    assert row["value"] == pytest.approx(mean.mean.item())
    assert row["high"] - row["value"] == pytest.approx(1.96 * mean.standard_error.item(), rel=1e-4)
    assert row["observations"] == int(there[:, 1].sum())
    assert of(frame, "all", "all", "crps")["value"] == pytest.approx(crps(law, y).nanmean().item(), rel=1e-6)
    pit = law.cdf(y.double())[:, 0]
    error = calibration_error(pit[:, 0])
    row = of(frame, "asset", "A", "calibration_error")
    assert (row["value"], row["high"]) == (pytest.approx(error.error.item()), pytest.approx(error.bound.item()))
    row = of(frame, "all", "all", "exceedance_rate", 0.95)
    assert row["value"] == pytest.approx((pit[there] <= 0.05).double().mean().item())
    assert row["low"] < 0.05 < row["high"]
    assert of(frame, "all", "all", "calibration_error")["value"] < of(frame, "all", "all", "calibration_error")["high"]


def test_what_is_masked_changes_nothing(right):
    law, y, there = right
    mask = there.clone()
    mask[:, 2] = False
    frame = report(forecast_of(law, mask), y)
    scale = torch.where(mask.unsqueeze(1), law.scale, 7.0)
    spoilt = StudentT(law.df, torch.zeros(D, 1, N), scale)
    other = report(forecast_of(spoilt, mask), torch.where(mask.unsqueeze(1), y, torch.inf))
    pd.testing.assert_frame_equal(frame, other)
    assert set(frame.loc[frame["by"] == "asset", "group"]) == {"A", "B"}


def test_doubt_that_finds_the_errors_is_seen(right):
    y, there = right[1][:60], right[2][:60]
    g = torch.Generator().manual_seed(2)
    wrong = torch.rand(60, 1, N, generator=g) < 0.3
    members = 0.01 * torch.tensor([-1.0, 1.0]) * torch.where(wrong, 1.0, 0.1).unsqueeze(-1)
    law = Posterior(torch.ones(2), StudentT(torch.tensor(8.0), members, torch.tensor(0.01)))
    outcomes = torch.where(wrong & there.unsqueeze(1), y.sign() * 0.05, 0.2 * y)
    frame = report(forecast_of(law), outcomes)
    doubt = members.var(-1, correction=0) / law.variance
    surprise = log_score(law, outcomes) - law.variance.sqrt().log()
    found = rank_correlation(doubt[:, 0], surprise[:, 0])
    row = of(frame, "all", "all", "doubt_correlation")
    assert row["value"] == pytest.approx(found.estimate, abs=1e-6)
    assert row["low"] > 0.5
    assert of(frame, "all", "all", "doubt_gain")["value"] > 0.9
    assert of(frame, "all", "all", "epistemic_share")["value"] == pytest.approx(doubt[:, 0][there].mean().item())
    assert "doubt_gain" not in set(report(forecast_of(StudentT(5.0, torch.zeros(60, 1, N), 0.01)), y)["measure"])


def test_wrong_shapes_and_horizons_are_refused(right):
    law, y, _ = right
    with pytest.raises(ValueError, match="horizon=5"):
        report(forecast_of(law), y, horizon=5)
    with pytest.raises(ValueError, match=r"returns=\(299"):
        report(forecast_of(law), y[1:])
    with pytest.raises(ValueError, match="labels"):
        report(forecast_of(law), y, labels={"x": ["a"] * 5})


def drawn(ax):
    return {line.get_label(): np.asarray(line.get_ydata()) for line in ax.lines}


def test_a_reliability_diagram_marks_what_is_outside_its_band():
    u = torch.rand(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) ** 1.3
    result = calibration_error(u)
    ax = Figure().subplots()
    reliability_diagram(ax, result)
    gap = (result.observed - result.probabilities).numpy()
    (line,) = [y for label, y in drawn(ax).items() if label.startswith("observed, n = 1,000")]
    np.testing.assert_allclose(line, gap)
    band = stats.norm.ppf(0.975) * result.standard_error.numpy()
    np.testing.assert_allclose(drawn(ax)["outside the band"], gap[abs(gap) > band])
    legend_above(ax)
    ax.figure.canvas.draw()
    with pytest.raises(ValueError, match=r"series \(2,\)"):
        reliability_diagram(ax, calibration_error(u.reshape(-1, 2)))


def test_a_selective_risk_curve_lies_between_the_oracle_and_random():
    g = torch.Generator().manual_seed(0)
    loss = torch.rand(400, generator=g)
    curve = selective_risk(loss + torch.rand(400, generator=g), loss)
    ax = Figure().subplots()
    selective_risk_curve(ax, curve, "log score")
    lines = drawn(ax)
    assert (lines["if losses were known"] <= lines[f"the surest first, gain {curve.gain:.0%}"] + 1e-12).all()
    assert lines["at random"][0] == curve.random
    assert ax.get_ylabel() == "mean log score"
    legend_above(ax)
    ax.figure.canvas.draw()
