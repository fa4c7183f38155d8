"""Orders and forecasts in other libraries: each adapter is an extra, and imports its library when it is called for."""

from typing import TYPE_CHECKING, Any

from qtorch.backtest.adapters.bt_backtest import to_bt
from qtorch.backtest.adapters.vectorbt_portfolio import to_vectorbt
from qtorch.backtest.adapters.zipline_algorithm import to_zipline

if TYPE_CHECKING:
    from qtorch.backtest.adapters.skfolio_prior import ForecastPrior
    from qtorch.backtest.adapters.zipline_loader import ZiplineLoader

__all__ = ["ForecastPrior", "ZiplineLoader", "to_bt", "to_vectorbt", "to_zipline"]


def __getattr__(name: str) -> Any:
    """`ForecastPrior` and `ZiplineLoader` are classes of skfolio's and zipline's, which are imported only for them."""
    if name == "ForecastPrior":
        try:
            from qtorch.backtest.adapters.skfolio_prior import ForecastPrior
        except ImportError as error:
            raise ImportError("ForecastPrior needs skfolio: pip install 'qtorch-finance[portfolio]'.") from error
        return ForecastPrior
    if name == "ZiplineLoader":
        try:
            from qtorch.backtest.adapters.zipline_loader import ZiplineLoader
        except ImportError as error:
            message = "ZiplineLoader needs zipline-reloaded: pip install 'qtorch-finance[zipline]'."
            raise ImportError(message) from error
        return ZiplineLoader
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
