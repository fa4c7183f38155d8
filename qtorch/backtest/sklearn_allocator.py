"""Allocators in skfolio's and scikit-learn's model selection. Needs skfolio."""

from copy import deepcopy
from typing import Any

import numpy as np
import pandas as pd
import torch
from skfolio.optimization import BaseOptimization
from sklearn.utils.validation import validate_data

from qtorch.backtest.instants import session_labels
from qtorch.backtest.rebalancing import Allocate, Refits, checked_weights
from qtorch.backtest.walked import Walked
from qtorch.data import DataError, Panel, sessions
from qtorch.data.errors import listing
from qtorch.training import Allocator

_HOLE = 10  # sessions; fewer are a halt, or between returns of weeks
_USUAL = 3  # times the frame's own spacing, such as a month's, which is no hole


class SklearnAllocator(BaseOptimization):
    """An allocator as one of skfolio's optimisers: `fit` on returns sets `weights_`, `predict` gives a `Portfolio`.

    So it goes into `cross_val_predict`, `GridSearchCV` and the like. `fit` works on a copy of the allocator, kept in
    `allocate_`; one that refits is fit at each call. An asset without a return gets a weight of 0.

    In `CombinatorialPurgedCV` the training rows have holes, and the allocator sees those after the last alone: no
    return goes over a hole. An `Allocator`, trained elsewhere, knows what is tested before its training ended: such
    paths are in-sample.

    Args:
        allocate: called with a panel, its last row and holdings, as by `WalkForward`; or an `Allocator`, which is taken
            as it is: train it on what came before.
        exchange: on whose sessions the returns are.
        previous_weights: holdings, by asset or in the order of the columns; none by default. Model selection passes
            them from one fold to the next.
        portfolio_params: as of skfolio's optimisers.

    Example:
        >>> from qtorch.backtest import EqualWeight
        >>> from skfolio.datasets import load_sp500_dataset
        >>> from skfolio.model_selection import WalkForward, cross_val_predict
        >>> returns = load_sp500_dataset().loc["2022":].pct_change().dropna()
        >>> tested = cross_val_predict(SklearnAllocator(EqualWeight()), returns, cv=WalkForward(60, 120))
        >>> len(tested.portfolios)
        2
    """

    def __init__(
        self,
        allocate: Allocate | Allocator,
        exchange: str = "XNYS",
        previous_weights: Any = None,
        portfolio_params: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(portfolio_params=portfolio_params, previous_weights=previous_weights)
        self.allocate = allocate
        self.exchange = exchange

    @property
    def needs_previous_weights(self) -> bool:
        """An allocator may look at its holdings, so the folds run one after the other."""
        return True

    def fit(self, X: pd.DataFrame, y: None = None) -> "SklearnAllocator":
        """Weights at the close of the last row.

        Args:
            X: simple returns, dates by assets; NaN where there is none.
            y: not used; scikit-learn's convention.

        Raises:
            DataError: the frame has no dates, or the allocator's weights can't be used.
        """
        require_dates(X)
        validate_data(self, X, skip_check_array=True)
        panel = returns_panel(X, self.exchange)
        row = len(panel.dates) - 1
        self.allocate_ = deepcopy(self.allocate)
        if isinstance(self.allocate_, Refits):
            self.allocate_.refit(panel, row)
        held = np.zeros(X.shape[1])
        if self.previous_weights is not None:
            held = self._clean_previous_weights(X.shape[1], apply_investable_mask=False)
        decide = Walked(self.allocate_, panel) if isinstance(self.allocate_, Allocator) else self.allocate_
        at = X.columns.astype(str).get_indexer(pd.Index(panel.assets))
        weights = decide(panel, row, torch.as_tensor(held[at], dtype=torch.float64))
        self.weights_ = np.zeros(X.shape[1])
        self.weights_[at] = checked_weights(weights, panel).cpu().numpy()
        return self


def require_dates(returns: Any) -> pd.DatetimeIndex:
    """The index of a frame of dates by assets.

    Raises:
        DataError: there is no index of dates.
    """
    index = getattr(returns, "index", None)
    if not isinstance(index, pd.DatetimeIndex):
        what = type(returns if index is None else index).__name__
        raise DataError(
            f"returns need dates as their index to make a panel, not {what}. Give a frame of dates by assets."
        )
    return index


def returns_panel(returns: pd.DataFrame, exchange: str) -> Panel:
    """A panel whose returns are those of a frame: each asset's price is 1 on the row before its first return.

    Before the frame's first row that is the weekday before it. Where more than ten sessions are left out, and three
    times as many as usual in this frame, as between training folds of `CombinatorialPurgedCV`, prices on both sides
    would have a return over the hole, which the frame does not say: the panel begins after the last such hole.

    Args:
        returns: simple, dates by assets; NaN or no row where there is none, and the next return is then over the gap.
        exchange: the exchange code of all assets.

    Raises:
        DataError: the index has no dates, or they are no session labels in order; a return loses all or more; or prices
            cannot be made of the returns.
    """
    dates = session_labels(require_dates(returns))
    days = sessions(exchange, dates[0], dates[-1]).days
    left_out = days.searchsorted(dates[1:]) - days.searchsorted(dates[:-1], side="right")
    if len(left_out):
        (holes,) = np.nonzero((left_out > _HOLE) & (left_out > _USUAL * np.median(left_out)))
        first = holes[-1] + 1 if len(holes) else 0
        dates, returns = dates[first:], returns.iloc[first:]
    lost = returns.le(-1.0).to_numpy()
    if lost.any():
        t, n = (index[:5] for index in np.nonzero(lost))
        cells = [f"{returns.columns[j]} {dates[i]:%Y-%m-%d}" for i, j in zip(t, n, strict=True)]
        raise DataError(
            f"returns of -100 % or less: {listing(cells, total=int(lost.sum()))}. Correct them, or leave the asset out."
        )
    start = dates[:1] - pd.offsets.BDay()  # a session or not: the panel keeps prices of other days too
    wide = returns.reindex(start.append(dates))
    there = wide.notna()
    base = there.shift(-1, fill_value=False) & ~there.cummax()
    closes = (1 + wide.fillna(0.0)).cumprod().where(there | base)
    return Panel.from_frame(closes.rename(columns=str), exchange=exchange)
