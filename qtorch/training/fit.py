"""Fits a forecaster: early stopping on validation windows, the best state kept."""

import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback

from qtorch.data.datamodule import DataModule
from qtorch.errors import ArgumentError
from qtorch.training.averaging import Averaging
from qtorch.training.best import KeepBest, Patience
from qtorch.training.checkpoints import EpochSeeds, Plain, RunCheckpoints
from qtorch.training.compiling import Compiled
from qtorch.training.forecaster import Forecaster
from qtorch.training.trained_on import TrainedOn
from qtorch.training.trainer import quiet, trainer_of


def fit(
    model: Forecaster,
    data: DataModule,
    *,
    max_epochs: int = 15,
    patience: int | None = 3,
    monitor: str = "val_loss",
    averaging: float | None = 0.99,
    checkpoints: str | Path | None = None,
    seed: int | None = None,
    compile: bool = False,
    accelerator: str = "auto",
    devices: Any = 1,
    strategy: str = "auto",
    precision: Any = "32-true",
    progress: bool = False,
    **trainer: Any,
) -> float:
    """Trains a model in place and leaves it in its best state, in evaluation mode.

    A short cut for a `lightning.Trainer` with gradient clipping at norm 1; with validation windows early stopping, and
    the best state kept; without, all epochs and the last state. For anything else, use a Trainer. The same seeds of
    model, data and training give the same weights; torch's generator is left in a state that depends on the seed. The
    Trainer that was used is `model.trainer` afterwards.

    Args:
        model: the model.
        data: its windows, of the model's `spec` and layout.
        max_epochs: at most; the learning rate's schedule spans them.
        patience: epochs without a better validation score before training stops; None trains all epochs and keeps the
            last state.
        monitor: the score that decides: ``val_loss``, the objective, or ``val_`` and the name of one of its scores.
        averaging: decay of a moving average of the weights, which is then validated and kept; None takes the weights
            as they are.
        checkpoints: a folder for the run's state after each epoch. A run that was killed goes on from there when it is
            called again with the same arguments and a fresh model, and comes out as if it had not been. Arguments of
            the Trainer count, but for callbacks and logger. Of a run that was finished the weights are taken, with a
            warning.
        seed: of dropout and noise; None draws one from torch's generator.
        compile: compile the network, in place, for training and forecasts: the first batches take longer, once for
            training, validation and forecasts each, whatever sizes come later. One compiled before stays so.
        accelerator: as of Lightning; ``"auto"`` takes a GPU where there is one.
        devices: as of Lightning.
        strategy: as of Lightning; ``"ddp"`` trains on several devices, each with batches of its own.
        precision: as of Lightning; ``"bf16-mixed"`` suits a GPU.
        progress: show a progress bar.
        **trainer: further arguments of `lightning.Trainer`, such as `callbacks`, which are called after the fit's own,
            `logger`, `gradient_clip_val` or `accumulate_grad_batches`.

    Returns:
        The best validation score, the last where patience is None, or NaN without validation windows.

    Raises:
        ValueError: the model can't be trained on the data, the score is not one of the objective's, the folder holds
            the checkpoint of another run, or no validation is run that patience asks for.
        NonFiniteError: a loss is not finite; a FloatingPointError.
    """
    model.check(data)
    scores = ["val_loss", *(f"val_{score.name}" for _, score in model.objective.terms)]
    if monitor not in scores:
        raise ArgumentError(f"monitor {monitor!r} is not a validation score of this model; it has {', '.join(scores)}.")
    validated, saved = len(data.validation.entries) > 0, None
    if validated and patience is not None and trainer.get("limit_val_batches") == 0:
        raise ArgumentError(
            f"limit_val_batches={trainer['limit_val_batches']}: validation decides when training stops. Leave out the "
            "validation windows (validation_start), or give patience=None."
        )
    # In this order: the weights are kept while the averaged ones are in place, and a checkpoint knows of both.
    callbacks: list[Callback] = [EpochSeeds(seed)]
    if validated and patience is not None:
        callbacks += [KeepBest(monitor), Patience(monitor, patience=patience)]
    callbacks += [] if averaging is None else [Averaging(averaging)]
    callbacks += [Compiled()] if compile else []
    if checkpoints is not None:
        about: dict[str, Plain] = {
            "max_epochs": max_epochs,
            "patience": patience,
            "monitor": monitor,
            "averaging": averaging,
            "devices": str(devices),
            "precision": str(precision),
        }
        # What is listened to changes nothing that is trained.
        others = {name: _plain(value) for name, value in trainer.items() if name not in ("callbacks", "logger")}
        saved = RunCheckpoints(Path(checkpoints).absolute(), about | others | _about(model, data))
        callbacks.append(saved)
        written = saved.written
    with quiet():
        runner = trainer_of(
            trainer,
            callbacks,
            accelerator=accelerator,
            devices=devices,
            strategy=strategy,
            precision=precision,
            max_epochs=max_epochs,
            enable_checkpointing=saved is not None,
            enable_progress_bar=progress,
            num_sanity_val_steps=0,
        )
        model.train()  # Lightning keeps the mode that it finds; a model that has forecast is in evaluation mode
        runner.fit(model, datamodule=data, ckpt_path=None if saved is None else saved.last, weights_only=True)
    if saved is not None and written is not None and saved.written == written:
        warnings.warn(
            f"{saved.file} is of a run that was finished: the model has its weights, and nothing was trained. To train "
            "anew, remove the file or name a new folder.",
            stacklevel=2,
        )
    data.trainer = None  # else it would keep the optimiser alive, and travel with it to other processes
    model.eval()
    score = float(runner.callback_metrics.get("best", runner.callback_metrics.get(monitor, torch.nan)))
    validated_through = data.validation.known_by if validated else None
    seen = TrainedOn.of(data.source.panel, data.training.known_by, validated_through, {monitor: score})
    model.trained_on += (seen,)
    return score


def _about(model: Forecaster, data: DataModule) -> dict[str, Plain]:
    """What the outcome of a training depends on, in a few plain values."""
    return {
        "objective": repr(model.objective),
        "augmentation": repr(model.augmentation),
        "schedule": repr(model.schedule),
        "weight_decay": model.weight_decay,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "batch_size": data.batch_size,
        "batches_per_epoch": data.batches_per_epoch,
        "data_seed": data.seed,
        "every_position": data.every_position,
        "training_windows": len(data.training.entries),
        "validation_windows": len(data.validation.entries),
    }


def _plain(value: Any) -> Plain:
    """An argument of the Trainer as a plain value; an object as the name of its class, as its address is a new one."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, list | tuple):
        return repr([_plain(each) for each in value])
    if isinstance(value, dict):
        return repr({key: _plain(each) for key, each in value.items()})
    return repr(value) if isinstance(value, timedelta) else type(value).__qualname__
