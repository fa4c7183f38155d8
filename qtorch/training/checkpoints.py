"""Trainings that go on after a kill as if nothing had been: random numbers of an epoch, and checkpoints of a run."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint

from qtorch.errors import ArgumentError

Plain = str | int | float | bool | None


class EpochSeeds(Callback):
    """Seeds torch at the start of each epoch from a seed, the epoch and the process.

    So dropout and noise of an epoch are the same whether the epochs before were run in this process or not.

    Args:
        seed: of the run; None draws one from torch's generator, or takes that of the checkpoint it goes on from.
    """

    def __init__(self, seed: int | None) -> None:
        self._given = seed
        self.seed = int(torch.randint(2**31, ())) if seed is None else seed

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Seeds the generators of all devices."""
        place = (self.seed, trainer.current_epoch, trainer.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1, np.uint32)[0]))

    def state_dict(self) -> dict[str, Any]:
        """The seed."""
        return {"seed": self.seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the seed of the run that goes on.

        Raises:
            ValueError: another seed was given.
        """
        if self._given not in (None, state_dict["seed"]):
            raise ArgumentError(f"the checkpoint is of a run with seed {state_dict['seed']}, not {self._given}.")
        self.seed = state_dict["seed"]


class RunCheckpoints(Checkpoint):
    """Writes a run's state to a folder after each epoch, whole or not at all; one file that replaces the one before.

    Args:
        folder: made if needed.
        about: what makes the run what it is; a run with other settings refuses to go on from its checkpoint.
    """

    def __init__(self, folder: str | Path, about: dict[str, Plain]) -> None:
        self.file, self.about = Path(folder) / "last.ckpt", about
        self.file.parent.mkdir(parents=True, exist_ok=True)

    @property
    def last(self) -> Path | None:
        """The run's last checkpoint, if there is one."""
        return self.file if self.file.exists() else None

    @property
    def written(self) -> int | None:
        """When the last checkpoint was written, by the file's clock; None if there is none."""
        return self.file.stat().st_mtime_ns if self.file.exists() else None

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the checkpoint; the other callbacks have seen the epoch's end by then."""
        part = self.file.with_suffix(".part")
        trainer.save_checkpoint(part)
        if trainer.is_global_zero:
            os.replace(part, self.file)

    def state_dict(self) -> dict[str, Any]:
        """What the run is."""
        return dict(self.about)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuses the checkpoint of another run.

        Raises:
            ValueError: it is.
        """
        names = sorted(state_dict.keys() | self.about.keys())
        different = [name for name in names if state_dict.get(name) != self.about.get(name)]
        if different:
            changes = ", ".join(
                f"{name} {state_dict.get(name)} there, {self.about.get(name)} here" for name in different
            )
            raise ArgumentError(
                f"{self.file} is the checkpoint of another run: {changes}. Remove it, or name a new folder."
            )
