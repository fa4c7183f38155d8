"""Nights as a scheduler runs them: each once, one process at a time, one by one over a range of dates."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from qtorch.data import DataError, sessions
from qtorch.data.rows import ParquetRows
from qtorch.errors import ArgumentError
from qtorch.nightly import gates
from qtorch.nightly.alarms import Reading, held_by
from qtorch.nightly.config import NightlyConfig
from qtorch.nightly.data_gates import last_universe, read_gates
from qtorch.nightly.ended import Ended, attempt
from qtorch.nightly.fingerprint import inputs_of, whole_night
from qtorch.nightly.held import release
from qtorch.nightly.job import run
from qtorch.nightly.lock import alone_on
from qtorch.nightly.outcome import ExitCode
from qtorch.nightly.sinks import send

_STOPS = (ExitCode.ERROR, ExitCode.UNUSABLE, ExitCode.REFUSED, ExitCode.LOCKED)


def night(
    config: NightlyConfig,
    as_of: str | None,
    *,
    knowledge_time: pd.Timestamp | None = None,
    force: bool = False,
    existing: bool = False,
    say: Callable[[str], None] = print,
    **how: Any,
) -> Ended:
    """Makes a night, unless it is there, made of the same inputs.

    Args:
        config: the job.
        as_of: its date; None is the last of the data.
        knowledge_time: as of `qtorch.nightly.run`.
        force: make it anew in any case.
        existing: take a night that is there, whatever it was made of.
        say: receives a line per stage.
        **how: `workers`, `executor` and `progress`, as of `qtorch.nightly.run`.

    Raises:
        Locked: another process is at work on the same night.
        Exception: as of `qtorch.nightly.run`.
    """
    day = f"{last_day(config, knowledge_time) if as_of is None else gates.day_of(as_of):%Y-%m-%d}"
    with alone_on(config.output, day):
        there = None if force else whole_night(config.output, day)
        if there is not None:
            folder, manifest = there
            if existing or manifest.get("inputs_sha256") == inputs_of(config, knowledge_time)["inputs_sha256"]:
                found = Ended.of(folder, there_already=True)
                if not found.summary()["held_back"]:
                    send(folder, config.sinks, say)  # what could not be sent the first time; the rest is there
                return found
        result = run(config, as_of=as_of, knowledge_time=knowledge_time, say=say, **how)
    return Ended.of(result.folder)


def last_day(config: NightlyConfig, knowledge_time: pd.Timestamp | None) -> pd.Timestamp:
    """The last date of the data that has a price.

    Raises:
        DataError: the data cannot be read, or have no such date.
    """
    path = config.data.path
    rows = ParquetRows(path, known_by=knowledge_time)
    while True:
        last = rows.span()[1]
        chunks = ParquetRows(path, last, last, known_by=knowledge_time).chunks(["date", "close"])
        if any(chunk["close"][chunk["date"].notna()].notna().any() for _, chunk in chunks):
            return last
        rows = ParquetRows(path, end=last - pd.Timedelta(days=1), known_by=knowledge_time)


def backfill(
    config: NightlyConfig,
    first: str,
    last: str | None,
    *,
    knowledge_time: pd.Timestamp | None = None,
    force: bool = False,
    keep_going: bool = False,
    say: Callable[[str], None] = print,
    complain: Callable[[str], None] = print,
    **how: Any,
) -> list[Ended]:
    """Makes the nights of a range of dates on which an exchange of the data has a session, the earliest first.

    Those that are there stay as they are.

    Args:
        config: the job.
        first: the first date.
        last: the last date; None is the last of the data.
        knowledge_time: as of `qtorch.nightly.run`.
        force: make those that are there anew.
        keep_going: go on after a night that could not be made; one that is held back stops nothing.
        say: receives a line for each night.
        complain: receives the traceback of an unexpected error.
        **how: `workers`, `executor` and `progress`, as of `qtorch.nightly.run`.

    Raises:
        DataError: the data cannot be read.
        ValueError: the dates are none, or not in order.
    """
    start = gates.day_of(first)
    end = last_day(config, knowledge_time) if last is None else gates.day_of(last)
    if end < start:
        raise ArgumentError(f"from {start:%Y-%m-%d} to {end:%Y-%m-%d}: give the earlier date first.")
    days = sorted({day for code in _exchanges(config) for day in sessions(code, start, end).days if day <= end})
    ended = []
    for each in days:
        day = f"{each:%Y-%m-%d}"

        def make(day: str = day) -> Ended:
            return night(
                config,
                day,
                knowledge_time=knowledge_time,
                force=force,
                existing=True,
                say=_silent,
                **how,
            )

        ended.append(attempt(make, day, complain))
        say(str(ended[-1]))
        if ended[-1].code in _STOPS and not keep_going:
            break
    return ended


def _exchanges(config: NightlyConfig) -> set[str]:
    rows = ParquetRows(config.data.path)
    if "exchange" not in rows.columns:
        raise DataError(f"{config.data.path}: no column 'exchange', whose sessions the nights are of.")
    return {str(code) for _, chunk in rows.chunks(["exchange"]) for code in chunk["exchange"].dropna().unique()}


def check(
    config: NightlyConfig, as_of: str | None, knowledge_time: pd.Timestamp | None
) -> tuple[ExitCode, str, list[Reading]]:
    """What the data of a night would come to, without a forecast; nothing is written.

    Returns:
        The exit code that the night would have for its data, its date, and what the gates measured.

    Raises:
        Exception: as of `qtorch.nightly.run`, for the data.
    """
    panel = gates.read_panel(config.data, as_of, knowledge_time)
    exposures = pd.Series(dtype=float)
    if config.positions is not None:
        exposures, _ = gates.read_positions(config.positions, panel)
    least = config.model.windows(panel).features.first_usable + 1
    states = gates.states_of(panel, None, least, config.data, exposures)
    due = states.index[states["status"] != "retired"]
    readings = read_gates(config.gates, panel, due, last_universe(config.output, panel.dates[-1]))
    code = ExitCode.SOME_FAILED if (states["status"] == "refused").any() else ExitCode.DONE
    return held_by(readings) or code, f"{panel.dates[-1]:%Y-%m-%d}", readings


def released(config: NightlyConfig, as_of: str | None, say: Callable[[str], None]) -> Ended:
    """Publishes a night that gates held back.

    Args:
        config: the job.
        as_of: its date; None is the last of the data.
        say: receives a line for each sink.

    Raises:
        DataError: no such night is held back.
        Locked: another process is at work on it.
    """
    day = f"{last_day(config, None) if as_of is None else gates.day_of(as_of):%Y-%m-%d}"
    with alone_on(config.output, day):
        return Ended.of(release(Path(config.output), day, config.sinks, say))


def _silent(line: str) -> None:
    """A night's stages are not told in a row of nights."""
