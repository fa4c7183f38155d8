"""Forecasts and allocators in skfolio's optimisers and model selection."""

from inspect import unwrap

import numpy as np
import pandas as pd
import pytest
import torch

from qtorch.backtest import EqualWeight, SklearnAllocator
from qtorch.data import DataError, WindowSpec
from qtorch.distributions import GaussianCopula, StudentT
from qtorch.forecast import Forecast
from qtorch.models import RiskMetrics

pytest.importorskip("skfolio")
from skfolio import RiskMeasure
from skfolio.model_selection import CombinatorialPurgedCV, WalkForward, cross_val_predict
from skfolio.optimization import EqualWeighted, MeanRisk
from sklearn.base import clone

from qtorch.backtest.adapters import ForecastPrior
from qtorch.backtest.sklearn_allocator import returns_panel


@pytest.fixture(scope="module")
def returns(stocks) -> pd.DataFrame:
    return stocks.to_wide("return").loc["2018-01-02":"2018-12-31"].iloc[:, :4].rename_axis(columns=None)


def known_law(returns: pd.DataFrame, missing: bool = False) -> Forecast:
    """A Gaussian copula of correlation .64 over Student-t marginals, on every date."""
    D, N = returns.shape
    scale = torch.tensor([0.01, 0.02, 0.01, 0.03]).double().expand(D, 1, N)
    law = StudentT(torch.tensor(8.0).double(), torch.full((D, 1, N), 0.001).double(), scale)
    mask = torch.ones(D, N, dtype=torch.bool)
    mask[:, 3] = not missing
    forecast = Forecast(law, mask, mask.byte(), returns.index, tuple(returns.columns), (1,))
    return forecast.with_copula(GaussianCopula(torch.full((N, 1), 0.8).double()))


def rm_prior(**settings) -> ForecastPrior:
    return ForecastPrior(
        RiskMetrics(WindowSpec(16, (1,))), **{"scenarios": 256, "lookback": 80, "factors": 1} | settings
    )


def test_moments_are_the_laws(returns):
    fitted = ForecastPrior(known_law(returns), scenarios=8192).fit(returns)
    got = fitted.return_distribution_
    sd = np.array([0.01, 0.02, 0.01, 0.03]) * (8 / 6) ** 0.5
    np.testing.assert_allclose(got.mu, 0.001, atol=2e-4)
    np.testing.assert_allclose(np.diag(got.covariance), sd**2, rtol=0.05)
    correlation = got.covariance / np.sqrt(np.outer(np.diag(got.covariance), np.diag(got.covariance)))
    np.testing.assert_allclose(correlation[np.triu_indices(4, 1)], 0.64, atol=0.03)
    np.testing.assert_allclose(got.covariance, np.cov(got.returns.T))
    assert fitted.feature_names_in_.tolist() == returns.columns.tolist()


def test_columns_are_matched_by_name(returns):
    law = known_law(returns)
    plain = ForecastPrior(law, scenarios=64).fit(returns).return_distribution_
    turned = ForecastPrior(law, scenarios=64).fit(returns.iloc[:, ::-1]).return_distribution_
    np.testing.assert_array_equal(turned.returns, plain.returns[:, ::-1])
    with pytest.raises(DataError, match="not in the forecast: ELSE"):
        ForecastPrior(law).fit(returns.assign(ELSE=0.0))


def test_what_has_no_forecast_gets_nothing(returns):
    prior = ForecastPrior(known_law(returns, missing=True), scenarios=256)
    model = MeanRisk(risk_measure=RiskMeasure.CVAR, prior_estimator=prior).fit(returns)
    assert model.weights_[3] == 0
    assert model.weights_.sum() == pytest.approx(1.0)


def test_a_forecaster_sees_the_returns_that_it_is_given(returns):
    first = rm_prior().fit(returns.iloc[:200]).return_distribution_
    changed = returns.iloc[:200].copy()
    changed.iloc[-1] *= 10
    wider = rm_prior().fit(changed).return_distribution_
    assert (np.diag(wider.covariance) > np.diag(first.covariance)).all()
    sd = returns.iloc[100:200].std()
    np.testing.assert_allclose(np.sqrt(np.diag(first.covariance)) / sd, 1.0, atol=0.5)
    realised = returns.iloc[120:200].corr().to_numpy()[np.triu_indices(4, 1)].mean()
    d = 1 / np.sqrt(np.diag(first.covariance))
    assert (first.covariance * np.outer(d, d))[np.triu_indices(4, 1)].mean() == pytest.approx(realised, abs=0.15)


def test_marginals_that_no_copula_can_be_fitted_to_are_refused(returns):
    prior = ForecastPrior(RiskMetrics(WindowSpec(16, (5,))), horizon=5, lookback=80)
    with pytest.raises(ValueError, match=r"forecast\.horizons=\(5,\)"):
        prior.fit(returns.iloc[:65])
    with pytest.raises(DataError, match=r"2018-03-28.*no two assets have forecasts on the 40 rows before"):
        rm_prior(lookback=40).fit(returns.iloc[:60])


def test_an_asset_without_a_return_can_not_be_invested_in(returns):
    """Its scenarios are NaN, and those of the others as without it."""
    never = returns.iloc[:100, :2].assign(NEVER=np.nan)[[returns.columns[0], "NEVER", returns.columns[1]]]
    prior = rm_prior(scenarios=64, lookback=20)
    got = clone(prior).fit(never).return_distribution_
    without = clone(prior).fit(never.drop(columns="NEVER")).return_distribution_
    assert np.isnan(got.returns[:, 1]).all()
    assert np.isnan(got.covariance[1]).all()
    np.testing.assert_array_equal(got.returns[:, [0, 2]], without.returns)


def test_one_asset_needs_no_copula(returns):
    one, spec = returns[returns.columns[:1]], WindowSpec(16, (5,))
    prior = ForecastPrior(RiskMetrics(spec), horizon=5, scenarios=4096).fit(one.iloc[:100])
    panel = returns_panel(one.iloc[:100], "XNYS")
    volatility = RiskMetrics(spec).forecast(panel, panel.dates[-1:]).volatility.item()
    assert prior.return_distribution_.covariance.shape == (1, 1)
    assert prior.return_distribution_.covariance.item() ** 0.5 == pytest.approx(volatility, rel=0.01)


def test_an_array_has_no_dates(returns):
    """Whatever type the tests' own check would have refused."""
    for estimator in (rm_prior(), SklearnAllocator(EqualWeight())):
        with pytest.raises(DataError, match="returns need dates as their index to make a panel, not ndarray"):
            unwrap(type(estimator).fit)(estimator, returns.to_numpy())


@pytest.mark.harness
def test_a_forecaster_goes_through_a_walk_forward(returns):
    prior, split = rm_prior(lookback=20), WalkForward(train_size=90, test_size=70)
    assert clone(prior).get_params()["lookback"] == 20
    predicted = cross_val_predict(MeanRisk(prior_estimator=prior), returns, cv=split)
    first, second = predicted.portfolios
    assert np.abs(first.weights - second.weights).max() > 0.01
    assert first.weights.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(second.returns, returns.iloc[160:230] @ second.weights)


@pytest.mark.harness
def test_a_forecast_and_an_allocator_go_through_combinatorial_purged_folds(returns):
    """Whose training rows have holes, and may come after their test."""
    split = CombinatorialPurgedCV(n_folds=3, n_test_folds=2, purged_size=2)
    least = cross_val_predict(
        MeanRisk(prior_estimator=ForecastPrior(known_law(returns), scenarios=64)), returns, cv=split
    )
    assert np.isfinite([path.returns for path in least]).all()
    ours = cross_val_predict(SklearnAllocator(EqualWeight()), returns, cv=split)
    theirs = cross_val_predict(EqualWeighted(), returns, cv=split)
    assert len(ours) == len(theirs) == split.n_test_paths
    for mine, its in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine.returns, its.returns, atol=1e-9)
