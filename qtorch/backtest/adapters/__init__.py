"""Orders and forecasts in other libraries: each adapter is an extra, and imports its library when it is called for."""

from typing import TYPE_CHECKING, Any

from qtorch.backtest.adapters.bt_backtest import to_bt
from qtorch.backtest.adapters.vectorbt_portfolio import to_vectorbt

if TYPE_CHECKING:
    from qtorch.backtest.adapters.skfolio_prior import ForecastPrior

__all__ = ["ForecastPrior", "to_bt", "to_vectorbt"]


def __getattr__(name: str) -> Any:
    """`ForecastPrior` is a class of skfolio's, which is imported only for it."""
    if name == "ForecastPrior":
        try:
            from qtorch.backtest.adapters.skfolio_prior import ForecastPrior
        except ImportError as error:
            raise ImportError("ForecastPrior needs skfolio: pip install 'qtorch-finance[portfolio]'.") from error
        return ForecastPrior
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
