"""Forecasts of dates and models, and scenarios of them, kept for the next question."""

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from jaxtyping import Float64
from torch import Tensor

from qtorch.data import DataError, Panel, WindowSource
from qtorch.deploy.server.protocol import RequestError
from qtorch.deploy.server.served_model import ServedModel
from qtorch.errors import ArgumentError
from qtorch.nightly.config import NightlyConfig
from qtorch.nightly.forecast_history import History
from qtorch.nightly.gates import asset_states
from qtorch.nightly.outcome import Refused
from qtorch.training import Forecaster

_KEPT = 8  # dates and models whose forecasts are kept
_KEPT_BYTES = 256 << 20  # of scenarios that are kept, of all dates and models


@dataclass(eq=False)
class Known:
    """The forecasts of a model at a date, and what was made of them.

    Attributes:
        model: which forecast.
        history: its forecasts up to the date.
        states: of the assets at the date.
        scenarios: `[M, S, N]` by horizon, count and seed, the youngest last.
    """

    model: ServedModel
    history: History
    states: pd.DataFrame
    scenarios: OrderedDict[tuple[int, int, int], Float64[Tensor, "M S N"]] = field(default_factory=OrderedDict)


class KeptForecasts:
    """Makes forecasts and scenarios, each once while it is kept; safe to be used from several threads.

    Args:
        config: of the nightly job, as which they are made.
    """

    def __init__(self, config: NightlyConfig) -> None:
        self.config = config
        self._known: OrderedDict[Any, Known] = OrderedDict()
        self._table = threading.Lock()
        self._work = threading.Lock()  # forecasts are made once, however many ask for them

    def forecasts(self, stamp: Any, panel: Panel, date: pd.Timestamp, model: ServedModel) -> Known:
        """Those of a date and model, kept or made.

        Args:
            stamp: of the prices.
            panel: the prices.
            date: after which nothing is known.
            model: that forecasts.

        Raises:
            RequestError: 422 the model cannot forecast the date; 503 the prices are refused.
        """
        key = stamp, date, model  # a model that is loaded anew is another one
        with self._table:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        with self._work:
            with self._table:
                if key in self._known:
                    return self._known[key]
            known = self._made(panel.until(date), model)
            with self._table:
                self._known[key] = known
                while len(self._known) > _KEPT:
                    self._known.popitem(last=False)
        return known

    def _made(self, panel: Panel, model: ServedModel) -> Known:
        forecaster = model.model
        assert isinstance(forecaster, Forecaster)
        try:
            source = WindowSource(panel, forecaster.spec)
            states = asset_states(panel, source, self.config.data, {})
            history = History.of(self.config, source, forecaster)
            if history.tonight.mask.any():
                return Known(model, history, states)
        except Refused as error:
            raise RequestError(503, str(error)) from error
        except (DataError, ArgumentError) as error:
            raise RequestError(
                422, f"model {model.name!r} cannot forecast {panel.dates[-1]:%Y-%m-%d}: {error}"
            ) from error
        raise RequestError(422, f"model {model.name!r} has no forecast of any asset on {panel.dates[-1]:%Y-%m-%d}.")

    def scenarios(self, known: Known, h: int, count: int, seed: int) -> Float64[Tensor, "M S N"]:
        """Those of a horizon, count and seed, kept or made.

        Args:
            known: the forecasts.
            h: place of the horizon.
            count: scenarios of a randomisation.
            seed: of the randomisations.
        """
        key = h, count, seed
        with self._work:
            if key not in known.scenarios:
                known.scenarios[key] = known.history.scenarios(h, count, seed)
            known.scenarios.move_to_end(key)
            found = known.scenarios[key]
            self._forget()
        return found

    def _forget(self) -> None:
        """Drops the scenarios that were not asked for since longest, until the others keep to their bound."""
        with self._table:
            oldest_first = [known.scenarios for known in self._known.values()]
        held = sum(x.nbytes for kept in oldest_first for x in kept.values())
        for kept in oldest_first:
            while kept and held > _KEPT_BYTES:
                held -= kept.popitem(last=False)[1].nbytes
