"""The optimiser: AdamW in groups, with warm-up and a cosine."""

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from qtorch.distributions.checks import require
from qtorch.nn import stacked_parameters
from qtorch.nn.penalties import penalized

_NOT_DECAYED = (nn.Embedding, nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)


@dataclass(frozen=True)
class Schedule:
    """The learning rate rises linearly to its peak and falls along half a cosine.

    rate(s) = peak (s + 1) / w for the first w = warm_up * steps steps, and then
    peak (f + (1 - f) (1 + cos(pi (s - w) / (steps - w))) / 2) with f = final.

    Attributes:
        learning_rate: the peak.
        warm_up: share of the steps in which the rate rises.
        final: rate of the last steps, as a share of the peak.

    Raises:
        ValueError: a setting is out of bounds.

    References:
        Loshchilov and Hutter (2017), SGDR: stochastic gradient descent with warm restarts, equation 5, for the cosine.
    """

    learning_rate: float = 3e-3
    warm_up: float = 0.2
    final: float = 0.0

    def __post_init__(self) -> None:
        require(0 < self.learning_rate < math.inf, "learning_rate", self.learning_rate, "give a positive number")
        require(0 <= self.warm_up < 1, "warm_up", self.warm_up, "give a share of the steps in [0, 1), such as 0.2")
        require(0 <= self.final <= 1, "final", self.final, "give a share of the peak in [0, 1], such as 0.01")

    def factor(self, step: int, steps: int) -> float:
        """The rate of a step, from 0, as a share of the peak, when there are so many steps in all."""
        warm_up = round(self.warm_up * steps)
        if step < warm_up:
            return (step + 1) / warm_up
        along = min(1.0, (step - warm_up) / max(1, steps - warm_up))
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * along)) / 2


def adamw(
    module: nn.Module, schedule: Schedule, weight_decay: float, steps: int
) -> tuple[torch.optim.AdamW, torch.optim.lr_scheduler.LambdaLR]:
    """AdamW that decays matrices, but no bias, norm, embedding or what has a penalty; and its rate, for each step.

    Args:
        module: what is trained.
        schedule: of the rate.
        weight_decay: of the matrices.
        steps: planned in all.

    References:
        Loshchilov and Hutter (2019), Decoupled weight decay regularization, algorithm 2.
    """
    decayed, others = parameter_groups(module)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=schedule.learning_rate, betas=(0.9, 0.98)
    )
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(schedule.factor, steps=steps))
    return optimizer, rate


def parameter_groups(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The parameters to decay and the others, in the module's order; a shared one stands where it comes first.

    Of stacked parameters, such as an ensemble's, each member's is what counts: K biases `[K, D]` are no matrix.
    """
    members = {id(parameter) for parameter in stacked_parameters(module)}
    kept = {
        id(parameter)
        for part in module.modules()
        for parameter in part.parameters(recurse=False)
        if isinstance(part, _NOT_DECAYED) or parameter.ndim - (id(parameter) in members) < 2
    }
    kept |= {id(parameter) for part in penalized(module) for parameter in part.parameters()}
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return [p for p in trained if id(p) not in kept], [p for p in trained if id(p) in kept]
