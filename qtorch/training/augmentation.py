"""Changes to training windows that keep a model from learning by heart what few dates tell."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from qtorch.data.features import (
    Absolute,
    Feature,
    GapDays,
    Label,
    NextGapDays,
    Scaled,
    VolatilityLevel,
    VolatilityRatio,
    WithIndicator,
)
from qtorch.data.window import Window, WindowSpec
from qtorch.distributions.checks import require

OWN_VOLATILITY = (Scaled, Absolute, VolatilityRatio, VolatilityLevel, GapDays, NextGapDays)


class HideInputs:
    """Sets groups of inputs to 0 for whole training windows at random, each group by itself.

    What all assets share tells the date, and what tells one asset from another the asset; a model that may rely on all
    of it learns what came after each by heart, and forecasts too narrow a range. What is hidden from time to time it
    can only use for what it is worth. A label that is hidden from time to time is one that an unseen asset may lack.

    Args:
        groups: columns of the inputs that are hidden together.
        probability: of hiding a group.

    Raises:
        ValueError: the probability is not in [0, 1), or a group is empty.

    References:
        Srivastava et al. (2014), Dropout: a simple way to prevent neural networks from overfitting, for the idea;
        nothing is scaled here, as the inputs are there in use.
    """

    def __init__(self, groups: Sequence[Sequence[int]], probability: float = 0.5) -> None:
        require(0 <= probability < 1, "probability", probability, "give a share of the windows in [0, 1), such as 0.3")
        require(all(len(group) for group in groups), "groups", groups, "give at least one column for each")
        self.groups, self.probability = tuple(tuple(group) for group in groups), probability

    @classmethod
    def by_kind(
        cls, spec: WindowSpec, probability: float = 0.5, keep: tuple[type[Feature], ...] = OWN_VOLATILITY
    ) -> "HideInputs":
        """Hides features of a class together, and each label by itself; but not those of some classes.

        Args:
            spec: of the windows.
            probability: of hiding a group.
            keep: what is always in sight.
        """
        groups: dict[object, list[int]] = {}
        first = 0
        for part in spec.features.parts:
            columns = range(first, first + len(part.names))
            first = columns.stop
            what = part.of if isinstance(part, WithIndicator) else part
            if not isinstance(what, keep):
                groups.setdefault(what if isinstance(what, Label) else type(what), []).extend(columns)
        return cls(list(groups.values()), probability)

    def __call__(self, window: Window) -> Window:
        """The window with some inputs hidden."""
        inputs = window.inputs
        ones = (1,) * (inputs.ndim - 2)
        for group in self.groups:
            shown = torch.rand(len(inputs), *ones, 1, device=inputs.device) >= self.probability
            columns = torch.zeros(inputs.shape[-1], dtype=torch.bool, device=inputs.device)
            columns[list(group)] = True
            inputs = torch.where(torch.logical_or(shown, ~columns), inputs, 0.0)
        return replace(window, inputs=inputs)

    def __repr__(self) -> str:
        return f"HideInputs({[list(group) for group in self.groups]}, {self.probability})"
