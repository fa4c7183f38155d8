"""Removes nights that are no longer wanted, and the models that no other night needs."""

import json
import os
from dataclasses import dataclass

import pandas as pd

from qtorch.errors import ArgumentError
from qtorch.nightly.compaction import alone, clean, join
from qtorch.nightly.months import FOLDER, read_months
from qtorch.nightly.places import MANIFEST, Place
from qtorch.nightly.store import PREFIX, survey

HELD, MODELS, TRAINED = "held", "models", "trained="


@dataclass(frozen=True)
class Removal:
    """What is removed.

    Attributes:
        nights: folders, those that gates held back included.
        models: folders.
        kept: how many nights stay.
        dry_run: nothing was removed.
    """

    nights: tuple[str, ...]
    models: tuple[str, ...]
    kept: int
    dry_run: bool

    def __str__(self) -> str:
        """In words, a line for each kind."""
        verb = "would go" if self.dry_run else "removed"
        lines = [
            f"{len(each)} {kind} {verb}"
            + (f": {each[0]} to {each[-1]}" if len(each) > 1 else f": {each[0]}" if each else "")
            for kind, each in (("nights", self.nights), ("models", self.models))
        ]
        return "\n".join([*lines, f"{self.kept} nights stay"])


def retain(where: str | os.PathLike[str] | Place, *, keep: int | str | pd.Timedelta, dry_run: bool = False) -> Removal:
    """Removes whole nights, the oldest first, and the models that no night left was forecast by.

    A model that was trained on the date of the oldest night left, or after it, stays too. The newest night always
    stays. What a process that died has begun to remove is out of sight, and is removed by the next call.

    Args:
        where: as of `qtorch.nightly.history`.
        keep: how many nights, or for how long before the newest of them (not before today), such as ``"730 days"``.
        dry_run: only say what would go.

    Raises:
        ValueError: nothing would be kept, or `keep` is neither a number nor a time.
    """
    place = Place.of(where)
    with alone(place):
        seen = survey(place)
        if not seen:
            return Removal((), (), 0, dry_run)
        first = _first_kept([night.day for night in seen], keep)
        old = [f"{PREFIX}{night.day}" for night in seen if night.day < first]
        held = place / HELD
        old_held = [name for name in held.folders(PREFIX) if name < f"{PREFIX}{first}"]
        models = _superfluous(place, first)
        found = Removal((*old, *(f"{HELD}/{name}" for name in old_held)), tuple(models), len(seen) - len(old), dry_run)
        if dry_run:
            return found
        place.sweep()
        held.sweep()
        for name in place.folders(PREFIX):  # those that have no manifest any more too
            if name < f"{PREFIX}{first}":
                place.remove_night(name)
        for name in old_held:
            held.remove_night(name)
        for name, month in read_months(place, until=first).items():
            left = [night for night in seen if night.month == month and night.day >= first]
            if left and len(left) < len(month.nights):
                join(place, name, left)
            elif not left:
                place.remove(f"{FOLDER}/{name}.json")
            clean(place, name)
        for name in models:
            place.remove_folder(f"{MODELS}/{name}")
        return found


def _first_kept(days: list[str], keep: int | str | pd.Timedelta) -> str:
    """The oldest night that stays."""
    if isinstance(keep, int):
        if keep < 1:
            raise ArgumentError(f"keep={keep}: the newest night stays, so keep at least 1.")
        return days[-keep:][0]
    try:
        span = pd.Timedelta(keep)
    except ValueError as error:
        raise ArgumentError(f"keep={keep!r} is neither a number of nights nor a time such as '730 days'.") from error
    if not span >= pd.Timedelta(0):
        raise ArgumentError(f"keep={keep!r} is no time to keep nights for.")
    start = f"{pd.Timestamp(days[-1]) - span:%Y-%m-%d}"
    return next(day for day in days if day >= start)


def _superfluous(place: Place, first: str) -> list[str]:
    """Models that no night from `first` on was forecast by, and that are older than it."""
    old = [
        name
        for name, size in sorted((place / MODELS).names().items())
        if size is None and name.startswith(TRAINED) and name < f"{TRAINED}{first}"
    ]
    if not old:
        return []
    needed = {night.facts["model"] for night in survey(place, since=first)}
    for name, files in (place / HELD).folders(PREFIX).items():
        if name >= f"{PREFIX}{first}" and MANIFEST in files:
            needed.add(json.loads(place.read(f"{HELD}/{name}/{MANIFEST}"))["model"].get("bundle"))
    return [name for name in old if name not in needed]
