"""Fits a forecaster: early stopping on validation windows, the best state kept."""

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from qtorch.data.datamodule import DataModule
from qtorch.training.forecaster import Forecaster


def fit(
    model: Forecaster,
    data: DataModule,
    *,
    max_epochs: int = 8,
    patience: int = 3,
    accelerator: str = "auto",
    precision: Any = "32-true",
    progress: bool = False,
) -> float:
    """Trains a model in place and leaves it in its best state, in evaluation mode.

    A short cut for a `lightning.Trainer` with gradient clipping at norm 1, `EarlyStopping` and a `ModelCheckpoint`
    on ``val_loss``; for anything else, use a Trainer.

    Args:
        model: the model.
        data: its windows, of the model's `spec`.
        max_epochs: at most; the learning rate's cycle spans them.
        patience: epochs without a better validation loss before training stops.
        accelerator: as of Lightning; ``"auto"`` takes a GPU where there is one.
        precision: as of Lightning; ``"bf16-mixed"`` suits a GPU.
        progress: show a progress bar.

    Returns:
        The best validation loss, nats per target.

    Raises:
        ValueError: the windows of the data are not those that the model is fed.
    """
    if data.spec != model.spec:
        raise ValueError(f"the data have windows {data.spec}, but the model is fed {model.spec}.")
    with tempfile.TemporaryDirectory() as folder, _quiet():
        best = ModelCheckpoint(folder, monitor="val_loss", save_weights_only=True)
        trainer = lightning.Trainer(
            accelerator=accelerator,
            devices=1,
            precision=precision,
            max_epochs=max_epochs,
            gradient_clip_val=1.0,
            callbacks=[best, EarlyStopping("val_loss", patience=patience)],
            logger=False,
            enable_progress_bar=progress,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        model.train()  # Lightning keeps the mode that it finds; a model that has forecast is in evaluation mode
        trainer.fit(model, datamodule=data)
        model.load_state_dict(torch.load(best.best_model_path, weights_only=True)["state_dict"])
    model.eval()
    return float(best.best_model_score)  # type: ignore[arg-type]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Lightning's notices about devices and loaders off the terminal; errors and our progress bar remain."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*LeafSpec.*")
            yield
    finally:
        logger.setLevel(level)
