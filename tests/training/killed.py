"""A training in a process of its own, which may be killed: arguments are the checkpoints' folder and a file.

A third argument is the epoch in whose middle the process kills itself.
"""

import os
import signal
import sys

import torch

from qtorch import Forecaster
from qtorch.training import fit
from tests.training.runs import small_data, small_model, small_panel

AVERAGING, EPOCHS = 0.9, 4


def run(checkpoints, kill_in: int | None = None) -> Forecaster:
    model = small_model(seed=3)
    if kill_in is not None:

        def fatal(batch, batch_idx):
            if model.current_epoch == kill_in and batch_idx == 2:
                os.kill(os.getpid(), signal.SIGKILL)

        model.on_train_batch_start = fatal
    fit(model, small_data(small_panel()), max_epochs=EPOCHS, averaging=AVERAGING, checkpoints=checkpoints, seed=5)
    return model


if __name__ == "__main__":
    folder, file, *kill_in = sys.argv[1:]
    torch.save(run(folder, int(kill_in[0]) if kill_in else None).state_dict(), file)
