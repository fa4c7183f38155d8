"""Orders and forecasts in other libraries: each adapter is an extra, and imports its library when it is called for."""

from typing import TYPE_CHECKING, Any

from qtorch.backtest.adapters.bt_backtest import to_bt
from qtorch.backtest.adapters.qlib_backtest import to_qlib
from qtorch.backtest.adapters.vectorbt_portfolio import to_vectorbt

if TYPE_CHECKING:
    from qtorch.backtest.adapters.qlib_forecaster import QlibForecaster
    from qtorch.backtest.adapters.skfolio_prior import ForecastPrior

__all__ = ["ForecastPrior", "QlibForecaster", "to_bt", "to_qlib", "to_vectorbt"]


def __getattr__(name: str) -> Any:
    """`ForecastPrior` and `QlibForecaster` are classes of skfolio's and qlib's, which are imported only for them."""
    if name == "ForecastPrior":
        try:
            from qtorch.backtest.adapters.skfolio_prior import ForecastPrior
        except ImportError as error:
            raise ImportError("ForecastPrior needs skfolio: pip install 'qtorch-finance[portfolio]'.") from error
        return ForecastPrior
    if name == "QlibForecaster":
        try:
            from qtorch.backtest.adapters.qlib_forecaster import QlibForecaster
        except ImportError as error:
            raise ImportError("QlibForecaster needs qlib: pip install 'qtorch-finance[qlib]'.") from error
        return QlibForecaster
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
