"""Where a night is sent once it is whole: other folders, object stores and databases, each named by a URL."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from qtorch.errors import ArgumentError, BriefInNotebooks
from qtorch.nightly.places import MANIFEST, Place, digest
from qtorch.nightly.sink_urls import check_sink, filled, is_database
from qtorch.nightly.sql_sink import to_sql
from qtorch.nightly.store import PREFIX, history, survey


class SinkError(BriefInNotebooks, Exception):
    """A night is whole in its folder, but could not be sent on."""


def send(night: Path, sinks: Sequence[str], say: Callable[[str], None]) -> None:
    """Sends a whole night to each sink; one that has it already is left as it is, so that a call can be repeated.

    Args:
        night: its folder, ``as_of=YYYY-MM-DD`` in the output folder.
        sinks: URLs, whose ``${NAME}`` are taken from the environment.
        say: receives a line for each.

    Raises:
        SinkError: some could not be sent to, which the message names; the others have been.
    """
    failed = []
    for sink in sinks:
        try:
            check_sink(sink)
            url = filled(sink)
            if is_database(sink):
                day = night.name.removeprefix(PREFIX)
                new = bool(to_sql(history(night.parent, since=day, until=day), url))
            else:
                new = publish(night, url)
        except Exception as error:  # noqa: BLE001  of a network, a database or its driver, all of them their own
            failed.append(f"{sink}: {type(error).__name__}: {error}")
        else:
            say(f"{'sent to' if new else 'there already'}  {sink}")
    if failed:
        raise SinkError(
            f"{night.name} is whole in {night.parent}, but was not sent to " + "; ".join(failed) + ". Run it again."
        )


def publish(night: Path, where: str | Place) -> bool:
    """Puts a night's files into a place, its manifest last, so that `history` sees it whole or not at all.

    Args:
        night: its folder.
        where: the place of nights; the night becomes a folder in it.

    Returns:
        False where the same night is there already.
    """
    place = Place.of(where)
    manifest, name = (night / MANIFEST).read_bytes(), night.name
    if place.exists(f"{name}/{MANIFEST}"):
        if digest(place.read(f"{name}/{MANIFEST}")) == digest(manifest):
            return False
        place.remove(f"{name}/{MANIFEST}")  # out of sight while its files change
    mine = {file.name for file in night.iterdir() if file.is_file()}
    for old in (place / name).names().keys() - mine:
        place.remove(f"{name}/{old}")
    for file in sorted(mine - {MANIFEST}):
        with place.output(f"{name}/{file}") as stream, (night / file).open("rb") as source:
            while block := source.read(1 << 20):
                stream.write(block)
    place.write(f"{name}/{MANIFEST}", manifest)
    return True


def send_all(where: str | os.PathLike[str], sink: str, say: Callable[[str], None]) -> int:
    """Sends every night of an output folder to one sink; returns how many were new to it.

    Raises:
        ValueError: nights whose tables were joined are sent to databases only.
    """
    check_sink(sink)
    if is_database(sink):
        days = to_sql(history(where), filled(sink))
        for day in days:
            say(f"sent {PREFIX}{day}")
        return len(days)
    place, new = Place.of(where), 0
    if not place.local:
        raise ArgumentError(f"{where}: nights are sent from a folder on this machine.")
    nights = survey(place)
    if joined := [night.day for night in nights if night.month is not None]:
        raise ArgumentError(
            f"{where}: {len(joined)} nights from {joined[0]} to {joined[-1]} are joined by the month; copy the folder "
            "as a whole, with the object store's own tool."
        )
    for night in nights:
        if publish(Path(place.at(f"{PREFIX}{night.day}")), filled(sink)):
            say(f"sent {PREFIX}{night.day}")
            new += 1
    return new
