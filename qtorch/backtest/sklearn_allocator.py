"""Allocators in skfolio's and scikit-learn's model selection. Needs skfolio."""

from copy import deepcopy
from typing import Any

import numpy as np
import pandas as pd
import torch
from skfolio.optimization import BaseOptimization
from sklearn.utils.validation import validate_data

from qtorch.backtest.rebalancing import Allocate, Refits, checked_weights
from qtorch.backtest.walked import Walked
from qtorch.data import DataError, Panel
from qtorch.training import Allocator


class SklearnAllocator(BaseOptimization):
    """An allocator as one of skfolio's optimisers: `fit` on returns sets `weights_`, `predict` gives a `Portfolio`.

    So it goes into `cross_val_predict`, `GridSearchCV` and the like. `fit` works on a copy of the allocator, kept in
    `allocate_`; one that refits is fit at each call.

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
        weights = decide(panel, row, torch.as_tensor(held, dtype=torch.float64))
        self.weights_ = checked_weights(weights, panel).cpu().numpy()
        return self


def returns_panel(returns: pd.DataFrame, exchange: str) -> Panel:
    """A panel whose returns are those of a frame: each asset's price is 1 on the row before its first return.

    Before the frame's first row that is the weekday before it.

    Args:
        returns: simple, dates by assets; NaN where there is none, and the next return is then over the gap.
        exchange: the exchange code of all assets.

    Raises:
        DataError: the index has no dates, or prices cannot be made of the returns.
    """
    if not isinstance(returns.index, pd.DatetimeIndex):
        raise DataError(f"returns need dates as their index to make a panel, not {type(returns.index).__name__}.")
    start = returns.index[:1] - pd.offsets.BDay()  # a session or not: the panel keeps prices of other days too
    wide = returns.reindex(start.append(returns.index))
    there = wide.notna()
    base = there.shift(-1, fill_value=False) & ~there.cummax()
    closes = (1 + wide.fillna(0.0)).cumprod().where(there | base)
    return Panel.from_frame(closes.rename(columns=str), exchange=exchange)
