"""A moving average of the weights."""

from functools import partial

from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from qtorch.distributions.checks import require


class Averaging(WeightAveraging):
    """An exponential moving average of the weights, by which the model is validated and which it ends with.

    w(t) = d(t) w(t - 1) + (1 - d(t)) weights(t) with d(t) = min(decay, (1 + t) / (10 + t)), so that a short training
    forgets where it began. Buffers are the latest.

    Args:
        decay: d; .99 averages over some 100 steps.

    Raises:
        ValueError: the decay is not inside (0, 1).

    References:
        Polyak and Juditsky (1992), Acceleration of stochastic approximation by averaging, SIAM Journal on Control and
        Optimization 30, for averaging.
    """

    def __init__(self, decay: float) -> None:
        require(0 < decay < 1, "averaging", decay, "give a decay inside (0, 1), such as 0.99, or None")
        super().__init__(use_buffers=False, multi_avg_fn=partial(_update, decay))


def _update(decay: float, averaged: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
    t = int(count)
    get_ema_multi_avg_fn(min(decay, (1 + t) / (10 + t)))(averaged, current, count)
