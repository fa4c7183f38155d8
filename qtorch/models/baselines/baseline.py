"""What every baseline does beside its own forecast, so that it can stand where a trained model stands."""

from typing import TypeVar

import pandas as pd

from qtorch.data.panel import Panel
from qtorch.data.rows import Dates
from qtorch.data.windows import WindowSource
from qtorch.forecast import Forecast

_Baseline = TypeVar("_Baseline", bound="Baseline")


class Baseline:
    """A forecaster without training: what it estimates, it estimates in a forecast, of what the dates know.

    Example:
        >>> from qtorch.data import load_sample
        >>> from qtorch.models import RiskMetrics
        >>> panel = Panel.from_frame(load_sample().query("date > '2021'")).select(["AAPL", "EURUSD"])
        >>> RiskMetrics().fit(panel, until="2022-06-30").predict(panel)
        Forecast(1 date 2022-12-28, 2 assets, horizons 1, 10; 2 of 2 forecast)
    """

    def forecast(self, panel: Panel, dates: Dates, *, source: WindowSource | None = None) -> Forecast:
        """Forecasts every asset of a panel at some of its dates; `source` as of `Forecaster.forecast`."""
        raise NotImplementedError

    def fit(self: _Baseline, panel: Panel, *, until: str | pd.Timestamp | None = None) -> _Baseline:
        """Itself, as it is: there is nothing to train, and no option of a training is taken.

        It has the method so that ``model.fit(panel, until=...).predict(panel)`` runs with any model; an `Ensemble`
        gives options of a training to other members alone.

        Args:
            panel: the market.
            until: the last date that a model with weights would know; None is the panel's last.

        Raises:
            DataError: the date is before the panel's first, or cannot be read.
        """
        if until is not None:
            panel.row_until(until)
        return self

    def predict(self, panel: Panel, dates: Dates | None = None, *, source: WindowSource | None = None) -> Forecast:
        """Forecasts every asset of a panel: `forecast`, as the method that every model has.

        Args:
            panel: the market.
            dates: as-of dates, one or many; the panel's last by default.
            source: as of `forecast`, whose errors are raised too. What a forecaster takes here as `min_history` and
                `stale` a baseline is made with.
        """
        return self.forecast(panel, panel.dates[-1] if dates is None else dates, source=source)
