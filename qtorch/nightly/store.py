"""Every night of an output folder as one table, read where and when it is asked for."""

import datetime
import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from qtorch.data import DataError
from qtorch.deploy.extras import needed
from qtorch.errors import ArgumentError
from qtorch.nightly.months import FOLDER, Joined, Month, read_months
from qtorch.nightly.places import MANIFEST, Place, digest
from qtorch.nightly.schema import AS_OF, TABLES, check_version

PREFIX = f"{AS_OF}="
T = TypeVar("T")
Date = str | datetime.date
_FORMAT = ds.ParquetFileFormat()
_READERS = 16  # of small files, which an object store answers one by one
_TRIES = 5  # while nights are joined or removed


def history(where: str | os.PathLike[str], *, since: Date | None = None, until: Date | None = None) -> "Nights":
    """The nights of an output folder, or of an object store that nights are sent to.

    Args:
        where: the folder, or a URL such as ``s3://bucket/nights``.
        since: the first as-of date; None is the first night.
        until: the last as-of date, inclusive; None is the last night.

    Raises:
        ValueError: there is no such place, or a date is none.

    Example:
        >>> import tempfile
        >>> from qtorch.nightly import history
        >>> history(tempfile.mkdtemp()).forecasts.to_pandas().empty
        True
    """
    place = Place.of(where)
    if place.local and not place.exists():
        raise ArgumentError(f"{where}: no such folder.")
    return Nights(place, "" if since is None else day_of(since), "9999-12-31" if until is None else day_of(until))


@dataclass(frozen=True)
class Nights:
    """The nights of a place, as they are when they are asked for.

    A night is seen when it is whole, whether its tables are its own or joined with others (`qtorch.nightly.compact`).

    Attributes:
        place: where they are.
        since: the first as-of date, YYYY-MM-DD.
        until: the last, inclusive.
    """

    place: Place
    since: str
    until: str

    @property
    def forecasts(self) -> "NightTable":
        """Risk of every asset by night, asset, horizon and level."""
        return NightTable(self, "forecasts")

    @property
    def portfolio(self) -> "NightTable":
        """Risk of the portfolio and its parts by night, asset, horizon and level."""
        return NightTable(self, "portfolio")

    @property
    def backtest(self) -> "NightTable":
        """Tests and scores by night, asset, model and level."""
        return NightTable(self, "backtest")

    @property
    def allocation(self) -> "NightTable":
        """Weights and trades by night and asset."""
        return NightTable(self, "allocation")

    @property
    def nights(self) -> pd.DataFrame:
        """What the manifests say of each night.

        Returns:
            Indexed by as_of: exit_code, failed (how many due assets have no forecast), model (its folder's name),
            model_age (sessions), seconds, schema_version, joined (with other nights in a month's files).
        """
        found = survey(self.place, self.since, self.until)
        index = pd.DatetimeIndex([night.day for night in found], name=AS_OF)
        rows = [{**night.facts, "joined": night.month is not None} for night in found]
        return pd.DataFrame(rows, index=index, columns=[*FACTS, "joined"])

    def sql(self, query: str) -> pd.DataFrame:
        """What a query finds in tables of the nights, through DuckDB (extra ``duckdb``).

        The tables are forecasts, portfolio, backtest, allocation and nights.

        Raises:
            ImportError: DuckDB is not installed.
            ValueError: a file of a night is damaged.
        """
        duckdb = needed("duckdb", "duckdb", "qtorch.nightly.history(...).sql")

        def ask() -> pd.DataFrame:
            found = survey(self.place, self.since, self.until)
            with duckdb.connect() as connection:
                for name in TABLES:
                    connection.register(name, _dataset(self.place, found, name))
                connection.register("nights", self.nights.reset_index())
                frame: pd.DataFrame = connection.execute(query).df()
                return frame

        return _steadily(ask, (FileNotFoundError, duckdb.IOException))


@dataclass(frozen=True)
class NightTable:
    """One table over all nights; the column ``as_of`` is the night's date.

    Attributes:
        of: the nights.
        name: of the table.
    """

    of: Nights
    name: str

    @property
    def schema(self) -> pa.Schema:
        """Columns and types, the same whichever nights there are: a column that a night lacks is empty in its rows."""
        return TABLES[self.name]

    @property
    def dataset(self) -> ds.Dataset:
        """The nights that are there now, as a pyarrow dataset that reads nothing before it is asked."""
        return _dataset(self.of.place, survey(self.of.place, self.of.since, self.of.until), self.name)

    def to_table(self, filter: ds.Expression | list | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows, in the order of the nights, as a table of pyarrow.

        Args:
            filter: an expression of pyarrow, or tuples such as ``[("asset", "=", "AAPL"), ("level", "=", 0.99)]`` in
                the form of `pyarrow.parquet.read_table`; only the files and row groups that it needs are read.
            columns: in this order; None is all.

        Raises:
            ValueError: a column is unknown, a date is none, or a file is damaged.
        """
        if unknown := [name for name in columns or () if name not in self.schema.names]:
            raise ArgumentError(f"{self.name} has no column {', '.join(unknown)}, but {', '.join(self.schema.names)}.")
        given = pq.filters_to_expression(_with_dates(filter)) if isinstance(filter, list) else filter
        chosen = None if columns is None else list(columns)
        return _steadily(lambda: self.dataset.to_table(columns=chosen, filter=given), (FileNotFoundError,))

    def to_pandas(
        self, filter: ds.Expression | list | None = None, columns: Sequence[str] | None = None
    ) -> pd.DataFrame:
        """The rows as a frame; arguments are those of `to_table`."""
        frame: pd.DataFrame = self.to_table(filter, columns).to_pandas(date_as_object=False)
        return frame


@dataclass(frozen=True)
class Seen:
    """A whole night, and where its tables are.

    Attributes:
        day: its date, YYYY-MM-DD.
        manifest: SHA-256 of its manifest; "" where the month's files are all that is left, and it was not read.
        facts: of the manifest.
        files: those in its own folder, with their bytes.
        month: that has its tables; None where they are its own.
    """

    day: str
    manifest: str
    facts: Mapping[str, Any]
    files: Mapping[str, int]
    month: Month | None

    @property
    def own_tables(self) -> list[str]:
        """Names of the tables' files in its own folder."""
        return [f"{name}.parquet" for name in TABLES if f"{name}.parquet" in self.files]

    @property
    def joined(self) -> Joined | None:
        """What the month's index says of it."""
        return None if self.month is None else self.month.nights[self.day]


FACTS = ("exit_code", "failed", "model", "model_age", "seconds", "schema_version")


def facts(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What a manifest says in short, as of `Nights.nights`."""
    values = (
        manifest["exit_code"],
        len(manifest["failed_assets"]),
        manifest["model"].get("bundle"),
        manifest["model"].get("age_sessions"),
        round(sum(manifest["seconds"].values()), 3),
        manifest.get("schema_version", 0),
    )
    return dict(zip(FACTS, values, strict=True))


def survey(place: Place, since: str = "", until: str = "9999-12-31") -> list[Seen]:
    """The whole nights of a place between two dates, in their order.

    Raises:
        DataError: the tables of a night are neither its own nor a month's, or a manifest is not readable.
        ValueError: a night is of a later version of the schema.
    """
    return _steadily(lambda: _survey(place, since, until), (FileNotFoundError, _Moved))


class _Moved(DataError):
    """What was listed is elsewhere by now, or damaged if it stays so."""


def _survey(place: Place, since: str, until: str) -> list[Seen]:
    listed = {
        folder.removeprefix(PREFIX): files
        for folder, files in place.folders(PREFIX).items()
        if MANIFEST in files and since <= folder.removeprefix(PREFIX) <= until
    }
    # After the folders: a night whose tables were gone by then is in a month that was there before.
    months = read_months(place, since, until)
    in_month = {day: month for month in months.values() for day in month.nights}

    def see(day: str) -> Seen:
        files, month = listed[day], in_month.get(day)
        own = any(f"{name}.parquet" in files for name in TABLES)
        if month is not None and not own:
            return Seen(day, month.nights[day].manifest, month.nights[day].facts, files, month)
        name = f"{PREFIX}{day}/{MANIFEST}"
        content = place.read(name)
        try:
            found = facts(json.loads(content))
        except (ValueError, KeyError, AttributeError) as error:
            raise DataError(f"{place.url}/{name}: not the manifest of a night ({error}).") from error
        check_version(found["schema_version"], f"{place.url}/{PREFIX}{day}")
        hashed = digest(content)
        if month is not None and month.nights[day].manifest != hashed:
            month = None  # run again since
        if month is None and not own:
            raise _Moved(f"{place.url}/{PREFIX}{day} has no tables, neither its own nor in {FOLDER}: run it again.")
        return Seen(day, hashed, found, files, month)

    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(see, listed))


def fragments(place: Place, nights: Sequence[Seen], name: str) -> list[ds.Fragment]:
    """The files of a table, or the row groups of a month's file, in the order of the nights."""
    field, found = ds.field(AS_OF), []
    for month, group in groupby(nights, key=lambda night: night.month):
        each = list(group)
        if month is None:
            for night in each:
                if f"{name}.parquet" in night.files:
                    path = place.at(f"{PREFIX}{night.day}/{name}.parquet")
                    found.append(_FORMAT.make_fragment(path, place.filesystem, field == _date(night.day)))
            continue
        groups = [night.joined.groups[name] for night in each if night.joined and name in night.joined.groups]
        if groups:
            path = place.at(f"{FOLDER}/{month.files[name]}")
            within = (field >= _date(each[0].day)) & (field <= _date(each[-1].day))
            found.append(_FORMAT.make_fragment(path, place.filesystem, within, row_groups=groups))
    return found


def _dataset(place: Place, nights: Sequence[Seen], name: str) -> ds.Dataset:
    return ds.FileSystemDataset(fragments(place, nights, name), TABLES[name], _FORMAT, place.filesystem)


def _steadily(ask: Callable[[], T], moved: tuple[type[Exception], ...]) -> T:
    """An answer, asked for again where a file was joined or removed in between."""
    for left in reversed(range(_TRIES)):
        try:
            return ask()
        except moved:
            if not left:
                raise
    raise AssertionError("unreachable")


def day_of(date: Date) -> str:
    """A date as YYYY-MM-DD.

    Raises:
        ValueError: it is none.
    """
    try:
        return f"{pd.Timestamp(date):%Y-%m-%d}"
    except ValueError as error:
        raise ArgumentError(f"{date!r} is not a date such as 2022-12-28.") from error


def _date(day: str) -> pa.Scalar:
    return pa.scalar(datetime.date.fromisoformat(day), pa.date32())


def _with_dates(given: Any) -> Any:
    """Tuples of a filter whose as-of dates are dates."""
    if isinstance(given, tuple) and len(given) == 3 and given[0] == AS_OF:
        value = given[2]
        many = isinstance(value, (list, tuple, set))
        dates = [datetime.date.fromisoformat(day_of(each)) for each in (value if many else [value])]
        return (given[0], given[1], dates if many else dates[0])
    return [_with_dates(each) for each in given] if isinstance(given, list) else given
