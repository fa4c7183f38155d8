"""Nights that gates hold back: where they are, and their release."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from qtorch.data import DataError
from qtorch.data.whole_folder import whole_folder
from qtorch.nightly.outcome import ExitCode
from qtorch.nightly.places import MANIFEST
from qtorch.nightly.retention import HELD, MODELS, TRAINED
from qtorch.nightly.sinks import send
from qtorch.nightly.store import PREFIX

HEADING, RELEASED = "<h2>Held back</h2>", "<h2>Held back, and released</h2>"


def drop_held(output: str | Path, day: str) -> None:
    """Removes a night that was held back, and the model that was trained for it alone; nothing where there is none."""
    for target in (Path(output) / HELD / f"{PREFIX}{day}", Path(output) / HELD / MODELS / f"{TRAINED}{day}"):
        if target.exists():
            shutil.rmtree(target)


def release(output: str | Path, day: str, sinks: list[str], say: Callable[[str], None]) -> Path:
    """Publishes a night that was held back, as it is, and sends it on.

    Args:
        output: the output folder.
        day: YYYY-MM-DD.
        sinks: as of `qtorch.nightly.sinks.send`.
        say: receives a line for each sink.

    Returns:
        The night's folder.

    Raises:
        DataError: no such night is held back.
        SinkError: it is published, but could not be sent on.
    """
    source, target = Path(output) / HELD / f"{PREFIX}{day}", Path(output) / f"{PREFIX}{day}"
    if not (source / MANIFEST).exists():
        raise DataError(f"no night of {day} is held back in {Path(output) / HELD}.")
    model = Path(output) / HELD / MODELS / f"{TRAINED}{day}"
    models = Path(output) / MODELS
    if model.exists() and not (models / model.name).exists():
        models.mkdir(parents=True, exist_ok=True)
        os.rename(model, models / model.name)
    with whole_folder(target) as folder:
        shutil.copytree(source, folder, dirs_exist_ok=True)
        manifest = json.loads((folder / MANIFEST).read_text())
        manifest["exit_code"] = int(ExitCode.SOME_FAILED if manifest["failed_assets"] else ExitCode.DONE)
        manifest["released"] = True
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")
        page = folder / "report.html"
        page.write_text(page.read_text(encoding="utf-8").replace(HEADING, RELEASED), encoding="utf-8")
    drop_held(output, day)
    send(target, sinks, say)
    return target
