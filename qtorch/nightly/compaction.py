"""Joins nights of a month into one file for each table, so that thousands of nights are read as fast as a few files."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from qtorch.data import DataError
from qtorch.nightly.months import FOLDER, Joined, Month, read_months
from qtorch.nightly.places import MANIFEST, Place, digest
from qtorch.nightly.schema import TABLES
from qtorch.nightly.store import PREFIX, Date, Seen, day_of, fragments, survey


@dataclass(frozen=True)
class Compacted:
    """A month whose nights were joined.

    Attributes:
        month: YYYY-MM.
        nights: how many it has now.
        joined: how many of them were joined now.
    """

    month: str
    nights: int
    joined: int

    def __str__(self) -> str:
        """One line."""
        return f"{self.month}: {self.joined} nights joined, {self.nights} in one file for each table"


def compact(where: str | os.PathLike[str] | Place, *, before: Date | None = None) -> list[Compacted]:
    """Joins the nights of each month into one file for each table; manifests and reports stay in the nights' folders.

    `qtorch.nightly.history` finds the same rows before, during and after. A process that dies leaves nothing that is
    read twice or not at all, and the next call ends what it began. The newest night stays as it is. A night that is run
    again is read from its own folder, and joined by the next call. Run one call at a time: on this machine a second one
    waits for the first; in an object store nothing stops it.

    Args:
        where: as of `qtorch.nightly.history`.
        before: nights before this date are joined; None is the first of the month of the newest night.

    Returns:
        The months that changed.

    Raises:
        ValueError: the date is none, or a night is damaged or of a later version of the schema.
    """
    place = Place.of(where)
    with alone(place):
        seen = survey(place)
        if not seen:
            return []
        end = f"{seen[-1].day[:7]}-01" if before is None else day_of(before)
        old = [night for night in seen[:-1] if night.day < end]
        found = []
        for name, group in groupby(old, key=lambda night: night.day[:7]):
            nights = list(group)
            # A night after `before` that an earlier call has joined stays so.
            nights += [each for each in seen if each.day[:7] == name and each.day >= end and each.month is not None]
            if fresh := sum(night.month is None for night in nights):
                join(place, name, nights)
                found.append(Compacted(name, len(nights), fresh))
            clean(place, name)
        return found


def join(place: Place, name: str, nights: Sequence[Seen]) -> None:
    """Writes a month that holds just these nights, from their own tables or the month's files so far."""
    manifests = {night.day: night.manifest for night in nights}
    mark = digest(repr(sorted(manifests.items())).encode())[:12]
    files: dict[str, str] = {}
    groups: dict[str, dict[str, int]] = {night.day: {} for night in nights}
    for table, schema in TABLES.items():
        rows = ((night, _rows(place, night, table)) for night in nights)
        there = ((night, each) for night, each in rows if each.num_rows)
        if (first := next(there, None)) is None:
            continue
        files[table] = f"{table}.{name}.{mark}.parquet"
        with (
            place.output(f"{FOLDER}/{files[table]}") as stream,
            pq.ParquetWriter(stream, schema, compression="zstd") as writer,
        ):
            for number, (night, each) in enumerate(_after(first, there)):
                writer.write_table(each, row_group_size=each.num_rows)
                groups[night.day][table] = number
    for night in nights:
        # Of a night that was run again meanwhile, some tables may be the old ones and some the new.
        if night.month is None and digest(place.read(f"{PREFIX}{night.day}/{MANIFEST}")) != night.manifest:
            raise DataError(f"{place.url}/{PREFIX}{night.day} was written anew while it was joined: compact again.")
    Month(name, files, {night.day: Joined(night.manifest, night.facts, groups[night.day]) for night in nights}).save(
        place
    )


def clean(place: Place, name: str) -> None:
    """Removes what a month's index makes superfluous: its nights' own tables, and files that it does not name."""
    month = read_months(place, f"{name}-01", f"{name}-31").get(name)
    if month is not None:
        for folder, files in place.folders(f"{PREFIX}{name}").items():
            night = month.nights.get(folder.removeprefix(PREFIX))
            own = [f"{table}.parquet" for table in TABLES if f"{table}.parquet" in files]
            if night is not None and own and MANIFEST in files:
                place.remove_files(folder, own, night.manifest)
    named = set() if month is None else set(month.files.values())
    for file in (place / FOLDER).names():
        if file.endswith(".parquet") and file.split(".")[1] == name and file not in named:
            place.remove(f"{FOLDER}/{file}")


@contextmanager
def alone(place: Place) -> Iterator[None]:
    """Makes a second process on this machine wait, where the system can."""
    if not place.local or os.name != "posix":
        yield
        return
    import fcntl

    folder = Path(place.at(FOLDER))
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)  # the system lets go of it when the process ends, however it ends
        yield


def _rows(place: Place, night: Seen, table: str) -> pa.Table:
    found = fragments(place, [night], table)
    return ds.FileSystemDataset(found, TABLES[table], ds.ParquetFileFormat(), place.filesystem).to_table()


def _after(first: tuple[Seen, pa.Table], rest: Iterator[tuple[Seen, pa.Table]]) -> Iterator[tuple[Seen, pa.Table]]:
    yield first
    yield from rest
