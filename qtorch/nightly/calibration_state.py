"""What a calibrator has learned, kept beside a night's files: safetensors, JSON and SHA-256; nothing is unpickled."""

import json
from pathlib import Path

import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from qtorch.calibration import OnlineCalibrator
from qtorch.errors import BriefInNotebooks
from qtorch.nightly.gates import file_hash

TENSORS, PLAIN = "calibration.safetensors", "calibration.json"
FORMAT = 1


class StateError(BriefInNotebooks, ValueError):
    """A saved state that cannot be trusted or used; the message says why."""


def save_state(calibrator: OnlineCalibrator, folder: Path, settings: str) -> None:
    """Writes what a calibrator has learned and awaits.

    Args:
        calibrator: after the night's update.
        folder: the night's.
        settings: SHA-256 of everything that the numbers depend on, the model's weights among it.
    """
    state = calibrator.state_dict()
    tensors = {name: x.cpu().contiguous() for name, x in state.items() if isinstance(x, torch.Tensor)}
    save_file(tensors, folder / TENSORS)
    description = {
        "format": FORMAT,
        "settings_sha256": settings,
        "tensors_sha256": file_hash(folder / TENSORS),
        "state": {name: value for name, value in state.items() if name not in tensors},
    }
    (folder / PLAIN).write_text(json.dumps(description, indent=2, sort_keys=True) + "\n")


def load_state(calibrator: OnlineCalibrator, folder: Path, settings: str, dates: pd.DatetimeIndex) -> None:
    """Takes up what `save_state` wrote; the calibrator is left as it is if that can't be used.

    Args:
        calibrator: a fresh one.
        folder: an earlier night's.
        settings: as of `save_state`.
        dates: of which there are forecasts to go on with.

    Raises:
        StateError: a file is missing, truncated, altered or of another format; it was made with other settings; or it
            awaits outcomes of dates that are not among those given.
    """
    if absent := [name for name in (PLAIN, TENSORS) if not (folder / name).exists()]:
        raise StateError(f"{folder.name} has no {' and no '.join(absent)}")
    try:
        description = json.loads((folder / PLAIN).read_text())
        if description["format"] != FORMAT:
            raise StateError(f"{folder.name}/{PLAIN} is of format {description['format']}, not {FORMAT}")
        if description["settings_sha256"] != settings:
            raise StateError(f"{folder.name} was made with another model or other settings")
        if file_hash(folder / TENSORS) != description["tensors_sha256"]:
            raise StateError(f"the SHA-256 of {folder.name}/{TENSORS} is not the one in {PLAIN}")
        state = description["state"] | load_file(folder / TENSORS)
        awaited = pd.DatetimeIndex(state["pending.day"].numpy().astype("M8[D]"))
        if len(unknown := awaited.difference(dates)):
            raise StateError(f"{folder.name} awaits the outcome of {unknown[0]:%Y-%m-%d}, which has no forecast")
        calibrator.load_state_dict(state)
    except StateError:
        raise
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise StateError(f"the state of {folder.name} is not usable ({error})") from error
