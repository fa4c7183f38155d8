"""The market as a panel: values and their state on the union of its exchanges' calendars, point in time."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float64, Int32, Int64, UInt8
from torch import Tensor

from qtorch.data.build import build
from qtorch.data.calendars import AnyCalendar
from qtorch.data.errors import DataError, counted, listing, span
from qtorch.data.progress import progress_bar
from qtorch.data.rows import Date, Dates, FrameRows, ParquetRows, Rows, label, labels
from qtorch.data.rules import Rules
from qtorch.data.sinks import DiskSink, MemorySink
from qtorch.data.states import State, last_listed_row, last_price, states
from qtorch.data.store import TensorFolder

if TYPE_CHECKING:
    from qtorch.data.quality import Quality

_TENSORS = ("values", "state", "session_day", "exchange_is_session", "exchange_next_day", "exchange_close")


@dataclass(frozen=True, eq=False)
class Panel:
    """Prices of `N` assets at `T` dates, the union of their exchanges' sessions; an immutable value.

    Row t holds exactly what is known at the instant `as_of[t]`: for each asset the latest close that became known
    after `as_of[t-1]`. With the default as-of, after the last close of the day, that is the close labelled
    `dates[t]`, save where a market's next close comes before another's, across the world; at
    ``"16:30 Europe/London"`` New York's column holds the close of its session before.

    Attributes:
        values: prices and volumes, NaN where nothing is observed. float64, because daily returns of pegged
            currencies (1e-5) would lose three digits in float32.
        state: a `State` per cell.
        dates: tz-naive session labels, ascending.
        assets: names, in the order of the columns.
        fields: names of the values' last axis; ``close`` is always among them.
        exchanges: the exchange code (MIC) of each asset.
        as_of: UTC instants up to which the rows know the world.
        session_day: the label of the session whose close a cell holds, in days since 1970; the least int32
            where none.
        exchange_codes: the `X` exchanges.
        exchange_is_session: whether a close of the exchange became known between `as_of[t-1]` and `as_of[t]`.
        exchange_next_day: the label of the exchange's next session after those known, in days since 1970.
        exchange_close: the instant of the exchange's latest close that is known, in minutes since 1970 (UTC); the least
            int32 before its first.
        delisted: the dates of delistings that are known, by asset; None where nothing is known of them.
        findings: what was noticed or set aside while building: kind, asset, date, row of the frame, detail.
    """

    values: Float64[Tensor, "T N F"]
    state: UInt8[Tensor, "T N"]
    dates: pd.DatetimeIndex
    assets: tuple[str, ...]
    fields: tuple[str, ...]
    exchanges: tuple[str, ...]
    as_of: pd.DatetimeIndex
    session_day: Int32[Tensor, "T N"]
    exchange_codes: tuple[str, ...]
    exchange_is_session: Bool[Tensor, "T X"]
    exchange_next_day: Int32[Tensor, "T X"]
    exchange_close: Int32[Tensor, "T X"]
    delisted: Mapping[str, str] | None
    findings: pd.DataFrame

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame,
        *,
        exchange: str | Mapping[Any, str] | None = None,
        calendars: Iterable[AnyCalendar] = (),
        as_of: str | None = None,
        bad_rows: Literal["raise", "quarantine"] = "raise",
        off_calendar: Literal["keep", "drop", "raise"] = "keep",
        adjust: bool = True,
        fields: Sequence[str] = (),
        delisted: Mapping[Any, str | pd.Timestamp] | None = None,
        jump: float = 0.5,
        progress: bool = False,
    ) -> "Panel":
        """Builds a panel from a long frame, a frame indexed by (date, asset), or wide closes.

        Args:
            frame: columns `date`, `asset`, `close` and, unless the argument is given, `exchange`; optional `open`,
                `high`, `low`, `volume`, `realised_variance` (of the session, decimals squared), `adj_close` or
                `split` and `dividend`, and `known_at`, the instant (with a time zone) from which a row is known, where
                that is later than its session's close. Or the same with a MultiIndex (date, asset) or qlib's
                (datetime, instrument). Or, with a DatetimeIndex, one column of closes per asset. A row without a close
                says that there is no price. A split or dividend between sessions counts with the next one; one dated
                after the last price is not known yet and changes nothing. Those of a session count once, as they were
                first known: a revision of them, as of a price, changes nothing that was known.
            exchange: the exchange code of all assets, or of each.
            calendars: calendars of exchange codes that `qtorch.data.sessions` does not know, or is to take otherwise.
            as_of: ``"HH:MM Zone"``, a wall-clock time of each date (``"16:30 Europe/London"``); None is after the
                last close of the date.
            bad_rows: ``"raise"`` refuses the frame for rows that cannot be right (a non-positive, infinite or
                unreadable price, a duplicate, dates out of order); ``"quarantine"`` leaves those rows out (rows
                out of order are sorted) and lists each in `findings`.
            off_calendar: what to do with a price on a day on which the exchange is closed: keep it as observed and
                list it in `findings`, drop it and list it, or raise.
            adjust: adjust open, high, low and close for corporate actions where the frame has their columns (see
                `qtorch.data.adjust`), and keep the close as it was traded in the field `unadjusted_close`. The prices
                of a frame without such columns are taken as adjusted; its `unadjusted_close` is one of `fields`.
            fields: further numeric columns to keep.
            delisted: the last date of each asset that is known to have been delisted. With it, an asset that is not
                named, and has no price to the end, is MISSING and not UNLISTED. Prices after the date are kept, and
                listed in `findings`.
            jump: one-session moves beyond this (0.5 is 50 %) are listed in `findings`.
            progress: show a progress bar.

        Raises:
            DataError: rows that cannot be used, named by asset, date and row; an unknown exchange code; a date
                beyond the exchange's calendar; a frame of another layout; a delisting of an unknown asset, or
                whose date cannot be read.

        Example:
            >>> import pandas as pd
            >>> closes = pd.DataFrame(
            ...     {"SPY": [468.8, 465.3], "EWJ": [63.7, 63.2]}, index=pd.to_datetime(["2021-12-02", "2021-12-03"])
            ... )
            >>> Panel.from_frame(closes, exchange="XNYS")
            Panel(2 dates 2021-12-02..2021-12-03, 2 assets, 1 exchange, fields close; 4 observed)
        """
        rules = Rules(exchange, calendars, as_of, bad_rows, off_calendar, adjust, fields, delisted, jump)
        return cls._build(FrameRows(frame), rules, None, progress)

    @classmethod
    def from_parquet(
        cls,
        path: str | Path,
        *,
        start: str | pd.Timestamp | None = None,
        end: str | pd.Timestamp | None = None,
        known_by: pd.Timestamp | None = None,
        store: str | Path | None = None,
        progress: bool = False,
        **options: Any,
    ) -> "Panel":
        """Builds a panel from a Parquet file or a partitioned dataset, a chunk of rows at a time.

        Args:
            path: file or folder with the columns of `from_frame`; only those needed are read.
            start: the first date to read, inclusive; without a time zone.
            end: the last date to read, inclusive; without a time zone.
            known_by: an instant with a time zone; rows whose `known_at` is later are left out.
            store: a folder for a panel larger than memory: its tensors are files that are mapped into memory, as of
                `Panel.open`.
            progress: show a progress bar.
            **options: as of `from_frame`.

        Raises:
            DataError: the file cannot be read, `start` or `end` is no date, `known_by` has no time zone or the file no
                such instants, or `from_frame` refuses what it holds.
        """
        return cls._build(ParquetRows(path, start, end, known_by=known_by), Rules(**options), store, progress)

    @classmethod
    def update(
        cls,
        folder: str | Path,
        path: str | Path,
        *,
        say: Callable[[str], None] = lambda line: None,
        progress: bool = False,
        **options: Any,
    ) -> "Panel":
        """The panel of a Parquet dataset, kept in a folder, so that the next call reads only the files that are new.

        The panel is that of `from_parquet` with the same options, in every bit, and mapped into memory. Files are added
        where all dates in them are later than those that were there, as in a dataset of a file for each session. All is
        read anew, and `say` is told why, where a file was changed or is gone, and so after each change of a dataset of
        one file; where prices come with splits, dividends or adjusted closes, or with `known_at`, which rescale or
        revise the past; where an exchange is new, or a price was not known yet (`as_of`); where options changed. A file
        of the same size and time is taken to be the same; of another time its SHA-256 tells.

        Whatever happens meanwhile, the folder holds the panel before or the one after.

        Args:
            folder: where the panel is kept; it is made by the first call.
            path: file or folder, as of `from_parquet`.
            say: receives a line that tells what was read.
            progress: show a progress bar.
            **options: as of `from_frame`.

        Raises:
            DataError: as of `from_parquet`.
        """
        from qtorch.data import cached

        return cached.update(folder, path, Rules(**options), say=say, progress=progress)

    @classmethod
    def _build(cls, rows: Rows, rules: Rules, store: str | Path | None, progress: bool) -> "Panel":
        with progress_bar("building the panel", 2 * len(rows) if progress else None) as advance:
            if store is None:
                return cls(**build(rows, rules, MemorySink(), advance))
            folder = TensorFolder.create(store)
            try:
                panel = cls(**build(rows, rules, DiskSink(folder), advance))
            except BaseException:
                folder.discard()
                raise
        return panel._finish(folder, on_disk=("values", "session_day"))

    def save(self, path: str | Path) -> None:
        """Writes the panel to a new folder: a ``.npy`` file a tensor, Parquet for the rest; nothing is pickled.

        Raises:
            DataError: there is something at the path already.
        """
        self._finish(TensorFolder.create(path), on_disk=())

    def _finish(self, folder: TensorFolder, on_disk: Sequence[str]) -> "Panel":
        """Writes what is not on disk yet, and opens the panel from there."""
        first = 0
        for name in _TENSORS:
            if name in on_disk:  # with the assets first, and the rows before the first price
                values = getattr(self, name)
                first = values.storage_offset() // values.stride(0)
            else:
                folder.write(name, getattr(self, name))
        frames = {
            "dates": pd.DataFrame({"date": self.dates, "as_of": self.as_of}),
            "assets": pd.DataFrame({"asset": self.assets, "exchange": self.exchanges}),
            "findings": self.findings,
        }
        for name, frame in frames.items():
            frame.to_parquet(folder.path / f"{name}.parquet", index=False)
        folder.describe(
            {
                "kind": "panel",
                "fields": self.fields,
                "exchange_codes": self.exchange_codes,
                "delisted": self.delisted,
                "offsets": dict.fromkeys(on_disk, first),
            }
        )
        return Panel.open(folder.path)

    @classmethod
    def open(cls, path: str | Path) -> "Panel":
        """The panel of a folder written by `save` or by ``from_parquet(..., store=...)``, mapped into memory.

        Pages are read when they are used, so that a panel larger than memory can be opened in an instant.

        Raises:
            DataError: the folder is no such store, or was not finished.
        """
        folder = TensorFolder(path)
        about = folder.description("panel")
        dates, assets, findings = (
            pd.read_parquet(folder.path / f"{name}.parquet") for name in ("dates", "assets", "findings")
        )
        tensors = {name: folder.read(name) for name in _TENSORS}
        for name, first in about["offsets"].items():
            tensors[name] = tensors[name].movedim(0, 1)[first : first + len(dates)]
        return cls(
            **tensors,
            dates=pd.DatetimeIndex(dates["date"], name="date"),
            as_of=pd.DatetimeIndex(dates["as_of"]),
            assets=tuple(assets["asset"]),
            exchanges=tuple(assets["exchange"]),
            fields=tuple(about["fields"]),
            exchange_codes=tuple(about["exchange_codes"]),
            delisted=about["delisted"],
            findings=findings,
        )

    @property
    def mask(self) -> Bool[Tensor, "T N"]:
        """True where a price is observed."""
        return self.state == State.OBSERVED

    @property
    def field_mask(self) -> Bool[Tensor, "T N F"]:
        """True where a field is there; a source may lack some beside an observed close."""
        return torch.logical_and(self.values.isfinite(), self.mask.unsqueeze(-1))

    def field_index(self, name: str) -> int:
        """The position of a field on the last axis of `values`.

        Raises:
            DataError: the panel has no such field.
        """
        if name not in self.fields:
            raise DataError(f"no field {name!r}; this panel has {listing(self.fields, most=20)}.")
        return self.fields.index(name)

    def field(self, name: str) -> Float64[Tensor, "T N"]:
        """The values of a field, NaN where none is observed.

        Raises:
            DataError: the panel has no such field.
        """
        return torch.where(self.mask, self.values[:, :, self.field_index(name)], torch.nan)

    @property
    def close(self) -> Float64[Tensor, "T N"]:
        """Closing prices, NaN where none is observed."""
        return self.field("close")

    @cached_property
    def exchange_index(self) -> tuple[int, ...]:
        """The position of each asset's exchange among `exchange_codes`."""
        return tuple(self.exchange_codes.index(code) for code in self.exchanges)

    @property
    def is_session(self) -> Bool[Tensor, "T N"]:
        """Whether a close of the asset's exchange became known between `as_of[t-1]` and `as_of[t]`."""
        return self.exchange_is_session[:, list(self.exchange_index)]

    @property
    def next_session_day(self) -> Int32[Tensor, "T N"]:
        """The label of the next session of the asset's exchange after those known, in days since 1970."""
        return self.exchange_next_day[:, list(self.exchange_index)]

    def returns(self, *, log: bool = False, field: str = "close") -> Float64[Tensor, "T N"]:
        """Returns from each asset's previous observed close, over closed days; NaN where none.

        Args:
            log: logarithmic returns, else simple ones.
            field: the price to take; with another than the close, from its previous observed value.
        """
        price = self.field(field)
        ratio = price / previous(price)
        return ratio.log() if log else ratio - 1

    def row(self, date: Date) -> int:
        """The row of a date.

        Raises:
            DataError: the date is not among the panel's dates, cannot be read, or has a time zone.
        """
        day = label(date, "date")
        row = int(self.dates.searchsorted(day))
        if row == len(self.dates) or self.dates[row] != day:
            asked = f"{day:%Y-%m-%d}" if day == day.normalize() else str(day)
            raise DataError(
                f"{asked} is not a date of this panel, which has {len(self.dates)} from "
                f"{self.dates[0]:%Y-%m-%d} to {self.dates[-1]:%Y-%m-%d}, sessions of {listing(set(self.exchanges))}."
            )
        return row

    def rows(self, dates: Dates) -> Int64[np.ndarray, " D"]:
        """The rows of one date or of many.

        Raises:
            DataError: there is no date, or one is not among the panel's, cannot be read, or has a time zone.
        """
        return np.array([self.row(date) for date in labels(dates, "date")], dtype=np.int64)

    def row_until(self, date: Date) -> int:
        """The last row on or before a date, which need not be one of the panel's.

        Raises:
            DataError: the date is before the panel's first, cannot be read, or has a time zone.
        """
        day = label(date, "date")
        row = int(self.dates.searchsorted(day, side="right")) - 1
        if row < 0:
            raise DataError(f"{day:%Y-%m-%d} is before the panel's first date, {self.dates[0]:%Y-%m-%d}.")
        return row

    def quality(self, *, stale: int = 5, jump: float = 0.1, jump_scales: float = 10.0) -> "Quality":
        """What is wrong with the prices: counts per asset, where each fault is, and a picture.

        Args as of `qtorch.data.quality.quality`, which tells each column of the table.

        Example:
            >>> from qtorch.data import load_sample
            >>> report = Panel.from_frame(load_sample()).quality()
            >>> report.table.loc["WTI", ["missing", "off_calendar"]].to_dict()
            {'missing': 29, 'off_calendar': 30}
        """
        from qtorch.data.quality import quality

        return quality(self, stale=stale, jump=jump, jump_scales=jump_scales)

    @classmethod
    def from_arrow(cls, table: Any, **options: Any) -> "Panel":
        """Builds a panel from a table of pyarrow, polars or another that speaks Arrow; options as of `from_frame`."""
        from qtorch.data import interchange

        return interchange.from_arrow(table, **options)

    @classmethod
    def from_xarray(cls, dataset: Any, **options: Any) -> "Panel":
        """Builds a panel from a Dataset of dims (date, asset), as of `to_xarray`; options as of `from_frame`."""
        from qtorch.data import interchange

        return interchange.from_xarray(dataset, **options)

    def to_frame(
        self, layout: Literal["long", "multiindex", "qlib"] = "long", *, with_as_of: bool = False
    ) -> pd.DataFrame:
        """The prices as a frame, a row for each; see `qtorch.data.interchange.to_long`."""
        from qtorch.data import interchange

        return interchange.to_long(self, layout=layout, with_as_of=with_as_of)

    def to_wide(self, field: str = "close", *, by: Literal["session", "row"] = "session") -> pd.DataFrame:
        """A field as a frame of dates by assets; see `qtorch.data.interchange.to_wide`."""
        from qtorch.data import interchange

        return interchange.to_wide(self, field, by=by)

    def to_arrow(self, *, with_as_of: bool = False) -> Any:
        """The prices as a pyarrow table, which polars reads too; see `qtorch.data.interchange.to_arrow`."""
        from qtorch.data import interchange

        return interchange.to_arrow(self, with_as_of=with_as_of)

    def to_xarray(self) -> Any:
        """Fields and states as an xarray Dataset; see `qtorch.data.interchange.to_xarray`."""
        from qtorch.data import interchange

        return interchange.to_xarray(self)

    def to_gluonts(self, field: str = "return", *, freq: Literal["B", "D"] | None = None) -> pd.DataFrame:
        """A frame for GluonTS's PandasDataset; see `qtorch.data.interchange.to_gluonts`."""
        from qtorch.data import interchange

        return interchange.to_gluonts(self, field, freq=freq)

    def to_neuralforecast(self, field: str = "return", *, fill: Literal["zero", "previous"] = "zero") -> pd.DataFrame:
        """A frame for NeuralForecast; see `qtorch.data.interchange.to_neuralforecast`."""
        from qtorch.data import interchange

        return interchange.to_neuralforecast(self, field, fill=fill)

    def until(self, date: Date) -> "Panel":
        """The panel as it stood at a date: its rows up to that one, with states that know nothing later."""
        n = self.row(date) + 1
        mask, is_session = self.mask[:n], self.exchange_is_session[:n]
        last_row = None
        if self.delisted is not None:
            last_row = last_listed_row(self.delisted, self.assets, self.dates[:n], last_price(mask))
        return replace(
            self,
            state=states(mask, is_session, self.exchange_index, last_row),
            dates=self.dates[:n],
            as_of=self.as_of[:n],
            findings=self.findings[~(self.findings["date"] > self.dates[n - 1])],
            **{name: getattr(self, name)[:n] for name in _TENSORS if name != "state"},
        )

    def select(self, assets: Sequence[str]) -> "Panel":
        """The panel of some of its assets, in the order given; the dates stay.

        Raises:
            DataError: an asset is not in the panel, or is named twice.
        """
        place = {asset: i for i, asset in enumerate(self.assets)}
        unknown = [asset for asset in assets if asset not in place]
        if unknown:
            raise DataError(f"not in the panel: {listing(unknown)}. It has {listing(self.assets, most=10)}.")
        if len(set(assets)) < len(assets):
            raise DataError(f"an asset is named twice: {listing(assets, most=10)}. Name each once.")
        at = [place[asset] for asset in assets]
        columns = slice(at[0], at[-1] + 1) if at and at == list(range(at[0], at[-1] + 1)) else at  # a view if it can be
        return replace(
            self,
            values=self.values[:, columns],
            state=self.state[:, columns],
            session_day=self.session_day[:, columns],
            assets=tuple(assets),
            exchanges=tuple(self.exchanges[i] for i in at),
            findings=self.findings[self.findings["asset"].isin(assets)],
        )

    def to(self, device: torch.device | str) -> "Panel":
        """The panel with its tensors on a device; windows are gathered there."""
        return replace(self, **{name: getattr(self, name).to(device) for name in _TENSORS})

    def __repr__(self) -> str:
        return (
            f"Panel({counted(len(self.dates), 'date')} {span(self.dates)}, {counted(len(self.assets), 'asset')}, "
            f"{counted(len(set(self.exchanges)), 'exchange')}, fields {listing(self.fields, most=10, between=' ')}; "
            f"{int(self.mask.sum())} observed)"
        )

    def _repr_html_(self) -> str:
        from qtorch.data.card import panel_card

        return panel_card(self)


def previous(x: Float64[Tensor, "T N"]) -> Float64[Tensor, "T N"]:
    """Each asset's last value before a row that is not NaN; NaN where there is none."""
    row = torch.arange(1, len(x) + 1, dtype=torch.int32, device=x.device).unsqueeze(1)
    last = torch.where(x.isnan(), 0, row).cummax(0).values  # 0 for none
    before = torch.cat([torch.zeros_like(last[:1]), last[:-1]]).long()
    return torch.cat([torch.full_like(x[:1], torch.nan), x]).gather(0, before)
