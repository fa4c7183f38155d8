"""Where rows of prices come from: a frame of any accepted layout, or Parquet read in chunks."""

import datetime
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, reduce
from numbers import Real
from operator import and_
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from qtorch.data.errors import DataError, listing

PRICES = ("open", "high", "low", "close")
FIELDS = (*PRICES, "volume", "realised_variance")
ACTIONS = ("adj_close", "split", "dividend")
KEYS = ("date", "asset", "exchange", "known_at")
Date = str | datetime.date | np.datetime64  # a datetime and pandas' Timestamp are dates too
Dates = Iterable[Date] | Date
CHUNK = 1 << 19  # rows held at once while Parquet is read


class FrameRows:
    """Rows of a long frame, a frame indexed by (date, asset) or (datetime, instrument), or wide closes.

    Rows can be read more than once, a chunk at a time. A chunk has the columns that are there of those asked for, and
    `row`, the position in what the user gave. Within a part, the rows of an asset should be in the order of time.

    Raises:
        DataError: the frame is empty, or of none of these layouts.
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        if frame.empty:
            raise DataError("the frame is empty: no row to build a panel from.")
        self._frame = _long(frame)
        self.columns = list(self._frame.columns)

    def chunks(self, columns: Sequence[str]) -> Iterator[tuple[int, pd.DataFrame]]:
        """The whole frame, as one chunk."""
        yield 0, self._frame[[*(name for name in columns if name in self._frame), "row"]]

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self._frame)


@dataclass(frozen=True)
class ParquetRows:
    """Rows of a Parquet file or of a hive-partitioned dataset, between two dates, inclusive, or known by an instant.

    Each file is a part: rows need to be in order within a file, not over the dataset. A row without a date or without
    an instant counts, for what builds a panel to name.

    Attributes:
        path: file or folder.
        start: the first date.
        end: the last date.
        files: of the folder, those to read; None reads all.
        first: the number of the first row.
        known_by: the latest `known_at`, an instant with a time zone.
    """

    path: str | Path
    start: str | pd.Timestamp | None = None
    end: str | pd.Timestamp | None = None
    files: tuple[str, ...] | None = None
    first: int = 0
    known_by: pd.Timestamp | None = None

    @cached_property
    def _dataset(self) -> Any:
        import pyarrow as pa
        import pyarrow.dataset as ds

        if not Path(self.path).exists():
            raise DataError(f"{self.path}: no such file or folder.")
        with _readable(self.path):
            # Names are in the file once a page, numbered in each row: so they are to stay.
            parquet = ds.ParquetFileFormat(dictionary_columns=["asset", "exchange"])
            options: dict[str, Any] = {"format": parquet}
            source: Any = self.path
            if self.files is not None:
                source, options["partition_base_dir"] = list(self.files), str(self.path)
            dataset = ds.dataset(source, partitioning="hive", **options)
            part = next(dataset.get_fragments(), None)
            keys = {} if part is None else ds.get_partition_keys(part.partition_expression)
            if {"asset", "exchange"} & set(keys):  # a folder asset=000001 is not numbered 1
                text = {"asset": pa.string(), "exchange": pa.string()}
                kinds = pa.schema([(key, text.get(key, dataset.schema.field(key).type)) for key in keys])
                dataset = ds.dataset(source, partitioning=ds.partitioning(kinds, flavor="hive"), **options)
        names = dataset.schema.names
        missing = [name for name in ("date", "asset", "close") if name not in names]
        if missing:
            raise DataError(
                f"{self.path}: no column {listing(map(repr, missing))}; its columns are {listing(names, most=20)}."
            )
        return dataset

    @cached_property
    def _condition(self) -> Any:
        import pyarrow as pa
        import pyarrow.dataset as ds
        import pyarrow.types as kinds

        kind, date, no_date = self._dataset.schema.field("date").type, ds.field("date"), ds.field("date").is_null()
        if kinds.is_integer(kind) or kinds.is_floating(kind):
            raise DataError(f"{self.path}: date is {kind}, not dates. Write dates, or text such as 2020-01-31.")
        if not (kinds.is_date(kind) or kinds.is_timestamp(kind)):  # text, of a column or of hive's folders
            date, kind = date.cast(pa.string()).cast(pa.timestamp("us")), pa.timestamp("us")
        tests = []
        for name, compare in (("start", "__ge__"), ("end", "__le__")):
            if getattr(self, name) is not None:
                bound = pa.scalar(label(getattr(self, name), name)).cast(kind)
                tests.append(getattr(date, compare)(bound) | no_date)
        if self.known_by is not None:
            known = ds.field("known_at")
            tests.append((known <= self._instant(self.known_by)) | known.is_null())
        return reduce(and_, tests) if tests else None

    def _instant(self, known_by: pd.Timestamp) -> Any:
        import pyarrow as pa
        import pyarrow.types as kinds

        if known_by.tz is None:
            raise DataError(f"known_by is {known_by}, without a time zone. Give an instant: 2022-12-28T22:00Z.")
        if "known_at" not in self.columns:
            raise DataError(
                f"{self.path}: no column 'known_at', without which nothing tells what was known at an instant. Add it "
                "(instants with a time zone), or leave the instant out."
            )
        kind = self._dataset.schema.field("known_at").type
        if not kinds.is_timestamp(kind) or kind.tz is None:
            raise DataError(f"{self.path}: known_at is {kind}, not instants with a time zone.")
        return pa.scalar(known_by).cast(pa.timestamp("ns", kind.tz))

    @cached_property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return list(self._dataset.schema.names)

    def chunks(self, columns: Sequence[str]) -> Iterator[tuple[int, pd.DataFrame]]:
        """The rows in chunks; `row` counts those between the dates, in the order of the files."""
        import pyarrow.types as kinds

        wanted = [name for name in columns if name in self.columns]
        first = self.first
        with _readable(self.path):
            fragments = list(self._dataset.get_fragments(self._condition))
        for part, fragment in enumerate(fragments):
            scanner = fragment.scanner(
                schema=self._dataset.schema,
                columns=wanted,
                filter=self._condition,
                batch_size=CHUNK,
                batch_readahead=2,
                fragment_readahead=1,
            )
            with _readable(self.path):
                for table in _joined(scanner.to_batches()):
                    for i, name in enumerate(table.schema.names):
                        kind = table.schema.field(i).type
                        if name in ("asset", "exchange") and not kinds.is_dictionary(kind):
                            table = table.set_column(i, name, table.column(i).dictionary_encode())
                    frame = table.to_pandas(date_as_object=False)
                    frame["row"] = np.arange(first, first + len(frame))
                    first += len(frame)
                    yield part, frame

    @property
    def kinds(self) -> str:
        """Names and types of the columns, in one text."""
        return "; ".join(f"{field.name} {field.type}" for field in self._dataset.schema)

    def names(self) -> tuple[str, ...]:
        """The files, in the order in which they are read."""
        with _readable(self.path):
            return tuple(fragment.path for fragment in self._dataset.get_fragments(self._condition))

    def __len__(self) -> int:
        """How many rows there are between the dates."""
        with _readable(self.path):
            return int(self._dataset.count_rows(filter=self._condition))

    def frame(self) -> pd.DataFrame:
        """All rows as one frame, of the columns that a panel can use."""
        import pyarrow.types as kinds

        wanted = [name for name in (*KEYS, *FIELDS, *ACTIONS) if name in self.columns]
        with _readable(self.path):
            table = self._dataset.to_table(columns=wanted, filter=self._condition)
            for i, field in enumerate(table.schema):
                if kinds.is_dictionary(field.type):
                    table = table.set_column(i, field.name, table.column(i).cast(field.type.value_type))
            return table.to_pandas(date_as_object=False)

    def span(self) -> tuple[pd.Timestamp, pd.Timestamp]:
        """The first and the last date, from what the files say of themselves where that is enough.

        Raises:
            DataError: there is no row with a date.
        """
        with _readable(self.path):
            found = [*self._ends()]
        if not found:
            if self.known_by is None:
                raise DataError(f"{self.path}: no row with a date.")
            raise DataError(f"{self.path}: no row was known at {self.known_by.isoformat()}.")
        days = [day if day.tz is None else day.tz_localize(None) for day in map(pd.Timestamp, found)]
        return min(days).normalize(), max(days).normalize()

    def _ends(self) -> Iterator[Any]:
        """Dates, the first and the last among them."""
        import pyarrow.types as kinds

        kind = self._dataset.schema.field("date").type
        exact = self._condition is None and (kinds.is_date(kind) or kinds.is_timestamp(kind))
        for fragment in self._dataset.get_fragments(self._condition):
            told = exact and [(group.statistics or {}).get("date") for group in fragment.row_groups]
            if told and all(told):
                yield from (each for group in told for each in (group["min"], group["max"]))
                continue
            batches = fragment.to_batches(schema=self._dataset.schema, columns=["date"], filter=self._condition)
            for batch in batches:
                dates = pd.to_datetime(batch.to_pandas()["date"], errors="coerce").dropna()
                yield from (dates.min(), dates.max()) if len(dates) else ()


Rows = FrameRows | ParquetRows


def label(date: Any, what: str) -> pd.Timestamp:
    """A session's label.

    Raises:
        DataError: it cannot be read, is absent, or has a time zone.
    """
    try:
        day = pd.NaT if isinstance(date, Real) else pd.Timestamp(date)  # a number would be nanoseconds since 1970
    except (ValueError, TypeError):
        day = pd.NaT
    if pd.isna(day) or day.tz is not None:
        raise DataError(f"{what} is {date!r}. Give a session's label, a date without a time zone: 2020-01-31.")
    return day


def labels(dates: Any, what: str) -> list[pd.Timestamp]:
    """Labels of sessions, of one date or of many.

    Raises:
        DataError: there is none, or one cannot be read, is absent, or has a time zone.
    """
    dates = np.atleast_1d(dates) if isinstance(dates, np.ndarray) else dates  # one of no dimension can't be iterated
    one = isinstance(dates, str) or not isinstance(dates, Iterable)
    found = [label(date, what) for date in ([dates] if one else dates)]
    if not found:
        raise DataError(f"there is no {what}. Give at least one.")
    return found


def _joined(batches: Iterable[Any]) -> Iterator[Any]:
    """Batches put together to tables of about `CHUNK` rows: a file may have a row group for each asset."""
    import pyarrow as pa

    held: list[Any] = []
    rows = 0
    for batch in batches:
        if rows and rows + batch.num_rows > CHUNK:
            yield pa.Table.from_batches(held)
            held, rows = [], 0
        if batch.num_rows:
            held.append(batch)
            rows += batch.num_rows
    if rows:
        yield pa.Table.from_batches(held)


@contextmanager
def _readable(path: str | Path) -> Iterator[None]:
    """Says which file is broken when Arrow cannot read it."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path}: not a readable Parquet file ({error}). Write or copy it again, dates as dates."
        ) from error


def _long(frame: pd.DataFrame) -> pd.DataFrame:
    """A copy of the frame in long layout, its index gone, with the position of each row."""
    if isinstance(frame.columns, pd.MultiIndex):
        raise DataError(
            f"columns of {frame.columns.nlevels} levels {list(frame.columns.names)}. Pass wide closes, frame['Close'], "
            "or frame.stack().rename_axis(index=['date', 'asset']).rename(columns=str.lower).sort_index()."
        )
    if isinstance(frame.index, pd.PeriodIndex):
        raise DataError("the index holds periods, not dates. Pass frame.to_timestamp().")
    if isinstance(frame.index, pd.MultiIndex):
        names = list(frame.index.names)
        ours: dict[Any, str] = {"date": "date", "datetime": "date", "asset": "asset", "instrument": "asset"}
        if sorted(ours.get(name, "") for name in names) != ["asset", "date"]:
            raise DataError(f"a MultiIndex must be (date, asset) or qlib's (datetime, instrument), not {names}.")
        frame = frame.rename_axis([ours[name] for name in names]).reset_index()
        frame.columns = [str(name).removeprefix("$") for name in frame.columns]  # qlib's fields are $close, ...
    elif isinstance(frame.index, pd.DatetimeIndex) and "asset" not in frame.columns:
        single = [name for name in frame if str(name).lower() in ("close", "adj close", "adj_close")]
        if single:
            raise DataError(
                f"a DatetimeIndex beside the column {single[0]!r} is neither a long frame nor wide closes. For one "
                "asset pass frame.rename(columns=str.lower).rename_axis('date').reset_index().assign(asset='NAME')."
            )
        wide = frame.rename_axis(index="date", columns="asset")
        frame = wide.melt(ignore_index=False, value_name="close").reset_index()
        return frame.assign(row=np.tile(np.arange(len(wide)), wide.shape[1]))
    missing = [name for name in ("date", "asset", "close") if name not in frame]
    if missing:
        raise DataError(f"no column {listing(map(repr, missing))}; the frame has {listing(frame.columns, most=20)}.")
    twice = frame.columns[frame.columns.duplicated()].unique()
    if len(twice):
        raise DataError(f"more than one column {listing(map(repr, twice))}. Drop or rename all but one.")
    return frame.reset_index(drop=True).assign(row=np.arange(len(frame)))
