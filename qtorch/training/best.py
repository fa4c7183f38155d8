"""Which weights a training ends with."""

import warnings
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping
from torch import Tensor


class KeepBest(Callback):
    """Keeps the weights of the epoch with the best validation score in memory, and leaves the model with them.

    It stands before `Averaging` in a trainer's list: that one puts the averaged weights in place for validation, and
    takes them away after this one has seen them.

    Args:
        monitor: the score, such as ``val_loss``; the lower the better.
    """

    def __init__(self, monitor: str) -> None:
        self.monitor = monitor
        self.score, self.epoch = torch.inf, -1
        self.weights: dict[str, Tensor] = {}
        self._latest: dict[str, Tensor] = {}

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copies the weights that were validated."""
        self._latest = {name: value.detach().to("cpu", copy=True) for name, value in pl_module.state_dict().items()}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps them if they are the best."""
        score = float(trainer.callback_metrics[self.monitor])
        if score < self.score:
            self.score, self.epoch, self.weights = score, trainer.current_epoch, self._latest

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leaves the model with the best weights, and the score among the trainer's metrics as ``best``.

        Where no validation was run, or none gave a number, the last weights stay, with a warning.
        """
        if not self.weights:
            warnings.warn(
                f"no epoch has a {self.monitor} that is a number, so the model keeps its last weights: validation did "
                "not run, or it failed. Look at max_epochs, check_val_every_n_epoch and max_time.",
                stacklevel=2,
            )
            return
        pl_module.load_state_dict(self.weights)
        trainer.callback_metrics["best"] = torch.tensor(self.score)  # metrics come back from spawned processes

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors."""
        return {"score": self.score, "epoch": self.epoch, "weights": self.weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.score, self.epoch, self.weights = (state_dict[name] for name in ("score", "epoch", "weights"))


class Patience(EarlyStopping):
    """Early stopping that, resumed after it had decided to stop, trains no further epoch."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops if there is no patience left."""
        if self.wait_count >= self.patience:
            trainer.should_stop = True
