"""By how much a portfolio's weights break its constraints."""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from qtorch.portfolio import Constraints
from qtorch.portfolio.groups import group_rows


def violations(
    weights: Float[Tensor, "R N"],
    holdings: Float[Tensor, "R N"],
    constraints: Constraints,
    tradable: Bool[Tensor, "R N"] | None = None,
    groups: Mapping[str, Int[Tensor, "..."]] | None = None,
) -> dict[str, Float[Tensor, " R"]]:
    """The excess over each limit that is set, by its name; zero where it is kept.

    What cannot be traded stays at its holdings, as in `qtorch.portfolio.project`: it breaks no bound of single weights,
    and where it alone is beyond the budget, the budget is kept by holding nothing else. A row without any tradable
    asset breaks nothing. Of several bounds or groups the worst counts.

    Args:
        weights: after trading, in units of the equity.
        holdings: before it.
        constraints: the limits.
        tradable: False where an asset could not be traded; all can by default.
        groups: labels of each asset by the name of a partition, for the caps; as of `project`.

    Example:
        >>> w, h = torch.tensor([[0.7, 0.3]]), torch.zeros(1, 2)
        >>> violations(w, h, Constraints(upper=0.6, turnover=1.0))
        {'budget': tensor([0.]), 'lower': tensor([0.]), 'upper': tensor([0.1000]), 'turnover': tensor([0.])}
    """
    open_ = torch.ones_like(weights, dtype=torch.bool) if tradable is None else tradable
    found: dict[str, Tensor] = {}
    if constraints.budget is not None:
        total, fixed = weights.sum(-1), torch.where(open_, 0.0, weights).sum(-1)
        found["budget"] = torch.maximum(constraints.budget - total, total - fixed.clamp(min=constraints.budget))
    if constraints.lower is not None:
        found["lower"] = torch.where(open_, constraints.lower - weights, 0.0).amax(-1)
    if constraints.upper is not None:
        found["upper"] = torch.where(open_, weights - constraints.upper, 0.0).amax(-1)
    if constraints.gross is not None:
        found["gross"] = weights.abs().sum(-1) - constraints.gross
    if constraints.turnover is not None:
        found["turnover"] = (weights - holdings).abs().sum(-1) - constraints.turnover
    for name, cap in constraints.caps.items():
        rows, bounds, _ = group_rows({name: cap}, groups, None, weights.shape, weights.device)
        net = (rows @ weights.to(rows).unsqueeze(-1)).squeeze(-1)
        found[name] = (net - net.new_tensor(bounds)).amax(-1).to(weights.dtype)
    some = open_.any(-1)
    return {name: torch.where(some, excess.clamp(min=0), 0.0) for name, excess in found.items()}
