"""Signals as a column of zipline's pipelines. Needs zipline-reloaded: ``pip install 'qtorch-finance[zipline]'``."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64
from zipline.lib.adjusted_array import AdjustedArray
from zipline.pipeline.loaders.base import PipelineLoader

from qtorch.backtest.signals import Signals
from qtorch.data import DataError
from qtorch.data.errors import listing
from qtorch.distributions.checks import require


class ZiplineLoader(PipelineLoader):
    """Weights or forecasts in a pipeline, each seen from the first session before whose open it was known.

    zipline's `DataFrameLoader` shows a row on its own date, at whose open the row's close is not known. Here the
    instant at which each value was known is compared with the domain's: by default 45 minutes before each session's
    open. A value is seen on one session alone, and the last known of several; NaN on the others is no order.

    Values that fill at ``"this_close"`` are to be seen on the session of their own date, and are refused where they
    were not known before it opened.

    Args:
        signals: of weights or forecasts.
        sids: zipline's number of each asset.

    Raises:
        DataError: an asset has no sid.

    Example:
        >>> class Model(DataSet):  # doctest: +SKIP
        ...     weight = Column(float)
        >>> loader = ZiplineLoader(signals, {"AAPL": finder.lookup_symbol("AAPL", None).sid})  # doctest: +SKIP
        >>> TradingAlgorithm(..., get_pipeline_loader=lambda column: loader)  # doctest: +SKIP
    """

    def __init__(self, signals: Signals, sids: Mapping[str, int]):
        without = [asset for asset in signals.assets if asset not in sids]
        if without:
            raise DataError(f"no sid of {listing(without)}. Give zipline's number of each asset of the signals.")
        self.signals = signals
        self.sids = {asset: int(sids[asset]) for asset in signals.assets}

    def load_adjusted_array(
        self,
        domain: Any,
        columns: list[Any],
        dates: pd.DatetimeIndex,
        sids: pd.Index,
        mask: Bool[np.ndarray, "T A"],
    ) -> dict[Any, Any]:
        """What a pipeline asks for: values of dates and sids.

        Raises:
            ValueError: more than one column, or one that is not of floats.
            DataError: look-ahead, see the class.
        """
        require(len(columns) == 1, "columns", columns, "signals are one column: give each its own loader")
        (column,) = columns
        require(column.dtype == np.dtype(float), "column", column, "signals are floats: Column(float)")
        sessions = domain.sessions()
        seen = self.seen(sessions, domain.data_query_cutoff_for_sessions(sessions))
        at = pd.Index(list(self.sids.values())).get_indexer(sids)
        values = seen[np.ix_(sessions.get_indexer(dates), at)]
        values[~mask | (at < 0)] = column.missing_value
        return {column: AdjustedArray(values, {}, column.missing_value)}

    def seen(self, sessions: pd.DatetimeIndex, cutoffs: pd.DatetimeIndex) -> Float64[np.ndarray, "T N"]:
        """Values on the sessions of zipline's calendar on which they are seen; NaN where there is none.

        Args:
            sessions: the calendar's.
            cutoffs: UTC instants; what is known before one is seen on its session.

        Raises:
            DataError: a value of ``"this_close"`` whose date is no session, or which was not known before its cutoff.
        """
        signals, cutoff = self.signals, cutoffs.tz_convert("UTC").tz_localize(None).to_numpy("M8[us]")
        d, n = np.nonzero(~np.isnan(signals.values))
        known = signals.known_at[d, n]
        if signals.fill == "this_close":
            session = sessions.get_indexer(signals.dates)[d]
            late = (session < 0) | (known >= cutoff[session])
            if late.any():
                cells = np.zeros(signals.values.shape, dtype=bool)
                cells[d[late], n[late]] = True
                raise DataError(
                    f"look-ahead: {int(late.sum())} values would be seen on their own date, before whose open they "
                    f"were not known: {signals.named(cells)}. Give fill='next_open' or 'next_close', and each is seen "
                    "on the next session."
                )
        else:
            session = cutoff.searchsorted(known, side="right")
        order = np.argsort(known, kind="stable")  # of one session, the last known counts
        order = order[session[order] < len(sessions)]
        values = np.full((len(sessions), len(signals.assets)), np.nan)
        values[session[order], n[order]] = signals.values[d[order], n[order]]
        return values
