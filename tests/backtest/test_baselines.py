"""Baselines: published figures, masks and closed markets."""

import numpy as np
import pytest
import torch

from qtorch.backtest import (
    EqualWeight,
    InverseVolatility,
    SkfolioAllocator,
    WalkForward,
    equal_risk,
    hierarchical_risk_parity,
    listed_assets,
    maximum_diversification,
    minimum_variance,
    summary,
)
from qtorch.portfolio import Constraints, Costs

pytest.importorskip("skfolio")
OURS = {
    "inverse volatility": lambda: InverseVolatility(60),
    "minimum variance": lambda: minimum_variance(60),
    "minimum variance, bounded": lambda: minimum_variance(60, upper=0.4),
    "hierarchical risk parity": lambda: hierarchical_risk_parity(60),
    "risk parity": lambda: equal_risk(60),
    "maximum diversification": lambda: maximum_diversification(60),
}
# Sharpe ratio, volatility and one-way turnover of the same protocol in a plain loop over skfolio's estimators: 2015 to
# 2022, monthly, 10 basis points, three years of returns.
REFERENCE = {
    "equal weight": (EqualWeight, 0.925463, 0.186269, 0.305567),
    "inverse volatility": (InverseVolatility, 0.867168, 0.171985, 0.261778),
    "minimum variance": (minimum_variance, 0.626262, 0.156744, 0.488108),
    "bounded": (lambda: minimum_variance(upper=0.1), 0.788963, 0.158129, 0.376474),
    "hierarchical": (hierarchical_risk_parity, 0.804719, 0.165692, 0.802474),
    "risk parity": (equal_risk, 0.901607, 0.173351, 0.280496),
    "diversification": (maximum_diversification, 0.989535, 0.189289, 0.621444),
}
SLOW = {"minimum variance", "bounded", "hierarchical", "risk parity", "diversification"}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in REFERENCE])
def test_figures_are_those_of_a_plain_loop(stocks, name):
    make, *expected = REFERENCE[name]
    limits = Constraints(upper=0.1 if name == "bounded" else 1.0)
    walk = WalkForward("month", "2015-01-01", costs=Costs(proportional=0.001), constraints=limits)
    found = summary(walk.run(stocks, make()))
    assert found[["sharpe", "volatility", "turnover"]].tolist() == pytest.approx(expected, abs=1e-3)
    assert found[["sessions", "rebalances", "violations"]].tolist() == [2012, 96, 0]


@pytest.mark.parametrize("name", OURS)
def test_a_changing_market_breaks_nothing(changing, name):
    limits = Constraints(upper=0.4 if "bounded" in name else 1.0)
    track = WalkForward("month", "2019-05-01", costs=Costs(proportional=0.001), constraints=limits).run(
        changing, OURS[name]()
    )
    weights = track.weights_frame()
    assert track.violations().empty
    assert (weights.loc[:"2019-08-30", "NEW"] == 0).all()  # 60 rows after 3 June
    assert (weights.loc["2019-08-20":, "OLD"] == 0).all()
    decided = track.weights[track.trade_rows[torch.tensor(track.decisions)]]
    torch.testing.assert_close(decided.sum(-1), torch.ones(len(decided), dtype=torch.float64))


def test_what_is_masked_changes_nothing(changing):
    """NaN in the values of cells without a price, and prices of what is not in the universe, are not looked at."""
    from dataclasses import replace

    panel = changing.until("2019-07-31")
    held = torch.zeros(5, dtype=torch.float64)
    values = panel.values.clone()
    values[~panel.mask] = torch.inf
    new = panel.assets.index("NEW")
    for make in OURS.values():
        plain = make()(panel, len(panel.dates) - 1, held)
        masked = make()(replace(panel, values=values), len(panel.dates) - 1, held)
        assert torch.equal(plain, masked)
        assert plain[new] == 0


def test_an_optimiser_sees_the_assets_with_a_whole_lookback(changing):
    from skfolio.optimization import EqualWeighted

    class Recording(EqualWeighted):
        seen = []

        def fit(self, X, y=None):
            self.seen.append(X)
            return super().fit(X)

    panel = changing.until("2019-07-31")
    SkfolioAllocator(Recording(), 60)(panel, len(panel.dates) - 1, torch.zeros(5, dtype=torch.float64))
    (frame,) = Recording.seen
    assert list(frame.columns) == ["A", "B", "E", "OLD"]
    assert frame.index.equals(panel.dates[-60:])
    returns = torch.nan_to_num(panel.returns()[-60:, [0, 1, 2, 4]], nan=0.0)
    np.testing.assert_array_equal(frame.to_numpy(), returns.numpy())


def test_inverse_volatilities_by_pandas(stocks):
    panel = stocks.until("2016-12-30")
    weights = InverseVolatility(500)(panel, len(panel.dates) - 1, torch.zeros(20, dtype=torch.float64))
    inverse = 1 / panel.to_wide("return").iloc[-500:].std()
    np.testing.assert_allclose(weights, inverse / inverse.sum())


def test_silent_assets_are_left_out(busy):
    from qtorch.data import Panel

    panel = Panel.from_frame(busy)  # nothing is known of delistings
    for date, there in (("2019-08-23", True), ("2019-08-27", False)):
        assert bool(listed_assets(panel.until(date))[panel.assets.index("OLD")]) is there


def test_closed_positions_beyond_the_budget_leave_room_for_nothing(changing):
    panel = changing.until("2019-07-04")  # New York is closed, Frankfurt is open
    held = torch.tensor([0.6, 0.405, 0.0, 0.0, 0.0], dtype=torch.float64)
    weights = EqualWeight()(panel, len(panel.dates) - 1, held)
    assert weights.tolist() == [0.6, 0.405, 0.0, 0.0, 0.0]
