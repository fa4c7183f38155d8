"""How good a trained model is on some windows."""

from collections.abc import Iterable

import torch

from qtorch.data.window import Window
from qtorch.training.forecaster import Forecaster
from qtorch.training.objectives import Objective


@torch.no_grad()
def evaluate(model: Forecaster, windows: Iterable[Window], objective: Objective | None = None) -> dict[str, float]:
    """Weighted means of scores over the observed targets, in units of the windows' scales, as in validation.

    Args:
        model: the model, whose mode is left as it is found.
        windows: batches, such as `data.test_dataloader()`.
        objective: the model's own by default.

    Returns:
        The objective as ``loss``, and each score in it by its name; NaN without an observed target.
    """
    training = model.training
    model.eval()
    sums: dict[str, float] = {}
    total = 0.0
    for window in windows:
        losses, weight = model.losses(window.to(model.device), objective)
        total += weight.double().sum().item()
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + (weight * value).double().sum().item()
    model.train(training)
    return {name: value / total if total else torch.nan for name, value in sums.items()}
