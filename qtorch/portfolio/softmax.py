"""Long-only weights by a softmax."""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from qtorch.distributions.checks import require
from qtorch.portfolio.feasibility import check_budget
from qtorch.portfolio.operators import operator
from qtorch.portfolio.universe import settle


class Softmax(nn.Module):
    """Scores to weights that are positive and add up to 1: the softmax of the scores over the assets that may change.

    Args:
        temperature: divides the scores; large for nearly equal weights.

    Example:
        >>> allocation = Softmax()
        >>> allocation(torch.tensor([[0.0, 0.0, 5.0]]), torch.tensor([[True, True, False]]))
        tensor([[0.5000, 0.5000, 0.0000]])
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        require(temperature > 0, "temperature", temperature, "a positive number is needed")
        self.temperature = temperature

    def forward(
        self,
        scores: Float[Tensor, "*batch N"],
        mask: Bool[Tensor, "*#batch N"],
        *,
        holdings: Float[Tensor, "*#batch N"] | None = None,
        tradable: Bool[Tensor, "*#batch N"] | None = None,
        groups: Mapping[str, Int[Tensor, "..."]] | None = None,
    ) -> Float[Tensor, "*batch N"]:
        """Weights; what is closed keeps its holding, and the rest of the budget is shared among the others.

        Args:
            scores: NaN where masked is fine.
            mask: True for assets of the universe; the weight of others is 0.
            holdings: today's weights, needed for `tradable`.
            tradable: False where the exchange is closed.
            groups: not used; for a call like that of other layers.

        Raises:
            ValueError: closed assets make up more than 1 while others could change, or have no holdings.
        """
        z, free, place, _, _ = settle(scores, mask, holdings, tradable)
        rest = 1 - place.sum(-1, keepdim=True)
        if tradable is not None:
            rest = rest * _affordable(place.detach(), free)
        some = free.any(-1, keepdim=True)  # a softmax of nothing would be NaN
        logits = torch.where(torch.logical_or(free, ~some), z / self.temperature, -torch.inf)
        w = torch.where(free, rest * logits.softmax(-1), place)
        return w.reshape(scores.shape).to(scores.dtype)


def _check(place: Tensor, free: Tensor) -> Tensor:
    check_budget(place, torch.where(free, torch.inf, place), place.new_ones(len(place)))
    return place.new_ones(len(place), 1)


_affordable = operator(
    "closed_weights_affordable",
    "(Tensor place, Tensor free) -> Tensor",
    _check,
    lambda place, free: place.new_empty(place.shape[0], 1),
)
