"""qtorch: masked market windows in, distributions and portfolio weights out."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qtorch import (
        backtest,
        calibration,
        data,
        deploy,
        distributions,
        heads,
        models,
        nightly,
        nn,
        portfolio,
        risk,
        training,
    )
    from qtorch.forecast import Forecast
    from qtorch.training import Allocator, Forecaster

__version__ = "0.1.0"

__all__ = [
    "Allocator",
    "Forecast",
    "Forecaster",
    "backtest",
    "calibration",
    "data",
    "deploy",
    "distributions",
    "heads",
    "models",
    "nightly",
    "nn",
    "portfolio",
    "risk",
    "training",
]

_CLASSES = {"Allocator": "qtorch.training", "Forecast": "qtorch.forecast", "Forecaster": "qtorch.training"}


def __getattr__(name: str) -> Any:
    """Rooms and classes are imported when they are first named, so that `qtorch --help` need not wait for torch."""
    if name in _CLASSES:
        return getattr(import_module(_CLASSES[name]), name)
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, those that are not imported yet among them."""
    return sorted({*__all__, *globals()})
