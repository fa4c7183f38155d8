"""Several models as one forecaster: the equal-weight mixture of what they forecast."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any, Protocol, runtime_checkable

import pandas as pd
import torch

from qtorch.data.panel import Panel
from qtorch.data.sampling import Source
from qtorch.distributions import Mixture, stack
from qtorch.forecast import Forecast


@runtime_checkable
class Model(Protocol):
    """What an ensemble's members do, and an ensemble itself."""

    def forecast(
        self,
        panel: Panel,
        dates: Iterable[str | pd.Timestamp] | str | pd.Timestamp,
        *,
        source: Any = None,
    ) -> Forecast:
        """Forecasts every asset of a panel at some of its dates."""
        ...


class Ensemble:
    """Models of one kind, trained from several seeds say, which forecast the equal-weight mixture of their laws.

    Its value at risk and expected shortfall are those of the mixture, not means over members: what members disagree
    about widens the forecast.

    Args:
        models: at least one; their heads are of one class and their horizons the same.

    Raises:
        ValueError: there is none.
    """

    def __init__(self, models: Sequence[Model]) -> None:
        if not models:
            raise ValueError("an ensemble needs at least one model.")
        self.models = tuple(models)

    def forecast(
        self,
        panel: Panel,
        dates: Iterable[str | pd.Timestamp] | str | pd.Timestamp,
        *,
        source: Source | None = None,
    ) -> Forecast:
        """Forecasts every asset of a panel at some of its dates; arguments and errors as of `Forecaster.forecast`.

        Args:
            panel: the market.
            dates: as-of dates, one or many.
            source: the panel's windows, if they have been made already and are those of all members.

        Raises:
            ValueError: the members' forecasts can't be mixed; see `mixed`.
        """
        dates = list(pd.DatetimeIndex([dates] if isinstance(dates, (str, pd.Timestamp)) else list(dates)))
        return mixed([model.forecast(panel, dates, source=source) for model in self.models])


def mixed(forecasts: Sequence[Forecast]) -> Forecast:
    """The equal-weight mixture of several forecasts of the same dates, assets and horizons; of one, itself.

    There is a forecast where all have one.

    Raises:
        ValueError: they are of different dates, assets or horizons, or their laws are of different classes.
    """
    first = forecasts[0]
    for other in forecasts[1:]:
        for name in ("dates", "assets", "horizons"):
            a, b = getattr(first, name), getattr(other, name)
            if len(a) != len(b) or any(x != y for x, y in zip(a, b, strict=True)):
                raise ValueError(f"forecasts of the same {name} are mixed, but some are of others.")
    if len(forecasts) == 1:
        return first
    laws = stack([forecast.distribution for forecast in forecasts])
    weights = torch.full((len(forecasts),), 1 / len(forecasts), dtype=torch.float64, device=first.mask.device)
    mask = reduce(torch.logical_and, (forecast.mask for forecast in forecasts))
    return replace(first, distribution=Mixture(weights, laws), mask=mask)
