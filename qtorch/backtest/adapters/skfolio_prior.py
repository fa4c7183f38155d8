"""Forecasts as a prior of skfolio's optimisers. Needs skfolio: ``pip install 'qtorch-finance[portfolio]'``."""

from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64
from skfolio.prior import BasePrior, ReturnDistribution
from sklearn.utils.validation import validate_data

from qtorch.backtest.sklearn_allocator import require_dates, returns_panel
from qtorch.data import DataError, Panel
from qtorch.data.errors import listing
from qtorch.distributions import GaussianCopula
from qtorch.distributions.checks import require
from qtorch.forecast import Forecast
from qtorch.risk import fit_copula


class ForecastPrior(BasePrior):
    """The joint law of the returns after the last row, in scenarios, with their mean and covariance.

    It goes where skfolio takes a `prior_estimator`, in its model selection too. A forecast of marginals alone is made
    joint by a copula fitted to their transforms on the rows before. An asset without a forecast is NaN, for skfolio one
    that can't be invested in, as is one without a return.

    In `CombinatorialPurgedCV` the training rows have holes, and a forecaster sees those after the last alone: no return
    goes over a hole. One that was trained elsewhere knows what is tested before its training ended: such paths are
    in-sample.

    Args:
        forecast: a `Forecast` with a joint law on the last date of every fit; or a forecaster, which has
            ``forecast(panel, dates)``, such as a trained `Forecaster` or a baseline. It is taken as it is: train it on
            what came before.
        horizon: of the forecast, in sessions; one of its horizons.
        scenarios: S, a power of 2 for quasi-random ones.
        exchange: on whose sessions the returns are that a forecaster is given.
        lookback: rows whose transforms a copula is fitted to.
        factors: of that copula.
        seed: of the scenarios.

    Example:
        >>> from qtorch.models import RiskMetrics
        >>> from skfolio import RiskMeasure
        >>> from skfolio.datasets import load_sp500_dataset
        >>> from skfolio.optimization import MeanRisk
        >>> returns = load_sp500_dataset().loc["2022-06":, ["AAPL", "JPM", "KO", "XOM"]].pct_change().dropna()
        >>> prior = ForecastPrior(RiskMetrics(), scenarios=256, lookback=60, factors=1)
        >>> model = MeanRisk(risk_measure=RiskMeasure.CVAR, prior_estimator=prior).fit(returns)
        >>> float(model.weights_.sum().round(6))
        1.0
    """

    def __init__(
        self,
        forecast: Any,
        horizon: int = 1,
        scenarios: int = 1024,
        exchange: str = "XNYS",
        lookback: int = 500,
        factors: int = 3,
        seed: int = 0,
    ) -> None:
        self.forecast = forecast
        self.horizon = horizon
        self.scenarios = scenarios
        self.exchange = exchange
        self.lookback = lookback
        self.factors = factors
        self.seed = seed

    @torch.no_grad()
    def fit(self, X: pd.DataFrame, y: None = None, **fit_params: Any) -> "ForecastPrior":
        """Sets `return_distribution_` to the law after the last row.

        Args:
            X: simple returns, dates by assets; NaN where there is none.
            y: not used; scikit-learn's convention.
            **fit_params: not used.

        Raises:
            DataError: the returns have no dates; an asset is not in the forecast; nothing can be forecast, or on no row
                before; or prices can't be made of the returns.
            ValueError: the law is not joint and no copula can be fitted; there is no forecast of the date or horizon.
        """
        require(self.lookback >= 2, "lookback", self.lookback, "give at least 2")
        require_dates(X)
        validate_data(self, X, skip_check_array=True)
        date, names = X.index[-1], [str(column) for column in X.columns]
        if isinstance(self.forecast, Forecast):
            joint = self.forecast
            unknown = [name for name in names if name not in joint.assets]
            if unknown:
                raise DataError(f"not in the forecast: {listing(unknown)}. It has {listing(joint.assets)}.")
        else:
            joint = self._joint(returns_panel(X, self.exchange))
        draws = joint.scenarios(date, self.horizon, self.scenarios, self.seed)
        by_name = pd.DataFrame(draws.cpu().numpy(), columns=list(joint.assets)).reindex(columns=names)
        self.return_distribution_ = _distribution(by_name.to_numpy())
        return self

    def _joint(self, panel: Panel) -> Forecast:
        """Of the panel's last row."""
        last = self.forecast.forecast(panel, panel.dates[-1:])
        if last.distribution.event_shape:
            return last
        if len(panel.assets) == 1:  # nothing to depend on
            return last.with_copula(GaussianCopula(torch.zeros(1, 1, dtype=torch.float64)))
        require(
            last.horizons[0] == 1,
            "forecast.horizons",
            last.horizons,
            "a copula is fitted to transforms over 1 session: give a forecaster of that horizon too, or of a joint law",
        )
        past = self.forecast.forecast(panel, panel.dates[-self.lookback - 1 : -1])
        after = panel.returns()[-len(past.dates) :, None].expand(-1, len(past.horizons), -1)
        transforms = past.pit(after)[:, 0]
        if not (transforms.isfinite().sum(1) > 1).any():
            raise DataError(
                f"{panel.dates[-1]:%Y-%m-%d}: no two assets have forecasts on the {len(past.dates)} rows before, to "
                "fit a copula to. Give more rows of returns, or a forecaster of a joint law."
            )
        return last.with_copula(fit_copula(transforms, min(self.factors, len(panel.assets))))


def _distribution(scenarios: Float64[np.ndarray, "S N"]) -> ReturnDistribution:
    return ReturnDistribution(scenarios.mean(0), np.atleast_2d(np.cov(scenarios, rowvar=False)), scenarios)
