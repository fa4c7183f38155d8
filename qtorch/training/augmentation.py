"""Changes to training windows that keep a model from learning by heart what few dates tell."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from qtorch.data.features import CrossSection, Label
from qtorch.data.window import Window, WindowSpec
from qtorch.distributions.checks import require


class HideInputs:
    """Sets groups of inputs to 0 for whole training windows at random, each group by itself.

    What all assets share tells the date, and a model that may always rely on it learns what came after each date by
    heart; what is hidden from time to time it can only use for what it is worth. A label that is hidden from time to
    time is one that an unseen asset may lack.

    Args:
        groups: columns of the inputs that are hidden together.
        probability: of hiding a group.

    Raises:
        ValueError: the probability is not in [0, 1), or a group is empty.

    References:
        Srivastava et al. (2014), Dropout: a simple way to prevent neural networks from overfitting, for the idea;
        nothing is scaled here, as the inputs are there in use.
    """

    def __init__(self, groups: Sequence[Sequence[int]], probability: float = 0.3) -> None:
        require(0 <= probability < 1, "probability", probability, "give a share of the windows in [0, 1), such as 0.3")
        require(all(len(group) for group in groups), "groups", groups, "give at least one column for each")
        self.groups, self.probability = tuple(tuple(group) for group in groups), probability

    @classmethod
    def shared(cls, spec: WindowSpec, probability: float = 0.3) -> "HideInputs":
        """Hides what comes from across the market as one group, and each label as another."""
        across: list[int] = []
        labels, first = [], 0
        for part in spec.features.parts:
            columns = range(first, first + len(part.names))
            first = columns.stop
            if isinstance(part, CrossSection):
                across += columns
            elif isinstance(part, Label):
                labels.append(columns)
        return cls([*([across] if across else []), *labels], probability)

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
