"""The Lightning Trainer of our fits: quiet, with clipped gradients, and the user's arguments on top."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback


def trainer_of(given: Mapping[str, Any], callbacks: Sequence[Callback], **ours: Any) -> lightning.Trainer:
    """A Trainer.

    Args:
        given: what the user gave; it takes the place of ours, but callbacks come after ours.
        callbacks: ours.
        **ours: the fit's own arguments of `lightning.Trainer`.
    """
    theirs = given.get("callbacks") or []
    added = [theirs] if isinstance(theirs, Callback) else list(theirs)
    defaults = {"gradient_clip_val": 1.0, "logger": False, "enable_model_summary": False}
    return lightning.Trainer(**{**defaults, **ours, **given, "callbacks": [*callbacks, *added]})


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps Lightning's notices about devices and loaders off the terminal; errors and our progress bar remain."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*LeafSpec.*")
            warnings.filterwarnings("ignore", message=".*across ranks is zero.*")  # no validation is asked for
            yield
    finally:
        logger.setLevel(level)
