"""What a walk is, in plain values: a folder that holds another one is refused."""

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from qtorch.backtest.walk.refitting import Walkable
from qtorch.data import Panel
from qtorch.data.fingerprint import fingerprint
from qtorch.deploy.bundle import parts_of, versions
from qtorch.errors import ArgumentError
from qtorch.training import Allocator, Forecaster
from qtorch.training.refit import modules

FORMAT = 1
_DESCRIPTION = "walk.json"
_MOST = 60  # characters of a value in a message


def identity(panel: Panel, make_model: Callable[[], Walkable], settings: dict[str, Any]) -> dict[str, str]:
    """All that the outcome of a walk depends on, each by its name.

    Args:
        panel: the market.
        make_model: makes a fresh model; two of one seed tell whether what it makes has changed.
        settings: arguments of the walk.

    Raises:
        TypeError: a part of the model or an argument cannot be told from another by how it shows itself.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = make_model()
    about = {"panel": f"{panel}, {fingerprint(panel)}", "model": f"{type(model).__module__}.{type(model).__qualname__}"}
    if isinstance(model, Forecaster | Allocator):
        for name, part in parts_of(model).items():
            about[f"model.{name}"] = json.dumps(part, sort_keys=True)
        for name in ("objective", "augmentation", "schedule", "weight_decay", "observations"):
            about[f"model.{name}"] = _said(f"model.{name}", getattr(model, name, None))
        about["model.fresh_weights"] = _hash(model)
    else:
        about["model.settings"] = _said("model", model)
    about |= {name: _said(name, value) for name, value in settings.items()}
    return about | {f"version of {name}": version for name, version in versions().items()} | {"format": str(FORMAT)}


def claim(folder: Path, about: dict[str, str]) -> None:
    """Marks a folder as that of a walk, or finds that it is already.

    Raises:
        ValueError: it is that of another walk; the message names what differs.
    """
    file = folder / _DESCRIPTION
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        aside = file.with_suffix(".part")
        aside.write_text(json.dumps(about, indent=2, sort_keys=True) + "\n")
        os.replace(aside, file)
        return
    there = json.loads(file.read_text())
    different = [name for name in sorted(there.keys() | about.keys()) if there.get(name) != about.get(name)]
    if different:
        changes = "; ".join(f"{name}: {_apart(there.get(name), about.get(name))}" for name in different)
        raise ArgumentError(
            f"{folder} holds another walk. {changes}. Call with the same arguments and data to go on with it, remove "
            "it, or name a new folder."
        )


def _apart(there: str | None, here: str | None) -> str:
    """Two values from shortly before where they part."""
    a, b = str(there), str(here)
    same = next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    begin = max(0, same - 20) if max(len(a), len(b)) > _MOST else 0
    short = ["..." * (begin > 0) + x[begin : begin + _MOST] + "..." * (len(x) > begin + _MOST) for x in (a, b)]
    return f"{short[0]} there, {short[1]} here"


def _said(name: str, value: Any) -> str:
    """As it shows itself.

    Raises:
        TypeError: that is by an address in memory, which differs from run to run and says nothing of its settings.
    """
    said = repr(value)
    address = re.search(r"\b0x[0-9a-fA-F]+", said)
    if address:
        shown = said[max(0, address.start() - _MOST) : address.end() + 1]
        raise TypeError(
            f"{name} shows itself by an address in memory, {shown!r}, so that a folder can't tell it from one of other "
            "settings. Give its class a __repr__ that names them, as a dataclass has, or walk without folder=."
        )
    return said


def _hash(model: Forecaster | Allocator) -> str:
    digest = hashlib.sha256()
    for name, value in modules(model).state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
