"""What a night is made of, by hash, so that one that is there already is known."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from qtorch.configuration import plain
from qtorch.deploy.bundle import versions
from qtorch.nightly.config import NightlyConfig
from qtorch.nightly.gates import file_hash
from qtorch.nightly.places import MANIFEST
from qtorch.nightly.retention import HELD
from qtorch.nightly.store import PREFIX


def inputs_of(config: NightlyConfig, knowledge_time: pd.Timestamp | None) -> dict[str, Any]:
    """Hashes of the data and the positions, and of all inputs together, without the as-of date.

    Where the output goes and is sent to does not count, nor which models are there already.
    """
    data = file_hash(config.data.path)
    positions = None if config.positions is None else file_hash(config.positions)
    allocator = None if config.allocation is None or config.allocation.path is None else config.allocation.path
    made_of = {
        "config": plain(replace(config, output="", sinks=[])),
        "data": data,
        "positions": positions,
        "allocator": None if allocator is None else file_hash(allocator),
        "knowledge_time": None if knowledge_time is None else knowledge_time.isoformat(),
        "versions": versions(),
    }
    return {
        "data_sha256": data,
        "positions_sha256": positions,
        "inputs_sha256": hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest(),
    }


def whole_night(output: str | Path, day: str) -> tuple[Path, dict[str, Any]] | None:
    """The folder of a night that is there, published or held back, and its manifest; the newer of the two.

    Args:
        output: the output folder.
        day: YYYY-MM-DD.
    """
    places = (Path(output) / HELD / f"{PREFIX}{day}", Path(output) / f"{PREFIX}{day}")
    there = [place for place in places if (place / MANIFEST).exists()]
    if not there:
        return None
    # Both, where a process died between the one that took the other's place and its removal.
    folder = max(there, key=lambda place: (place / MANIFEST).stat().st_mtime_ns)
    return folder, json.loads((folder / MANIFEST).read_text())
