import numpy as np
import pandas as pd
import pytest
import torch

from qtorch.data import DataError, Panel, WindowSource, load_sample, portfolio_panel
from qtorch.models import Garch, RiskMetrics, default_windows

FRAME = load_sample().query("date >= '2015-01-01' and asset in ['AAPL', 'KO', 'EURUSD']")


@pytest.fixture(scope="module")
def panel():
    return Panel.from_frame(FRAME)


def test_its_returns_are_those_of_the_positions(panel):
    exposures = torch.tensor([50.0, -20.0, 30.0])
    portfolio = portfolio_panel(panel, exposures)
    returns = panel.returns()
    there = returns.isfinite().any(1)
    expected = returns.nan_to_num() @ (exposures.double() / 100)
    assert list(portfolio.dates[1:]) == list(panel.dates[there.numpy()])
    torch.testing.assert_close(portfolio.returns()[1:, 0], expected[there], rtol=1e-9, atol=1e-12)
    assert not there[: panel.row(portfolio.dates[0]) + 1].any()


def test_it_has_no_holes_and_any_forecaster_can_be_asked_about_it(panel):
    portfolio = portfolio_panel(panel, torch.ones(3), name="EW")
    assert portfolio.mask.all()
    dates = portfolio.dates[-5:]
    for model in (RiskMetrics(), Garch(o=1, errors="skewed_t")):
        forecast = model.forecast(portfolio, dates)
        assert forecast.assets == ("EW",)
        assert forecast.mask.all()


def test_its_past_does_not_depend_on_what_came_later(panel):
    exposures = torch.tensor([0.5, 0.3, 0.2])
    cut = panel.until(panel.dates[-300])
    whole, known = portfolio_panel(panel, exposures), portfolio_panel(cut, exposures)
    assert torch.equal(whole.until(known.dates[-1]).close, known.close)
    spec = default_windows(known)
    at = [WindowSource(market, spec).at(np.array([len(known.dates) - 1]), 60, 5)[0] for market in (whole, known)]
    inputs = [
        WindowSource(market, spec).gather(entries.flatten()).inputs
        for market, entries in zip((whole, known), at, strict=True)
    ]
    assert torch.equal(*inputs)


def test_its_next_session_is_that_of_its_positions(panel):
    friday = panel.until("2022-11-25")
    portfolio = portfolio_panel(friday, torch.ones(3))
    assert portfolio.next_session_day[-1, 0] == friday.next_session_day[-1].min()
    assert portfolio.as_of[-1] == friday.as_of[-1]
    london = portfolio_panel(Panel.from_frame(FRAME, as_of="16:30 Europe/London"), torch.ones(3))
    assert f"{london.as_of[-1]:%H:%M}" == "16:30"


def test_positions_that_make_no_portfolio_are_refused(panel):
    for exposures in (torch.zeros(3), torch.ones(2), torch.tensor([1.0, torch.nan, 1.0])):
        with pytest.raises(DataError, match="a portfolio of 3 assets needs as many finite exposures"):
            portfolio_panel(panel, exposures)
    days = pd.bdate_range("2020-01-01", periods=3)
    ruined = Panel.from_frame(pd.DataFrame({"A": [1.0, 2.5, 2.0], "B": [1.0, 1.0, np.nan]}, days), exchange="24/5")
    with pytest.raises(DataError, match="loses all it has on 2020-01-02"):
        portfolio_panel(ruined, torch.tensor([-1.0, 0.0]))
    with pytest.raises(DataError, match="no position of the portfolio has a return"):
        portfolio_panel(ruined.until("2020-01-01"), torch.tensor([1.0, 0.0]))
