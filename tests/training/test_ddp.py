"""Training on several processes; on the CPU over gloo."""

import json

import pytest
import torch

from qtorch import Forecaster
from qtorch.training import fit
from tests.training.runs import SPEC, same_weights, small_data, small_model, small_panel


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


@pytest.mark.slow
def test_two_processes_end_with_the_same_weights_and_see_different_batches(tmp_path):
    panel = small_panel()
    data = small_data(panel, batches_per_epoch=6)
    model = recording(tmp_path)
    before = small_model()
    options = {"max_epochs": 2, "seed": 5, "averaging": 0.5, "accelerator": "cpu"}
    loss = fit(model, data, devices=2, strategy="ddp_spawn", checkpoints=tmp_path / "run", **options)
    states = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert not same_weights(model, before)
    seen = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert len(seen[0]) == len(seen[1]) == 2 * 3
    # Together they see the batches that one process draws, each once.
    alone_folder = tmp_path / "alone"
    alone_folder.mkdir()
    alone = recording(alone_folder)
    fit(alone, data, **options)
    expected = json.loads((alone_folder / "0.json").read_text())
    assert sorted(seen[0] + seen[1]) == sorted(expected)
    # The parent has the best weights and their score, as the processes validated them.
    best = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["callbacks"]["KeepBest"]
    assert loss == pytest.approx(best["score"], rel=1e-6)
    assert all(torch.equal(value, best["weights"][name]) for name, value in model.state_dict().items())
    again = recording(tmp_path)
    assert fit(again, data, devices=2, strategy="ddp_spawn", checkpoints=tmp_path / "run", **options) == loss
    assert same_weights(again, model)
