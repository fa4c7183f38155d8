"""Forecasters as models of qlib's. Needs qlib: ``pip install 'qtorch-finance[qlib]'``."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from qlib.data.dataset import DatasetH
from qlib.data.dataset.handler import DataHandlerLP
from qlib.model.base import Model
from torch import Tensor

from qtorch.backtest.adapters.scores import mean_return
from qtorch.data import DataError, DataModule, Panel, PanelWindowSource, WindowSource
from qtorch.data.errors import listing
from qtorch.data.rows import ACTIONS, FIELDS
from qtorch.distributions.checks import require
from qtorch.forecast import Forecast
from qtorch.training import Forecaster, fit

_CLOSES = {"close": "$close"}
_NONE: Mapping[str, Any] = {}


class QlibForecaster(Model):
    """A forecaster, or a baseline, that is fit to a dataset of qlib's and scores its instruments.

    So it goes into qlib's workflow: `SignalRecord`, `TopkDropoutStrategy` and the like take what `predict` gives. It
    reads prices, and makes its own inputs and targets of them: the handler's processors and labels change nothing.
    Recorders pickle it, so give for `score` a function of a module and no lambda.

    Args:
        forecaster: a `Forecaster`, a copy of which is trained; or a baseline, which has ``forecast(panel, dates)`` and
            estimates itself.
        score: of a forecast, higher for what to buy; see `qtorch.backtest.adapters.scores`.
        horizon: whose score it is, one of the forecaster's, in sessions; the first by default.
        exchange: the exchange code of all instruments, or of each; New York's by default. Datasets don't name it, so
            dates that are no sessions of it are refused.
        prices: the handler's feature column of each of the panel's fields.
        data: further arguments of `DataModule`, such as its batch size.
        training: further arguments of `qtorch.training.fit`, such as a seed.

    Example:
        >>> model = QlibForecaster(RiskMetrics(), exchange="XSHG", score=less_risk)  # doctest: +SKIP
        >>> model.fit(dataset)  # doctest: +SKIP
        >>> SignalRecord(model, dataset, recorder).generate()  # doctest: +SKIP
    """

    def __init__(
        self,
        forecaster: Any,
        score: Callable[[Forecast], Float[Tensor, "D H N"]] = mean_return,
        *,
        horizon: int | None = None,
        exchange: str | Mapping[str, str] = "XNYS",
        prices: Mapping[str, str] = _CLOSES,
        data: Mapping[str, Any] = _NONE,
        training: Mapping[str, Any] = _NONE,
    ) -> None:
        super().__init__()
        require("close" in prices, "prices", prices, "name the column of closes: {'close': '$close'}")
        self.forecaster = forecaster
        self.score = score
        self.horizon = horizon
        self.exchange = exchange
        self.prices = dict(prices)
        self.data = dict(data)
        self.training = dict(training)
        self.fitted: Any = None

    def fit(self, dataset: DatasetH, reweighter: Any = None) -> "QlibForecaster":
        """Trains on the segment `train`; a segment `valid` decides when training stops.

        Nothing of later dates is seen, and no label of one segment reaches into the next.

        Args:
            dataset: whose segments `train` and, unless there is none, `valid` follow one another.
            reweighter: none: weights of windows are arguments of `DataModule`.

        Raises:
            DataError: no segment `train`, or one after `valid`; the handler has no such prices, or has dropped them; a
                date is no session of the exchange; or they can't make a panel or windows.
            ValueError: a reweighter is given.
        """
        require(reweighter is None, "reweighter", reweighter, "give data={'half_life': ...} or {'sample_by': ...}")
        if "train" not in dataset.segments:
            raise DataError(f"no segment 'train' among {listing(dataset.segments)}. Name it so.")
        self.fitted = deepcopy(self.forecaster)
        if not isinstance(self.fitted, Forecaster):
            return self
        train, valid = _span(dataset, "train"), None
        if "valid" in dataset.segments:
            valid = _span(dataset, "valid")
        panel = self._panel(dataset, slice(train.start, (train if valid is None else valid).stop))
        end = panel.dates.slice_indexer(None, train.stop).stop
        start, gap = None, 0
        if valid is not None:
            first = panel.dates.slice_indexer(valid.start, valid.stop).start
            if first < end:
                raise DataError(f"segments train {train} and valid {valid} overlap. Let valid begin after train.")
            start, gap = panel.dates[first], int(first - end)
        spec, network = self.fitted.spec, self.fitted.network
        source = WindowSource(panel, spec) if network.layout == "asset" else PanelWindowSource(panel, spec)
        # A gap counts in rows, of which an asset has no more sessions: none of its labels there is trained on.
        options = {"embargo": gap, "every_position": network.causal} | self.data
        fit(self.fitted, DataModule(panel, source=source, validation_start=start, **options), **self.training)
        return self

    def predict(self, dataset: DatasetH, segment: str | slice = "test") -> pd.Series:
        """Scores on a segment's dates, each from what was known at its close.

        Args:
            dataset: the handler of which begins long enough before the segment for the forecaster's windows.
            segment: a name, or a slice of dates.

        Returns:
            Indexed by (datetime, instrument); what has no price or no forecast on a date has no score.

        Raises:
            ValueError: before `fit`, or the forecaster has no such horizon.
            DataError: the handler has no such prices, or has dropped them; no dates in the segment, or one with a time
                zone; a date of the prices is no session; nothing can be forecast.
        """
        require(self.fitted is not None, "fitted", self.fitted, "call fit first")
        span = _span(dataset, segment)
        panel = self._panel(dataset, slice(None, span.stop))
        rows = panel.dates.slice_indexer(span.start, span.stop)
        dates = panel.dates[rows]
        if not len(dates):
            raise DataError(f"no dates in segment {segment!r} ({span}): the handler's end on {panel.dates[-1]}.")
        forecast = self.fitted.forecast(panel, dates)
        horizon = forecast.horizons[0] if self.horizon is None else self.horizon
        require(horizon in forecast.horizons, "horizon", horizon, f"the forecaster has {forecast.horizons}")
        scores = self.score(forecast)[:, forecast.horizons.index(horizon)].detach().cpu().double().numpy()
        known = (forecast.mask & panel.mask[rows]).cpu().numpy()
        d, n = np.nonzero(known)
        index = pd.MultiIndex.from_arrays(
            [dates[d], np.array(panel.assets, dtype=object)[n]], names=["datetime", "instrument"]
        )
        return pd.Series(scores[d, n], index, name="score")

    def _panel(self, dataset: DatasetH, dates: slice) -> Panel:
        """The handler's prices, as they came from its loader."""
        if not hasattr(dataset.handler, DataHandlerLP.ATTR_MAP[DataHandlerLP.DK_R]):
            raise DataError("the handler has dropped the prices of its loader. Give it drop_raw=False.")
        frame = dataset.handler.fetch(dates, col_set="feature", data_key=DataHandlerLP.DK_R)
        missing = [column for column in self.prices.values() if column not in frame]
        if missing:
            raise DataError(
                f"the handler's features lack {listing(missing)}; it has {listing(map(str, frame.columns), most=20)}. "
                "Add them to its loader, or name them in prices={'close': ...}."
            )
        columns = {name: frame[column].astype(float) for name, column in self.prices.items()}
        wide = pd.DataFrame(columns).reorder_levels(["datetime", "instrument"]).sort_index()
        further = [name for name in self.prices if name not in (*FIELDS, *ACTIONS)]
        return Panel.from_frame(wide, exchange=self.exchange, fields=further, off_calendar="raise")


def _span(dataset: DatasetH, segment: str | slice) -> slice:
    """The dates of a segment, both ends included."""
    if isinstance(segment, slice):
        for end in (segment.start, segment.stop):
            if end is not None and pd.Timestamp(end).tz is not None:
                raise DataError(f"segment {segment}: {end} has a time zone. Give session labels, dates without one.")
        return segment
    if segment not in dataset.segments:
        raise DataError(f"no segment {segment!r} among {listing(dataset.segments)}. Name one of them.")
    bounds = dataset.segments[segment]
    return bounds if isinstance(bounds, slice) else slice(*bounds)
