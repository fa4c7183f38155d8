"""Which assets may be chosen, and where the others stay."""

import torch
from torch import Tensor

from qtorch.errors import ArgumentError


def settle(
    y: Tensor, mask: Tensor | None, holdings: Tensor | None, tradable: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Scores, who is free, the place of those that are not, the holdings, and who is closed: `[B N]`, in float64.

    Outside the universe the place is 0 whatever is held; in it, a closed asset's place is its holding. Scores count
    only where an asset is free, and holdings that are not numbers count as none outside the universe.

    Raises:
        ValueError: closed assets without holdings.
    """
    if tradable is not None and holdings is None:
        raise ArgumentError("assets that can't be traded stay at their holdings: pass holdings=.")
    every = torch.ones((), dtype=torch.bool, device=y.device)
    there = (every if mask is None else mask).expand(y.shape)
    free = torch.logical_and(there, every if tradable is None else tradable)
    z = torch.where(free, y, 0.0).double()
    h = torch.zeros_like(z)
    if holdings is not None:
        h = torch.where(torch.logical_or(there, holdings.isfinite()), holdings, 0.0).double()
    closed = torch.logical_and(there, ~free)
    place = torch.where(closed, h, 0.0)
    n = y.shape[-1]
    return z.reshape(-1, n), free.reshape(-1, n), place.reshape(-1, n), h.reshape(-1, n), closed.reshape(-1, n)


def reachable(budget: Tensor, lower: Tensor, upper: Tensor, place: Tensor, closed: Tensor, most: float) -> Tensor:
    """The budget `[B]`, or where closed assets keep weights from it, the nearest sum that they leave.

    Costs are borrowed, so that weights add up to a little more than the budget by the time that markets close: where
    closed assets alone are beyond it, the others stand at their lower bounds. Where the others would have to exceed
    their upper bounds, because what could be bought beside them is closed, they stand at these, and the rest is cash
    until the markets open. A budget that could not be met with all assets open stays, to be refused.

    Args:
        budget: `[B]`.
        lower: `[B N]`, the place of what is closed, as in `upper`.
        upper: `[B N]`.
        place: `[B N]`, of what is closed, and 0 of others.
        closed: `[B N]`, what is in the universe and can't be traded.
        most: upper bound of an asset that is open.
    """
    sum_of_upper = upper.sum(-1)
    by_closing = torch.logical_and(sum_of_upper < budget, torch.where(closed, most, upper).sum(-1) >= budget)
    budget = torch.where(by_closing, sum_of_upper, budget)
    return torch.where(place.sum(-1) > budget, torch.maximum(budget, lower.sum(-1)), budget)
