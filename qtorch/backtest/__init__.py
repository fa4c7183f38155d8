"""Signals and their accounting, walk-forward runs, baselines, how sure figures are, and the look-ahead detector."""

from typing import TYPE_CHECKING, Any

from qtorch.backtest.account import Account
from qtorch.backtest.baselines import EqualWeight, InverseVolatility
from qtorch.backtest.block_length import block_length
from qtorch.backtest.currencies import Currencies
from qtorch.backtest.deflated_sharpe import deflated_sharpe, expected_best_sharpe, probabilistic_sharpe
from qtorch.backtest.intervals import Interval, sharpe_interval, volatility_interval
from qtorch.backtest.ledger import Ledger
from qtorch.backtest.lookahead import LookaheadError, LookaheadReport, PipelineError, check_lookahead
from qtorch.backtest.orders import Orders
from qtorch.backtest.rebalancing import Allocate, Refits, WalkForward
from qtorch.backtest.scenario_allocator import ScenarioAllocator
from qtorch.backtest.schedule import rebalance_rows
from qtorch.backtest.signals import Signals
from qtorch.backtest.skfolio_allocator import (
    SkfolioAllocator,
    equal_risk,
    hierarchical_risk_parity,
    maximum_diversification,
    minimum_variance,
)
from qtorch.backtest.summary import summary
from qtorch.backtest.tear_sheets import (
    daily_returns,
    entry_prices,
    factor,
    position_values,
    pyfolio_frames,
    transactions,
)
from qtorch.backtest.track import Track
from qtorch.backtest.universe import around_closed, listed_assets
from qtorch.backtest.violations import violations
from qtorch.backtest.walk import RefitError, Walk, walk_forward
from qtorch.backtest.walk.ray_executor import RayExecutor, TaskLost
from qtorch.backtest.walked import Walked

if TYPE_CHECKING:
    from qtorch.backtest.sklearn_allocator import SklearnAllocator as SklearnAllocator

__all__ = [  # without SklearnAllocator, so that a star needs no extra
    "Account",
    "Allocate",
    "Currencies",
    "EqualWeight",
    "Interval",
    "InverseVolatility",
    "Ledger",
    "LookaheadError",
    "LookaheadReport",
    "Orders",
    "PipelineError",
    "RayExecutor",
    "RefitError",
    "Refits",
    "ScenarioAllocator",
    "Signals",
    "SkfolioAllocator",
    "TaskLost",
    "Track",
    "Walk",
    "WalkForward",
    "Walked",
    "around_closed",
    "block_length",
    "check_lookahead",
    "daily_returns",
    "deflated_sharpe",
    "entry_prices",
    "equal_risk",
    "expected_best_sharpe",
    "factor",
    "hierarchical_risk_parity",
    "listed_assets",
    "maximum_diversification",
    "minimum_variance",
    "position_values",
    "probabilistic_sharpe",
    "pyfolio_frames",
    "rebalance_rows",
    "sharpe_interval",
    "summary",
    "transactions",
    "violations",
    "volatility_interval",
    "walk_forward",
]


def __getattr__(name: str) -> Any:
    """`SklearnAllocator` is a class of skfolio's, which is imported only for it."""
    if name == "SklearnAllocator":
        try:
            from qtorch.backtest.sklearn_allocator import SklearnAllocator
        except ImportError as error:
            raise ImportError("SklearnAllocator needs skfolio: pip install 'qtorch-finance[portfolio]'.") from error
        return SklearnAllocator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, that of skfolio's class among them."""
    return sorted({*globals(), "SklearnAllocator"})
