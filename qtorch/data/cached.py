"""A panel kept in a folder, to which the files that a dataset has gained are added."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from qtorch.data.build import Axis, assemble, attributes, kept_rows, place
from qtorch.data.calendars import NO_SESSION, Calendar
from qtorch.data.cells import Cells
from qtorch.data.clean import no_findings
from qtorch.data.errors import DataError, listing
from qtorch.data.panel import Panel
from qtorch.data.progress import progress_bar
from qtorch.data.rows import ACTIONS, KEYS, ParquetRows
from qtorch.data.rules import Rules
from qtorch.data.sinks import MemorySink
from qtorch.data.states import State
from qtorch.data.survey import Survey, no_price, survey
from qtorch.data.whole_folder import recover, whole_folder
from qtorch.errors import BriefInNotebooks

_FORMAT = 1  # of the record: what it holds and means
_PANEL, _RECORD = "panel", "files.json"
_ORDER = ("sorted", "no_price", "", "jump", "after_delisting")  # of a build's findings; "" are all others


class _Unfit(BriefInNotebooks, Exception):
    """Why a panel cannot be added to."""


def update(
    folder: str | Path,
    path: str | Path,
    rules: Rules,
    *,
    say: Callable[[str], None] = lambda line: None,
    progress: bool = False,
) -> Panel:
    """See `Panel.update`."""
    folder, rows = Path(folder), ParquetRows(path)
    recover(folder)
    try:
        record = _Record.read(folder, rows, rules)
        new = tuple(name for name in rows.names() if name not in record.files)
        # What a file is, is noted before it is read: one that changes meanwhile is another the next time.
        files = {name: record.files.get(name) or _about(name) for name in rows.names()}
        if not new:
            kept = _opened(folder)
            say(f"panel: as it was kept, of {len(files)} files")
            return kept
        if tuple(files)[-len(new) :] != new:
            raise _Unfit(f"{new[0]} is read before files that were there already")
        added = ParquetRows(path, files=new, first=sum(known["rows"] for known in record.files.values()))
        kept = _opened(folder)
        panel, found = _extended(kept, record, added, rules, progress)
        note = f"panel: {len(new)} new of {len(files)} files added, {len(added)} rows"
    except _Unfit as reason:
        note = f"panel: built anew ({reason})"
        record = _Record(_made_by(rows, rules), {name: _about(name) for name in rows.names()}, {}, set(), 0)
        with progress_bar("building the panel", 2 * len(rows) if progress else None) as advance:
            found = survey(rows, rules, advance)
            panel = Panel(**assemble(found, rows, rules, MemorySink(), advance))
    else:
        record.files.update(files)
    last = max(int(days.max()) for days in found.days.values())
    with whole_folder(folder) as part:
        panel.save(part / _PANEL)
        record.write(part, found, last)
    say(note)
    return Panel.open(folder / _PANEL)


def _opened(folder: Path) -> Panel:
    try:
        return Panel.open(folder / _PANEL)
    except DataError as error:
        raise _Unfit(f"what was kept is harmed: {error}") from error


@dataclass(frozen=True)
class _Record:
    """What a kept panel was made of.

    Attributes:
        made_by: all that decides how rows become a panel.
        files: by name size, time, hash and rows.
        days: of prices, by exchange.
        silent: assets without a price.
        last: the last day of prices.
    """

    made_by: dict[str, Any]
    files: dict[str, dict[str, Any]]
    days: dict[str, np.ndarray]
    silent: set[str]
    last: int

    @classmethod
    def read(cls, folder: Path, rows: ParquetRows, rules: Rules) -> "_Record":
        """The record of a folder, if the panel there is of the same rules and of files that are as they were.

        Raises:
            _Unfit: there is none, or something has changed.
        """
        try:
            plain = json.loads((folder / _RECORD).read_text())
        except FileNotFoundError:
            raise _Unfit("nothing was kept") from None
        except (OSError, ValueError) as error:
            raise _Unfit(f"{folder / _RECORD} is not readable: {error}") from error
        if plain.get("format") != _FORMAT:
            raise _Unfit("it was kept by another version of qtorch")
        made_by = _made_by(rows, rules)
        for name, value in made_by.items():
            if plain["made_by"].get(name) != value:
                raise _Unfit(f"{name} changed")
        now = set(rows.names())
        for name, known in plain["files"].items():
            if name not in now:
                raise _Unfit(f"{name} is gone")
            stat = Path(name).stat()
            if stat.st_size == known["size"] and stat.st_mtime_ns == known["mtime_ns"]:
                continue
            if stat.st_size != known["size"] or _hash(name) != known["sha256"]:
                raise _Unfit(f"{name} changed")
        days = {code: np.array(of, dtype=np.int64) for code, of in plain["days"].items()}
        return cls(made_by, plain["files"], days, set(plain["silent"]), plain["last"])

    def write(self, folder: Path, found: Survey, last: int) -> None:
        """Writes the record of a panel that was built of what was found."""
        days = {code: of.tolist() for code, of in found.days.items()}
        plain = {"made_by": self.made_by, "files": self.files, "days": days, "silent": sorted(found.silent)}
        (folder / _RECORD).write_text(json.dumps({"format": _FORMAT, **plain, "last": last}) + "\n")


def _made_by(rows: ParquetRows, rules: Rules) -> dict[str, Any]:
    """All that decides how rows become a panel, as JSON gives it back."""
    settings = {field.name: getattr(rules, field.name) for field in fields(rules) if field.name != "calendars"}
    if isinstance(rules.exchange, Mapping):
        settings["exchange"] = sorted((str(asset), code) for asset, code in rules.exchange.items())
    if rules.delisted is not None:
        settings["delisted"] = sorted((str(asset), str(date)) for asset, date in rules.delisted.items())
    calendars = [
        repr(calendar) if isinstance(calendar, Calendar) else str(id(calendar)) for calendar in rules.calendars
    ]
    made = {
        "the dataset's columns": rows.kinds,
        "the options": settings,
        "the calendars": calendars,
        "qtorch": version("qtorch-finance"),
        "exchange_calendars": version("exchange_calendars"),
        "pandas": pd.__version__,
    }
    return json.loads(json.dumps(made, default=str))


def _about(name: str) -> dict[str, Any]:
    import pyarrow.parquet as pq

    stat = Path(name).stat()
    rows = pq.read_metadata(name).num_rows
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": _hash(name), "rows": rows}


def _hash(name: str) -> str:
    with Path(name).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _extended(kept: Panel, record: _Record, rows: ParquetRows, rules: Rules, progress: bool) -> tuple[Panel, Survey]:
    """A panel with rows of later dates, as a build of all rows would make it.

    Raises:
        _Unfit: it would not come to the same, or may not.
    """
    if actions := rules.actions(rows):
        raise _Unfit(f"{listing(actions)}: actions rescale prices")
    if "known_at" in rows.columns:
        raise _Unfit("known_at: what is known late revises what was")
    if (kept.findings["kind"] == "not_yet_known").any():
        raise _Unfit("prices were there that were not known yet")
    with progress_bar("adding to the panel", 2 * len(rows) if progress else None) as advance:
        new = _surveyed(rows, rules, advance)
        if not new.days:
            raise _Unfit("the new files hold no price")
        first_day = min(int(days.min()) for days in new.days.values())
        if first_day <= record.last:
            raise _Unfit("the new files hold dates that were there already")
        found = _together(kept, record, new)
        axis = Axis.of(found, rules)
        place_of = axis.dates.get_indexer(kept.dates)
        first = int(place_of[-1]) + 1
        if not _same_past(kept, axis, place_of):
            raise _Unfit("the calendars say something else of the past")
        if axis.first_row(new.days) < first:
            raise _Unfit("a new price is known at a row that was there already")
        names = tuple(found.code_of)
        old_column = [found.code_of[asset] for asset in kept.assets]
        named = rules.kept_fields(rows)
        shape = (len(axis.dates) - first, len(names))
        cells = Cells.empty(rows, rules, named, shape)
        columns = (*KEYS, *named, *ACTIONS)
        for _, chunk in rows.chunks(columns):
            place(chunk, rules, found, 0, axis, cells, first)
            advance(len(chunk))
    cells.drop_superseded(names)
    close = cells.fields.index("close")
    cells.note_jumps(cells.values[:, :, close], rules.jump, names, _last_close(kept, old_column, len(names)))
    delisted = rules.delistings({*names, *found.silent})
    cells.note_delisted(delisted or {}, names)
    observed = torch.zeros(len(axis.dates), len(names), dtype=torch.bool)
    observed[np.ix_(place_of, np.array(old_column))] = kept.mask
    observed[first:] = torch.from_numpy(~np.isnan(cells.values[:, :, close]))
    rows_kept = kept_rows(observed, torch.from_numpy(axis.is_session))
    at = np.arange(len(axis.dates))[rows_kept]
    if not np.array_equal(at[at < first], place_of):
        raise _Unfit("the calendars say something else of the past")
    later = at[at >= first] - first
    values = np.full((len(at), len(names), len(cells.fields)), np.nan)
    day = np.full((len(at), len(names)), NO_SESSION, dtype=np.int32)
    T = len(kept.dates)
    for whole, old, tail in ((values, kept.values, cells.values), (day, kept.session_day, cells.day)):
        whole[:T, old_column] = old.numpy()
        whole[T:] = tail[later]
    findings = [kept.findings, *found.findings, *cells.findings]
    panel = attributes(
        found,
        axis,
        rows_kept,
        observed[rows_kept],
        torch.from_numpy(values),
        torch.from_numpy(day),
        tuple(cells.fields),
        delisted,
        _in_order(findings),
    )
    return Panel(**panel), found


def _surveyed(rows: ParquetRows, rules: Rules, advance: Callable[[int], None]) -> Survey:
    try:
        return survey(rows, rules, advance)
    except DataError as error:  # of all rows together it is told again, with their numbers, or is none
        raise _Unfit(f"the new files alone make no panel: {error}") from error


def _together(kept: Panel, record: _Record, new: Survey) -> Survey:
    """What all rows hold, from what those kept and those new do."""
    exchange_of = dict(zip(kept.assets, kept.exchanges, strict=True))
    for asset, exchange in zip(new.code_of, new.exchange_of, strict=True):
        if exchange_of.setdefault(asset, exchange) != exchange:
            raise _Unfit(f"{asset} was on {exchange_of[asset]} and is on {exchange}")
    names = sorted(exchange_of)
    exchanges = [exchange_of[asset] for asset in names]
    days = {
        code: np.unique(np.concatenate([of[code] for of in (record.days, new.days) if code in of]))
        for code in dict.fromkeys(exchanges)
    }
    silent = (record.silent | new.silent) - set(names)
    findings = [each for each in new.findings if (each["kind"] != "no_price").all()]
    return Survey({asset: n for n, asset in enumerate(names)}, exchanges, days, [*findings, *no_price(silent)], silent)


def _same_past(kept: Panel, axis: Axis, place_of: np.ndarray) -> bool:
    """Whether the rows that are kept would be what they are."""
    return (
        bool((place_of >= 0).all())
        and kept.exchange_codes == tuple(axis.grids)
        and kept.as_of.equals(axis.as_of[place_of])
        and all(
            np.array_equal(was.numpy(), now[place_of])
            for was, now in (
                (kept.exchange_is_session, axis.is_session),
                (kept.exchange_next_day, axis.next_day),
                (kept.exchange_close, axis.close),
            )
        )
    )


def _last_close(kept: Panel, column: list[int], assets: int) -> np.ndarray:
    """The last close of each asset, NaN of those that had none."""
    there = kept.state == State.OBSERVED
    last = len(there) - 1 - there.flip(0).int().argmax(0)
    latest = np.full(assets, np.nan)
    latest[column] = kept.values[last, torch.arange(len(column)), kept.fields.index("close")].numpy()
    return latest


def _in_order(findings: list[pd.DataFrame]) -> list[pd.DataFrame]:
    """Findings in the order of a build of all rows; those of assets without a price are the last ones found."""
    kinds = [each["kind"].where(each["kind"].isin(_ORDER), "") for each in findings]
    parts = [no_findings()]
    for kind in _ORDER:
        of = findings[1:] if kind == "no_price" else findings
        for each, known in zip(of, kinds[1:] if kind == "no_price" else kinds, strict=True):
            parts.append(each[known == kind])
    return parts
