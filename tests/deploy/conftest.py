"""A saved model to be harmed."""

import json
from pathlib import Path

import pytest
import torch

from qtorch.data import WindowSpec
from qtorch.deploy import save
from qtorch.deploy.sealed_json import sealed
from qtorch.training import TrainedOn
from tests.conftest import make_model


@pytest.fixture(scope="session")
def whole(tmp_path_factory) -> Path:
    """A bundle, which is left as it is."""
    torch.manual_seed(0)
    model = make_model(WindowSpec(context=16, horizons=(1, 5)))
    model.trained_on = (
        TrainedOn(
            {"AAA": "XNYS", "EEE": "XECB"},
            "2019-06-03",
            "2019-07-31",
            "2019-08-30",
            "2019-08-30T20:00:00+00:00",
            ("close",),
            {"val_loss": 1.25},
        ),
    )
    folder = tmp_path_factory.mktemp("whole")
    save(model, folder, {"desk": "rates"}, metrics={"test_crps": 0.5})
    return folder


@pytest.fixture
def bundle(whole, tmp_path) -> Path:
    """A copy of it."""
    for file in whole.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def described(folder: Path) -> dict:
    return json.loads((folder / "model.json").read_text())


def edit(folder: Path, *keys, value) -> None:
    """Changes a value of the description, and seals it anew, as one who wants to deceive would."""
    about = part = described(folder)
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = value
    reseal(folder, about)


def reseal(folder: Path, about: dict) -> None:
    rest = {name: value for name, value in about.items() if name != "sha256"}
    (folder / "model.json").write_text(json.dumps(sealed(rest)))
