"""Training on several processes; on the CPU over gloo."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from qtorch import Forecaster
from qtorch.training import fit
from tests.training.runs import SPEC, same_weights, small_data, small_model, small_panel

ROOT = Path(__file__).parents[2]
OPTIONS = {"max_epochs": 2, "seed": 5, "averaging": 0.5, "accelerator": "cpu"}


class Recording(Forecaster):
    """Writes what each process trained on, and the weights that it ended with."""

    folder = None

    def training_step(self, window, index):
        self.seen.append([window.row_index.tolist(), window.asset_index.tolist()])
        return super().training_step(window, index)

    def on_fit_start(self):
        super().on_fit_start()
        self.seen = []

    def on_train_end(self):
        rank = self.global_rank
        (self.folder / f"{rank}.json").write_text(json.dumps(self.seen))
        torch.save(self.state_dict(), self.folder / f"{rank}.pt")


def recording(folder) -> Recording:
    parts = small_model().network
    torch.manual_seed(0)
    model = Recording(parts.encoder, parts.head, SPEC)
    model.folder = folder
    return model


def two_in_step(folder: Path) -> list[list]:
    """The batches of two processes, which ended with the same weights."""
    states = [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    seen = [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert len(seen[0]) == len(seen[1]) == 2 * 3
    return seen[0] + seen[1]


def alone(folder: Path) -> list[list]:
    """The batches that one process draws."""
    folder.mkdir()
    fit(recording(folder), small_data(small_panel(), batches_per_epoch=6), **OPTIONS)
    return json.loads((folder / "0.json").read_text())


@pytest.mark.slow
def test_two_processes_end_with_the_same_weights_and_see_different_batches(tmp_path):
    panel = small_panel()
    data = small_data(panel, batches_per_epoch=6)
    model = recording(tmp_path)
    before = small_model()
    loss = fit(model, data, devices=2, strategy="ddp_spawn", checkpoints=tmp_path / "run", **OPTIONS)
    seen = two_in_step(tmp_path)
    assert not same_weights(model, before)
    # Together they see the batches that one process draws, each once.
    assert sorted(seen) == sorted(alone(tmp_path / "alone"))
    # The parent has the best weights and their score, as the processes validated them.
    best = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["callbacks"]["KeepBest"]
    assert loss == pytest.approx(best["score"], rel=1e-6)
    assert all(torch.equal(value, best["weights"][name]) for name, value in model.state_dict().items())
    again = recording(tmp_path)
    assert fit(again, data, devices=2, strategy="ddp_spawn", checkpoints=tmp_path / "run", **OPTIONS) == loss
    assert same_weights(again, model)


SCRIPT = """
import sys
from pathlib import Path

import torch

from qtorch.training import fit
from tests.training.runs import small_data, small_panel
from tests.training.test_ddp import OPTIONS, recording

folder = Path(sys.argv[1])
model = recording(folder)
loss = fit(model, small_data(small_panel(), batches_per_epoch=6), devices=2, strategy="ddp", **OPTIONS)
torch.save((loss, model.state_dict()), folder / f"{model.global_rank}.end")
"""


@pytest.mark.slow
def test_a_script_that_starts_itself_again_for_each_device(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert sorted(two_in_step(tmp_path)) == sorted(alone(tmp_path / "alone"))
    (loss, weights), (other, others) = (torch.load(tmp_path / f"{rank}.end", weights_only=True) for rank in (0, 1))
    assert loss == other < float("inf")
    assert all(torch.equal(value, others[name]) for name, value in weights.items())
