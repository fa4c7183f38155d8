"""What a night leaves to the next: the network's answers of the backtest, and what of the past they were made of."""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int64
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from qtorch.data import DataError, Panel, SessionState, WindowSpec
from qtorch.data.whole_folder import whole_folder
from qtorch.deploy.bundle import versions
from qtorch.nightly.config import NightlyConfig
from qtorch.nightly.forecast_history import limits
from qtorch.nightly.gates import file_hash
from qtorch.training.evaluated import Evaluated

FOLDER, SESSIONS = "state", "sessions"
FORMAT = 1
KEPT = 2  # nights whose state is there: the last one's, and that before, for a night that is run again
_ROWS = 256  # hashed at once


@dataclass(frozen=True, eq=False)
class Answers:
    """What a network said, and of which data.

    Attributes:
        found: its answers at as-of dates, the last of them the night's.
        digests: for each of the dates a hash of the data up to it.
    """

    found: Evaluated
    digests: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Kept(Answers):
    """Those of an earlier night.

    Attributes:
        night: its folder's name.
    """

    night: str


def leave_state(
    config: NightlyConfig, made_by: str, answers: Mapping[str, Answers], sessions: SessionState | None
) -> None:
    """Writes a night's state, whole or not at all, and removes older ones.

    Args:
        config: the job.
        made_by: as of `maker`.
        answers: by name, of one night.
        sessions: what its sessions leave; None where they can't be gone on from.
    """
    parent = Path(config.output) / FOLDER
    night = next(iter(answers.values())).found.dates[-1]
    own = parent / f"as_of={night:%Y-%m-%d}"
    with whole_folder(own) as folder:
        for name, each in answers.items():
            found, file = each.found, folder / f"{name}.safetensors"
            tensors = {f"parameters.{k}": values for k, values in enumerate(found.parameters)}
            tensors |= {"valid": found.valid, "scale": found.scale}
            save_file({key: x.cpu().contiguous() for key, x in tensors.items()}, file)
            description = {
                "format": FORMAT,
                "made_by": made_by,
                "tensors_sha256": file_hash(file),
                "dates": [f"{date:%Y-%m-%d}" for date in found.dates],
                "assets": found.assets,
                "digests": each.digests,
            }
            (folder / f"{name}.json").write_text(json.dumps(description, sort_keys=True) + "\n")
        if sessions is not None:
            sessions.save(folder / SESSIONS)
    for old in sorted(parent.glob("as_of=*"))[:-KEPT]:
        if old != own:  # which a row of earlier nights goes on from
            shutil.rmtree(old, ignore_errors=True)  # another night may be at it too


def last_answers(config: NightlyConfig, made_by: str, name: str, date: pd.Timestamp) -> tuple[Kept | None, str]:
    """The last state up to a date, that date's among them; and in words why there is none.

    Args:
        config: the job.
        made_by: as of `maker`.
        name: of the answers.
        date: the night's.
    """
    folders = (Path(config.output) / FOLDER).glob("as_of=*")
    before = sorted(folder for folder in folders if folder.name <= f"as_of={date:%Y-%m-%d}")
    if not before:
        return None, "no state of an earlier night"
    last = before[-1]
    plain, file = last / f"{name}.json", last / f"{name}.safetensors"
    if not plain.exists():
        return None, f"the state of {last.name} has no {name}"
    try:
        description = json.loads(plain.read_text())
        if description["format"] != FORMAT:
            return None, f"the state of {last.name} is of format {description['format']}, not {FORMAT}"
        if description["made_by"] != made_by:
            return None, f"the state of {last.name} was made with another model or other settings"
        if file_hash(file) != description["tensors_sha256"]:
            return None, f"the SHA-256 of {last.name}/{file.name} is not the one in {plain.name}"
        tensors = load_file(file)
        found = Evaluated(
            tensors["valid"],
            tuple(tensors[f"parameters.{k}"] for k in range(len(tensors) - 2)),
            tensors["scale"],
            pd.DatetimeIndex(description["dates"]),
            tuple(description["assets"]),
        )
        return Kept(found, tuple(description["digests"]), last.name), ""
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        return None, f"the state of {last.name} is not usable ({error})"


def maker(config: NightlyConfig, spec: WindowSpec, about: dict[str, Any]) -> str:
    """A hash of all that makes a network's answers, but the data."""
    made_of = [versions()["qtorch"], about["weights_sha256"], about["settings_sha256"], spec.to_dict(), limits(config)]
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()


def still_right(
    kept: Kept, part: Panel, looks_across: bool, rows: Int64[np.ndarray, " D"], digests: Sequence[str]
) -> tuple[Evaluated | None, str]:
    """The answers at the first of some rows that are what they would be today; and in words why there are none.

    Args:
        kept: of an earlier night.
        part: tonight's panel of the assets that are asked for.
        looks_across: whether an asset's answers depend on all assets of the market.
        rows: whose answers are asked for, one after the other.
        digests: of the rows: those of the market where its answers depend on it, else of the part.
    """
    found, dates = kept.found, part.dates[rows]
    known = set(part.assets)
    if gone := [asset for asset in found.assets if asset not in known]:
        return None, f"{gone[0]} has left since {kept.night}"
    start = int(found.dates.searchsorted(dates[0]))
    if start == len(found.dates) or found.dates[start] != dates[0]:
        return None, f"{kept.night} has no answers of {dates[0]:%Y-%m-%d}"
    shared = min(len(found.dates) - start, len(dates))
    if not looks_across and found.assets != part.assets:  # new ones, whose past is no matter of the others
        digests = digests_of(part.select(found.assets), rows[:shared])
    same = [a == b for a, b in zip(digests[:shared], kept.digests[start : start + shared], strict=True)]
    count = shared if all(same) else same.index(False)
    if not count:
        return None, f"the data up to {dates[0]:%Y-%m-%d} are not what they were in {kept.night}"
    words = f"{count} sessions of {kept.night}"
    if count < shared:
        words += f"; the data of {dates[count]:%Y-%m-%d} are not what they were"
    return replace(found.select(slice(start, start + count)), dates=dates[:count].rename(None)), words


def last_sessions(config: NightlyConfig, date: pd.Timestamp) -> tuple[SessionState | None, str]:
    """What the sessions up to a night before a date have left; and in words why there is nothing.

    Args:
        config: the job.
        date: the night's.
    """
    folders = (Path(config.output) / FOLDER).glob(f"as_of=*/{SESSIONS}")
    before = sorted(folder for folder in folders if folder.parent.name < f"as_of={date:%Y-%m-%d}")
    if not before:
        return None, "no state of an earlier night"
    try:
        return SessionState.load(before[-1]), ""
    except DataError as error:
        return None, str(error)


def digests_of(panel: Panel, rows: Int64[np.ndarray, " D"]) -> tuple[str, ...]:
    """For each of some rows a hash of all that forecasts are made of, from the first row up to it.

    It is of the prices that are there, not of the states that tell a halt from a delisting, so that nothing that is
    known later changes it, nor an asset that has no price by then.
    """
    names = [
        hashlib.sha256(repr(pair).encode()).digest()[:8] for pair in zip(panel.assets, panel.exchanges, strict=True)
    ]
    name = np.frombuffer(b"".join(names), dtype=np.int64)
    there = panel.mask.cpu().numpy()
    since = np.full(len(panel.exchange_codes), len(panel.dates))  # the first price on an exchange
    np.minimum.at(since, np.array(panel.exchange_index), np.where(there.any(0), there.argmax(0), len(panel.dates)))
    dates, as_of = (each.as_unit("ns").asi8 for each in (panel.dates, panel.as_of))
    exchanges = [x.cpu().numpy() for x in (panel.exchange_is_session, panel.exchange_next_day, panel.exchange_close)]
    digest, wanted, found = hashlib.sha256(repr(panel.fields).encode()), set(rows.tolist()), []
    for t in range(0, int(rows[-1]) + 1, _ROWS):
        block = slice(t, min(t + _ROWS, int(rows[-1]) + 1))
        values, day = (x[block].contiguous().cpu().numpy() for x in (panel.values, panel.session_day))
        for k in range(block.stop - t):
            row, observed = t + k, there[t + k]
            digest.update(dates[row].tobytes() + as_of[row].tobytes())
            for array in (name, values[k], day[k]):
                digest.update(array[observed].tobytes())
            for array in exchanges:
                digest.update(array[row][since <= row].tobytes())
            if row in wanted:
                found.append(digest.hexdigest())
    return tuple(found)
