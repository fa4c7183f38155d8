"""skfolio's optimisers as allocators: on the assets of the universe alone, around closed ones.

skfolio is imported where it is used: ``pip install 'qtorch-finance[portfolio]'``.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64
from torch import Tensor

from qtorch.backtest.universe import around_closed, listed_assets
from qtorch.data import Panel
from qtorch.distributions.checks import require
from qtorch.portfolio import Constraints

if TYPE_CHECKING:
    from skfolio.optimization import BaseOptimization
    from skfolio.prior import BasePrior

LOOKBACK = 756  # rows: three years


class SkfolioAllocator:
    """Fits an optimiser to the last simple returns of the assets whose whole lookback is there; others get 0.

    On a day on which an asset is closed its return counts as 0; that of the next session is over both. The optimiser
    knows nothing of positions that cannot be traded today: its weights are moved to the nearest ones that keep to the
    constraints around them (see `around_closed`), so give here those that it was told.

    Args:
        estimator: of skfolio, or one that keeps to its conventions: `fit` on a frame of returns sets `weights_`. It is
            cloned before each fit.
        lookback: rows of returns.
        constraints: `Constraints` or their plain values; long only and fully invested by default.

    Example:
        >>> from skfolio.optimization import HierarchicalRiskParity
        >>> allocate = SkfolioAllocator(HierarchicalRiskParity(), lookback=250)
    """

    def __init__(
        self,
        estimator: "BaseOptimization",
        lookback: int = LOOKBACK,
        constraints: Constraints | Mapping[str, Any] | None = None,
    ) -> None:
        require(lookback >= 2, "lookback", lookback, "give a number of rows of at least 2")
        self.estimator = estimator
        self.lookback = lookback
        self.constraints = constraints if isinstance(constraints, Constraints) else Constraints(**(constraints or {}))

    def __call__(self, panel: Panel, row: int, holdings: Float64[Tensor, " N"]) -> Float64[Tensor, " N"]:
        """Weights on the panel's last row.

        Raises:
            DataError: no asset has the whole lookback.
        """
        from sklearn.base import clone

        universe = listed_assets(panel, self.lookback)
        at = universe.nonzero().squeeze(-1).tolist()
        returns = torch.nan_to_num(panel.returns()[-self.lookback :, at], nan=0.0)
        names = [panel.assets[i] for i in at]
        frame = pd.DataFrame(returns.cpu().numpy(), index=panel.dates[-self.lookback :], columns=names)
        fitted = np.asarray(clone(self.estimator).fit(frame).weights_, dtype=float)
        weights = torch.zeros_like(holdings)
        weights[at] = torch.as_tensor(fitted, device=weights.device)
        return around_closed(weights, universe, panel, holdings, self.constraints)


def minimum_variance(lookback: int = LOOKBACK, upper: float = 1.0) -> SkfolioAllocator:
    """Least variance by a Ledoit-Wolf covariance, long only.

    Args:
        lookback: rows of returns.
        upper: most weight of an asset.

    References:
        Ledoit and Wolf (2004), A well-conditioned estimator for large-dimensional covariance matrices, Journal of
        Multivariate Analysis 88.
    """
    from skfolio.optimization import MeanRisk

    estimator = MeanRisk(prior_estimator=ledoit_wolf(), max_weights=upper)
    return SkfolioAllocator(estimator, lookback, Constraints(upper=upper))


def hierarchical_risk_parity(lookback: int = LOOKBACK) -> SkfolioAllocator:
    """Inverse variances down a dendrogram of a Ledoit-Wolf covariance.

    Args:
        lookback: rows of returns.

    References:
        Lopez de Prado (2016), Building diversified portfolios that outperform out of sample, Journal of Portfolio
        Management 42.
    """
    from skfolio.optimization import HierarchicalRiskParity

    return SkfolioAllocator(HierarchicalRiskParity(prior_estimator=ledoit_wolf()), lookback)


def equal_risk(lookback: int = LOOKBACK) -> SkfolioAllocator:
    """Risk parity: each asset contributes the same to the variance, by a Ledoit-Wolf covariance.

    Args:
        lookback: rows of returns.

    References:
        Maillard, Roncalli and Teiletche (2010), The properties of equally weighted risk contribution portfolios,
        Journal of Portfolio Management 36.
    """
    from skfolio.optimization import RiskBudgeting

    return SkfolioAllocator(RiskBudgeting(prior_estimator=ledoit_wolf()), lookback)


def maximum_diversification(lookback: int = LOOKBACK) -> SkfolioAllocator:
    """The most of the weighted mean of volatilities over the portfolio's, by a Ledoit-Wolf covariance, long only.

    Args:
        lookback: rows of returns.

    References:
        Choueifaty and Coignard (2008), Toward maximum diversification, Journal of Portfolio Management 35.
    """
    from skfolio.optimization import MaximumDiversification

    return SkfolioAllocator(MaximumDiversification(prior_estimator=ledoit_wolf()), lookback)


def ledoit_wolf() -> "BasePrior":
    """Sample means and a Ledoit-Wolf covariance, for skfolio's optimisers."""
    from skfolio.moments import EmpiricalMu, LedoitWolf
    from skfolio.prior import EmpiricalPrior

    return EmpiricalPrior(mu_estimator=EmpiricalMu(), covariance_estimator=LedoitWolf())
