"""What a strategy wants to hold, or a model says, stamped with when it was known: the same for every backtest."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Float64, Int, Shaped
from torch import Tensor

from qtorch.backtest.instants import instants, session_labels
from qtorch.backtest.signal_frames import exchange_codes, filled, long_values, own_exchanges
from qtorch.data import DataError, Panel, sessions
from qtorch.data.calendars import AnyCalendar, code_of
from qtorch.data.errors import counted, listing, span
from qtorch.distributions.checks import require
from qtorch.forecast import Forecast

if TYPE_CHECKING:
    from qtorch.backtest.currencies import Currencies
    from qtorch.backtest.orders import Orders

Fill = Literal["next_open", "next_close", "this_close"]
Sizing = Literal["fill", "known"]

_METADATA = b"qtorch.signals"
_EARLIEST = np.timedelta64(14, "h")  # the first place on Earth at which a date begins is 14 hours ahead of UTC


@dataclass(frozen=True, eq=False)
class Signals:
    """Values of `N` assets on `D` dates, each with the instant at which it was known; an immutable value.

    A value says what is known after a date's session and not on which date it trades: that follows from `known_at`, the
    asset's exchange and `fill`. Targets are weights; signals of forecasts are for harnesses that make weights of them.

    Attributes:
        values: weights in units of the equity, or forecasts; NaN is no order, which leaves a position alone.
        known_at: UTC instants (datetime64[us]); without meaning where there is no value.
        dates: the as-of session labels, tz-naive, ascending.
        assets: names, in the order of the columns.
        exchanges: of each asset, its exchange's code (MIC) or its calendar.
        fill: ``"next_open"``, the first open of the asset's exchange after `known_at`; ``"next_close"``, the first
            close after it; ``"this_close"``, the close of the as-of session itself, by which the value must be known.
        sizing: ``"fill"``, a target is turned into units by the equity and the prices at the fill; ``"known"``, by the
            last equity and closes before the date of the fill. Fills of one date share its equity: over several
            exchanges ``"fill"`` sizes a trade at Tokyo's open by New York's later one, and ``"known"`` does not.

    Raises:
        DataError: shapes that differ; dates out of order, twice, with a time of day or a time zone, or that are no
            session of any exchange; an asset twice; an infinite value; a value without the instant at which it was
            known, or known before its date begins anywhere; with ``"this_close"``, a date on which the asset's exchange
            is closed.
        ValueError: another fill or sizing.

    Example:
        >>> import torch
        >>> from qtorch.data import load_sample
        >>> panel = Panel.from_frame(load_sample().query("asset in ['AAPL', 'KO'] and date > '2022-06'"))
        >>> Signals.from_panel(panel, torch.full((2, 2), 0.5), ["2022-07-01", "2022-08-01"])
        Signals(2 dates 2022-07-01..2022-08-01, 2 assets, 1 exchange; 4 values, fill next_close, sizing fill)
    """

    values: Float64[np.ndarray, "D N"]
    known_at: Shaped[np.ndarray, "D N"]
    dates: pd.DatetimeIndex
    assets: tuple[str, ...]
    exchanges: tuple[Any, ...]
    fill: Fill = "next_close"
    sizing: Sizing = "fill"

    def __post_init__(self) -> None:
        """Checks everything that needs no prices."""
        require(
            self.fill in ("next_open", "next_close", "this_close"), "fill", self.fill, "see the class for the three"
        )
        require(self.sizing in ("fill", "known"), "sizing", self.sizing, "give 'fill' or 'known'")
        shape = (len(self.dates), len(self.assets))
        if not (self.values.shape == self.known_at.shape == shape and len(self.exchanges) == shape[1] and min(shape)):
            raise DataError(
                f"values {self.values.shape}, known_at {self.known_at.shape} and {len(self.exchanges)} exchanges for "
                f"{shape[0]} dates and {shape[1]} assets. Give a value and an instant for each, and at least one."
            )
        if self.known_at.dtype != np.dtype("M8[us]"):
            raise DataError(f"known_at is {self.known_at.dtype}. Give UTC instants as datetime64[us].")
        session_labels(self.dates)
        twice = pd.Index(self.assets)[pd.Index(self.assets).duplicated()]
        if len(twice):
            raise DataError(f"assets twice: {listing(twice.unique())}. Name each once.")
        self._refuse(np.isinf(self.values), "infinite values", "Give finite weights, and NaN for no order")
        there = ~np.isnan(self.values)
        self._refuse(there & np.isnat(self.known_at), "values without known_at", "Say when each was known")
        begins = self.dates.to_numpy("M8[us]")[:, None] - _EARLIEST
        self._refuse(
            there & (self.known_at < begins),
            "values known before their date begins anywhere",
            "Date each by the session that it was made after, not by the one that it trades in",
        )
        self._check_sessions(there)

    @classmethod
    def from_panel(
        cls,
        panel: Panel,
        weights: Float[Tensor, "D N"] | pd.DataFrame,
        dates: Iterable[str | pd.Timestamp] | None = None,
        *,
        known_at: "Literal['close'] | pd.Series | pd.DatetimeIndex | pd.DataFrame | None" = None,
        calendars: Iterable[AnyCalendar] = (),
        fill: Fill = "next_close",
        sizing: Sizing = "fill",
    ) -> "Signals":
        """Weights that were made of a panel's rows, known at their `as_of`.

        Args:
            panel: whose rows the weights know, and nothing later.
            weights: of all its assets; or a frame of dates by some of them.
            dates: of a tensor's rows.
            known_at: instants with a time zone, of each date or each cell, where they differ from the rows' `as_of`.
                ``"close"`` stamps each with the close of its own exchange (on other days, with `as_of`), and so claims
                that it depends on nothing later: that Tokyo's weights do not know New York's close.
            calendars: for exchange codes of the user's.
            fill: as of the class.
            sizing: as of the class.

        Raises:
            DataError: a date or an asset is not the panel's, or see the class.
        """
        if isinstance(weights, pd.DataFrame):
            if dates is not None:
                raise DataError("a frame of weights has its own dates. Leave dates out, or give a tensor.")
            dates, assets, values = weights.index, tuple(weights.columns), weights.to_numpy(dtype=float)
        else:
            if dates is None:
                raise DataError("a tensor of weights has no dates. Give dates=..., one for each of its rows.")
            assets, values = panel.assets, weights.detach().double().cpu().numpy()
        unknown = set(assets) - set(panel.assets)
        if unknown:
            raise DataError(f"not in the panel: {listing(sorted(map(str, unknown)))}. It has {listing(panel.assets)}.")
        rows = np.array([panel.row(date) for date in dates], dtype=np.int64)
        labels, as_of = panel.dates[rows], panel.as_of[rows]
        code_by = dict(zip(panel.assets, panel.exchanges, strict=True))
        exchanges = _calendars([code_by[asset] for asset in assets], calendars)
        if isinstance(known_at, str):
            require(known_at == "close", "known_at", known_at, "give instants or 'close'")
            stamps = _own_closes(labels, as_of, exchanges)
        else:
            stamps = instants(as_of if known_at is None else known_at, labels, assets)
        return cls(values, stamps, labels, assets, exchanges, fill, sizing)

    @classmethod
    def from_forecast(
        cls,
        forecast: Forecast,
        panel: Panel,
        measure: Float[Tensor, "D H N"] | None = None,
        *,
        horizon: int | None = None,
        **options: Any,
    ) -> "Signals":
        """A measure of a forecast, such as ``forecast.value_at_risk(0.99)``; NaN where there is no forecast.

        Args:
            forecast: made of the panel.
            panel: that says when each row was known, and the exchanges.
            measure: of the forecast; the mean by default.
            horizon: one of the forecast's, in sessions; the first by default.
            **options: `known_at`, `calendars`, `fill` and `sizing`, as of `from_panel`.

        Raises:
            ValueError: the forecast has no such horizon.
            DataError: a date or an asset is not the panel's.
        """
        horizon = forecast.horizons[0] if horizon is None else horizon
        require(horizon in forecast.horizons, "horizon", horizon, f"the forecast has {forecast.horizons}")
        at = forecast.horizons.index(horizon)
        measured = (forecast.marginals.mean if measure is None else measure)[:, at].detach().double()
        values = measured.masked_fill(~forecast.mask, float("nan")).cpu().numpy()
        return cls.from_panel(panel, pd.DataFrame(values, forecast.dates, list(forecast.assets)), **options)

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame,
        *,
        known_at: pd.Series | pd.DatetimeIndex | pd.DataFrame | None = None,
        exchange: str | Mapping[str, str] | None = None,
        calendars: Iterable[AnyCalendar] = (),
        fill: Fill = "next_close",
        sizing: Sizing = "fill",
    ) -> "Signals":
        """Values of a long frame, or of a wide one with `known_at`.

        Args:
            frame: columns `date`, `asset`, `value`, `known_at` (with a time zone) and, unless the argument is given,
                `exchange`; or, with a DatetimeIndex, a column of values per asset.
            known_at: of a wide frame, instants with a time zone, of each date or each cell.
            exchange: the exchange code of all assets, or of each.
            calendars: for exchange codes of the user's.
            fill: as of the class.
            sizing: as of the class.

        Raises:
            DataError: columns are missing; more than one value for a date and asset; an instant without a time zone; an
                asset without an exchange or with two; or see the class.
        """
        if "asset" not in frame and isinstance(frame.index, pd.DatetimeIndex):
            if known_at is None:
                raise DataError("a wide frame does not say when its values were known. Give known_at=...")
            dates, assets = session_labels(pd.DatetimeIndex(frame.index)), tuple(map(str, frame.columns))
            stamps = instants(known_at, dates, assets)
            codes = exchange_codes(assets, exchange)
            values = frame.to_numpy(dtype=float)
        else:
            if known_at is not None:
                raise DataError("a long frame has known_at as a column. Leave the argument out.")
            dates, assets, values, stamps = long_values(frame)
            named = frame.assign(asset=frame["asset"].astype(str)) if exchange is None else None
            codes = exchange_codes(assets, exchange if named is None else own_exchanges(named))
        return cls(values, stamps, dates, assets, _calendars(codes, calendars), fill, sizing)

    def to_frame(self) -> pd.DataFrame:
        """The values as a long frame: date, asset, value, known_at, exchange; a row for each that is there."""
        d, n = np.nonzero(~np.isnan(self.values))
        names = pd.array(self.assets, dtype="str"), pd.array([code_of(each) for each in self.exchanges], dtype="str")
        return pd.DataFrame(
            {
                "date": self.dates[d],
                "asset": names[0].take(n),
                "value": self.values[d, n],
                "known_at": pd.DatetimeIndex(self.known_at[d, n], tz="UTC"),
                "exchange": names[1].take(n),
            }
        )

    def to_parquet(self, path: str | Path) -> None:
        """Writes `to_frame`, with dates, assets, exchanges, fill and sizing in the schema's metadata."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        about = {
            "fill": self.fill,
            "sizing": self.sizing,
            "assets": list(self.assets),
            "exchanges": [code_of(each) for each in self.exchanges],
            "dates": [f"{date:%Y-%m-%d}" for date in self.dates],
        }
        table = pa.Table.from_pandas(self.to_frame(), preserve_index=False)
        kept = table.schema.metadata or {}
        pq.write_table(table.replace_schema_metadata({**kept, _METADATA: json.dumps(about).encode()}), path)

    @classmethod
    def from_parquet(cls, path: str | Path, *, calendars: Iterable[AnyCalendar] = ()) -> "Signals":
        """The signals that `to_parquet` wrote.

        Args:
            path: the file.
            calendars: for exchange codes of the user's, of which the file has the codes alone.

        Raises:
            DataError: there is no such file, or `to_parquet` did not write it.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(path)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path}: not a readable Parquet file ({error}). Write or copy it again.") from error
        if _METADATA not in (table.schema.metadata or {}):
            raise DataError(f"{path}: not a file of Signals.to_parquet. Read it and use Signals.from_frame.")
        about, frame = json.loads(table.schema.metadata[_METADATA]), table.to_pandas()
        dates, assets = pd.DatetimeIndex(about["dates"]).as_unit("us"), tuple(about["assets"])
        values, stamps = filled(frame, dates, assets)
        exchanges = _calendars(about["exchanges"], calendars)
        return cls(values, stamps, dates, assets, exchanges, about["fill"], about["sizing"])

    def orders(self, panel: Panel, currencies: "Currencies | None" = None) -> "Orders":
        """The weights as orders on the dates of a panel on which they fill; see `qtorch.backtest.orders.place`."""
        from qtorch.backtest.orders import place

        return place(self, panel, currencies)

    def by_exchange(self) -> Iterator[tuple[AnyCalendar, Int[np.ndarray, " n"]]]:
        """Each exchange, and the columns of its assets."""
        codes = np.array([code_of(each) for each in self.exchanges], dtype=object)
        for code in dict.fromkeys(codes):
            columns = np.flatnonzero(codes == code)
            yield self.exchanges[columns[0]], columns

    def __repr__(self) -> str:
        codes = len({code_of(each) for each in self.exchanges})
        return (
            f"Signals({counted(len(self.dates), 'date')} {span(self.dates)}, {counted(len(self.assets), 'asset')}, "
            f"{counted(codes, 'exchange')}; {counted(int((~np.isnan(self.values)).sum()), 'value')}, "
            f"fill {self.fill}, sizing {self.sizing})"
        )

    def _repr_html_(self) -> str:
        from qtorch.backtest.cards import signals_card

        return signals_card(self)

    def named(self, cells: Bool[np.ndarray, "D N"]) -> str:
        """Names cells for an error message."""
        d, n = (index[:5] for index in np.nonzero(cells))
        named = [
            f"{self.assets[j]} {self.dates[i]:%Y-%m-%d} (known {pd.Timestamp(self.known_at[i, j]):%Y-%m-%d %H:%M} UTC)"
            if not np.isnat(self.known_at[i, j])
            else f"{self.assets[j]} {self.dates[i]:%Y-%m-%d}"
            for i, j in zip(d, n, strict=True)
        ]
        return listing(named, total=int(cells.sum()))

    def _refuse(self, bad: Bool[np.ndarray, "D N"], what: str, remedy: str) -> None:
        if bad.any():
            raise DataError(f"{what}: {self.named(bad)}. {remedy}.")

    def _check_sessions(self, there: Bool[np.ndarray, "D N"]) -> None:
        """Refuses dates that are a session of no exchange, and cells whose own close is wanted where there is none."""
        known = np.zeros(len(self.dates), dtype=bool)
        for calendar, columns in self.by_exchange():
            own = self.dates.isin(sessions(calendar, self.dates[0], self.dates[-1]).days)
            known |= own
            if self.fill == "this_close":
                closed = np.zeros_like(there)
                closed[:, columns] = there[:, columns] & ~own[:, None]
                what = f"values for a close of {code_of(calendar)} on days on which it is closed"
                self._refuse(closed, what, "Give NaN there, or fill='next_close'")
        wrong = self.dates[there.any(1) & ~known]
        if len(wrong):
            codes = listing(dict.fromkeys(map(code_of, self.exchanges)))
            raise DataError(
                f"no session of {codes} on {listing(f'{date:%Y-%m-%d}' for date in wrong)}. Date values by sessions, "
                "or correct the exchanges."
            )


def _calendars(codes: Iterable[str], supplied: Iterable[AnyCalendar]) -> tuple[Any, ...]:
    ours = {code_of(calendar): calendar for calendar in supplied}
    return tuple(ours.get(code, code) for code in codes)


def _own_closes(dates: pd.DatetimeIndex, as_of: pd.DatetimeIndex, exchanges: tuple[Any, ...]) -> np.ndarray:
    """The close of each asset's exchange on each date; `as_of` where it has no session."""
    stamps = np.repeat(as_of.tz_localize(None).to_numpy("M8[us]")[:, None], len(exchanges), axis=1)
    codes = np.array([code_of(each) for each in exchanges], dtype=object)
    for code in dict.fromkeys(codes):
        columns = np.flatnonzero(codes == code)
        calendar = sessions(exchanges[columns[0]], dates.min(), dates.max())
        at = calendar.days.get_indexer(dates)
        closes = calendar.closes.tz_localize(None).to_numpy("M8[us]")[at[at >= 0]]
        stamps[np.ix_(at >= 0, columns)] = closes[:, None]
    return stamps
