"""Weights by the nearest point that keeps to constraints."""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from qtorch.portfolio.constraints import Constraints
from qtorch.portfolio.projection import project


class Projected(nn.Module):
    """Scores to the nearest weights that keep to all constraints; see `project`.

    Args:
        constraints: `Constraints`, or their plain values. Kept as these, so that the layer can be saved.

    Example:
        >>> import torch
        >>> allocation = Projected(Constraints(upper=0.5))
        >>> allocation(torch.tensor([[0.9, 0.5, 0.1]]), torch.tensor([[True, True, True]]))
        tensor([[0.5000, 0.4500, 0.0500]])
    """

    def __init__(self, constraints: Constraints | Mapping[str, Any] | None = None) -> None:
        super().__init__()
        if not isinstance(constraints, Constraints):
            constraints = Constraints(**(constraints or {}))
        self.constraints = constraints.plain()
        self._constraints = constraints

    @property
    def needs_holdings(self) -> bool:
        """Whether there are no weights without holdings, because turnover is limited."""
        return self._constraints.turnover is not None

    def forward(
        self,
        scores: Float[Tensor, "*batch N"],
        mask: Bool[Tensor, "*#batch N"],
        *,
        holdings: Float[Tensor, "*#batch N"] | None = None,
        tradable: Bool[Tensor, "*#batch N"] | None = None,
        groups: Mapping[str, Int[Tensor, "..."]] | None = None,
    ) -> Float[Tensor, "*batch N"]:
        """Weights; the arguments and errors are those of `project`."""
        return project(scores, self._constraints, mask, holdings=holdings, tradable=tradable, groups=groups)
