"""Which assets may be chosen, and where the others stay."""

import torch
from torch import Tensor


def settle(
    y: Tensor, mask: Tensor | None, holdings: Tensor | None, tradable: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scores, whether an asset is free, the place of those that are not, and the holdings: `[B N]`, in float64.

    Outside the universe the place is 0 whatever is held; in it, a closed asset's place is its holding. Scores count
    only where an asset is free, and holdings that are not numbers count as none outside the universe.

    Raises:
        ValueError: closed assets without holdings.
    """
    if tradable is not None and holdings is None:
        raise ValueError("assets that can't be traded stay at their holdings: pass holdings=.")
    every = torch.ones((), dtype=torch.bool, device=y.device)
    there = (every if mask is None else mask).expand(y.shape)
    free = torch.logical_and(there, every if tradable is None else tradable)
    z = torch.where(free, y, 0.0).double()
    h = torch.zeros_like(z)
    if holdings is not None:
        h = torch.where(torch.logical_or(there, holdings.isfinite()), holdings, 0.0).double()
    place = torch.where(torch.logical_and(there, ~free), h, 0.0)
    n = y.shape[-1]
    return z.reshape(-1, n), free.reshape(-1, n), place.reshape(-1, n), h.reshape(-1, n)


def reachable(budget: Tensor, lower: Tensor, place: Tensor) -> Tensor:
    """The budget `[B]`, or where closed assets alone are beyond it, what they and the others' lower bounds add up to.

    Costs are borrowed, so that weights add up to a little more than the budget by the time that markets close; then
    nothing else can be held.
    """
    return torch.where(place.sum(-1) > budget, torch.maximum(budget, lower.sum(-1)), budget)
