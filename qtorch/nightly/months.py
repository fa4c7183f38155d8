"""Months of joined nights: a file for each table, and an index that says which row groups are which night's."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qtorch.nightly.places import Place
from qtorch.nightly.schema import SCHEMA_VERSION, check_version

FOLDER = "compacted"


@dataclass(frozen=True)
class Joined:
    """A night in a month's files.

    Attributes:
        manifest: SHA-256 of its manifest: a night that was run again has another, and is read from its own files.
        facts: of its manifest, as of `qtorch.nightly.store.facts`.
        groups: its row group by table; a table of which it has no row is not there.
    """

    manifest: str
    facts: Mapping[str, Any]
    groups: Mapping[str, int]


@dataclass(frozen=True)
class Month:
    """The index of a month.

    Attributes:
        name: YYYY-MM.
        files: names by table.
        nights: by date, YYYY-MM-DD.
    """

    name: str
    files: Mapping[str, str]
    nights: Mapping[str, Joined]

    def save(self, place: Place) -> None:
        """Writes the index in one step; the month's files are in sight from then on."""
        nights = {day: vars(each) for day, each in sorted(self.nights.items())}
        index = {"schema_version": SCHEMA_VERSION, "files": self.files, "nights": nights}
        place.write(f"{FOLDER}/{self.name}.json", (json.dumps(index, indent=1) + "\n").encode())


def read_months(place: Place, since: str = "", until: str = "9999") -> dict[str, Month]:
    """The months of an output folder between two dates, YYYY-MM-DD.

    Raises:
        ValueError: one is of a later version of the schema.
    """
    found = {}
    for file in sorted((place / FOLDER).names()):
        name = file.removesuffix(".json")
        if file.startswith(".") or name == file or not since[:7] <= name <= until[:7]:
            continue
        index = json.loads(place.read(f"{FOLDER}/{file}"))
        check_version(index["schema_version"], f"{place.url}/{FOLDER}/{file}")
        found[name] = Month(name, index["files"], {day: Joined(**each) for day, each in index["nights"].items()})
    return found
