"""An allocator in skfolio's model selection."""

import numpy as np
import pandas as pd
import pytest
import torch

from qtorch.backtest import EqualWeight, SkfolioAllocator
from qtorch.data import DataError, WindowSpec
from qtorch.models import AssetGraph, GraphCovariance, Recurrent
from qtorch.portfolio import MinimumVariance
from qtorch.training import Allocator

pytest.importorskip("skfolio")
from skfolio.model_selection import CombinatorialPurgedCV, WalkForward, cross_val_predict
from skfolio.optimization import EqualWeighted, MeanRisk
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from qtorch.backtest import SklearnAllocator
from qtorch.backtest.sklearn_allocator import returns_panel


@pytest.fixture(scope="module")
def returns(stocks) -> pd.DataFrame:
    return stocks.to_wide("return").loc["2018-01-02":"2018-06-29"].iloc[:, :5].rename_axis(columns=None)


def test_parameters_are_kept_and_cloned():
    allocate = EqualWeight(3)
    estimator = SklearnAllocator(allocate, exchange="XLON", portfolio_params={"name": "mine"})
    copy = clone(estimator)
    assert copy.get_params(deep=False) == estimator.get_params(deep=False)
    assert copy.set_params(exchange="XNYS").exchange == "XNYS"
    assert not hasattr(copy, "weights_")


def test_it_predicts_what_skfolios_own_does(returns):
    split = WalkForward(train_size=60, test_size=30)
    for ours, theirs in ((EqualWeight(), EqualWeighted()), (SkfolioAllocator(MeanRisk(), 60), MeanRisk())):
        found = cross_val_predict(SklearnAllocator(ours), returns, cv=split)
        expected = cross_val_predict(theirs, returns, cv=split)
        np.testing.assert_allclose(found.returns, expected.returns, atol=1e-7)
        assert [p.name for p in found.portfolios] == ["SklearnAllocator"] * len(expected.portfolios)


def test_holdings_reach_the_allocator(returns):
    class Lazy:
        """Buys the first asset once, and then keeps what it has."""

        def __call__(self, panel, row, holdings):
            first = torch.zeros_like(holdings)
            first[0] = 1.0
            return holdings if holdings.any() else first

    path = cross_val_predict(SklearnAllocator(Lazy()), returns, cv=WalkForward(train_size=60, test_size=30))
    np.testing.assert_allclose(path.returns, returns.iloc[60 : 60 + len(path.returns), 0], atol=1e-12)
    assert all(portfolio.weights[0] == pytest.approx(1.0) for portfolio in path.portfolios)
    given = SklearnAllocator(Lazy(), previous_weights={returns.columns[1]: 0.5}).fit(returns)
    assert given.weights_.tolist() == [0.0, 0.5, 0.0, 0.0, 0.0]


@pytest.mark.harness
def test_an_allocator_goes_through_both_kinds_of_folds(stocks):
    returns = stocks.to_wide("return").loc["2017-01-03":"2018-12-28"].iloc[:, :4].rename_axis(columns=None)
    torch.manual_seed(0)
    spec = WindowSpec(16)
    states = AssetGraph(Recurrent(len(spec.features), width=4), estimates=2, width=8)
    model = Allocator(GraphCovariance(states), MinimumVariance(upper=0.5), spec, min_history=60)
    estimator = SklearnAllocator(model)
    path = cross_val_predict(estimator, returns, cv=WalkForward(train_size=100, test_size=75))
    split = CombinatorialPurgedCV(n_folds=4, n_test_folds=2, purged_size=2)
    paths = cross_val_predict(estimator, returns, cv=split)
    first = model.allocate(returns_panel(returns.iloc[:100], "XNYS"), returns.index[99])
    np.testing.assert_allclose(path.portfolios[0].weights, first.iloc[0], atol=1e-6)
    for portfolio in (*path.portfolios, *(each for one in paths for each in one.portfolios)):
        assert portfolio.weights.sum() == pytest.approx(1.0, abs=1e-5)
        assert -1e-6 <= portfolio.weights.min() < portfolio.weights.max() <= 0.5 + 1e-5
    np.testing.assert_allclose(path.portfolios[1].returns, returns.iloc[175:250] @ path.portfolios[1].weights)
    assert path.summary().notna().any()
    assert len(paths.summary().columns) == split.n_test_paths == 3
    for (train, tests), path_ids in zip(split.split(returns), split.get_path_ids(), strict=True):
        (hole,) = np.nonzero(np.diff(train) > 1)
        fold = returns.iloc[train[hole[-1] + 1 :] if len(hole) else train]
        expected = model.allocate(returns_panel(fold, "XNYS"), fold.index[-1]).iloc[0]
        for test, path_id in zip(tests, path_ids, strict=True):
            (tested,) = [each for each in paths[path_id].portfolios if each.observations[0] == returns.index[test[0]]]
            np.testing.assert_allclose(tested.weights, expected, atol=1e-6)


def test_a_refit_leaves_the_parameter_alone(returns):
    class Refitting(EqualWeight):
        refit_every = 1

        def refit(self, panel, row):
            object.__setattr__(self, "rows", row + 1)

    estimator = SklearnAllocator(Refitting()).fit(returns)
    assert estimator.allocate_.rows == len(returns) + 1
    assert not hasattr(estimator.allocate, "rows")


def test_settings_are_searched(returns):
    grid = {"allocate": [SkfolioAllocator(MeanRisk(), lookback) for lookback in (30, 50)]}
    search = GridSearchCV(SklearnAllocator(EqualWeight()), grid, cv=WalkForward(train_size=60, test_size=60))
    search.fit(returns)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_estimator_.weights_.sum() == pytest.approx(1.0)


def test_a_panel_has_the_returns_of_the_frame(returns):
    frame = returns.copy()
    frame.iloc[:30, 1] = np.nan  # not listed yet
    frame.iloc[50, 2] = np.nan
    panel = returns_panel(frame, "XNYS")
    assert len(panel.dates) == len(frame) + 1
    np.testing.assert_allclose(panel.returns()[1:].numpy(), frame.to_numpy(), atol=1e-12)
    assert panel.mask[:, 1].nonzero()[0].item() == 30


@pytest.mark.parametrize("left_out", [slice(40, 100), slice(40, 51)])
def test_no_return_goes_over_a_hole_in_the_rows(returns, left_out):
    """The series begin anew after it, and their first return is the frame's, over one session."""
    frame = returns.drop(returns.index[left_out]).drop(returns.index[10:13])  # two holes, and three sessions
    panel = returns_panel(frame, "XNYS")
    after = returns.iloc[left_out.stop :]
    assert panel.dates[1:].equals(after.index)
    np.testing.assert_allclose(panel.returns()[1:].numpy(), after.to_numpy(), atol=1e-12)


def test_a_return_goes_over_a_few_sessions(returns):
    panel = returns_panel(returns.drop(returns.index[40:50]), "XNYS")
    assert len(panel.dates) == len(returns) + 1
    assert panel.returns()[41:51].isnan().all()
    np.testing.assert_allclose(panel.returns()[51:].numpy(), returns.iloc[50:].to_numpy(), atol=1e-12)


def test_a_loss_of_all_is_named(returns):
    frame = returns.copy()
    frame.iloc[7, 1] = -1.0
    with pytest.raises(DataError, match=f"returns of -100 % or less: {frame.columns[1]} {frame.index[7]:%Y-%m-%d}"):
        returns_panel(frame, "XNYS")


def test_rows_out_of_order_are_refused(returns):
    with pytest.raises(DataError, match="out of order"):
        returns_panel(returns.iloc[::-1], "XNYS")


def test_an_asset_without_a_return_gets_nothing(returns):
    frame = returns.copy()
    frame.iloc[:, 1] = np.nan
    assert SklearnAllocator(EqualWeight()).fit(frame).weights_.tolist() == [0.25, 0.0, 0.25, 0.25, 0.25]


def test_returns_without_dates_are_refused(returns):
    with pytest.raises(DataError, match="dates as their index"):
        SklearnAllocator(EqualWeight()).fit(returns.reset_index(drop=True))


def test_returns_of_months_are_kept_and_what_lies_behind_a_hole_is_not():
    ends = pd.date_range("2018-01-31", periods=40, freq="BME")
    months = pd.DataFrame(np.random.default_rng(0).normal(0, 0.04, (40, 2)), ends, ["A", "B"])
    panel = returns_panel(months, "XNYS")
    got = panel.returns()[[panel.row(date) for date in ends[ends.isin(panel.dates)]]]
    assert len(got) == 40
    np.testing.assert_allclose(got[1:], months.iloc[1:], rtol=1e-9)
    assert returns_panel(months.drop(ends[10:20]), "XNYS").dates[1] == ends[20]
