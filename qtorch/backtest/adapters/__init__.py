"""Orders and forecasts in other libraries: each adapter is an extra, and imports its library when it is called for."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from qtorch.backtest.adapters.bt_backtest import to_bt
from qtorch.backtest.adapters.checks import ledger_account
from qtorch.backtest.adapters.qlib_backtest import to_qlib
from qtorch.backtest.adapters.vectorbt_portfolio import to_vectorbt
from qtorch.backtest.adapters.zipline_algorithm import to_zipline

if TYPE_CHECKING:
    from qtorch.backtest.adapters.qlib_forecaster import QlibForecaster as QlibForecaster
    from qtorch.backtest.adapters.skfolio_prior import ForecastPrior as ForecastPrior
    from qtorch.backtest.adapters.zipline_loader import ZiplineLoader as ZiplineLoader

# Without the classes below, so that a star needs no extra.
__all__ = ["ledger_account", "to_bt", "to_qlib", "to_vectorbt", "to_zipline"]

_CLASSES = {  # of other libraries' classes, with the module, the library and the extra
    "ForecastPrior": ("skfolio_prior", "skfolio", "portfolio"),
    "QlibForecaster": ("qlib_forecaster", "qlib", "qlib"),
    "ZiplineLoader": ("zipline_loader", "zipline-reloaded", "zipline"),
}


def __getattr__(name: str) -> Any:
    """Subclasses of other libraries' classes, which are imported only for them."""
    if name not in _CLASSES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, library, extra = _CLASSES[name]
    try:
        return getattr(import_module(f"{__name__}.{module}"), name)
    except ImportError as error:
        raise ImportError(f"{name} needs {library}: pip install 'qtorch-finance[{extra}]'.") from error


def __dir__() -> list[str]:
    """The public names, those of other libraries' classes among them."""
    return sorted({*globals(), *_CLASSES})
