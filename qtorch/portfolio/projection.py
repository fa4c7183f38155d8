"""The nearest weights that keep to all constraints."""

from collections.abc import Mapping
from math import inf

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from qtorch.errors import ArgumentError
from qtorch.portfolio.capped_simplex import threshold, to_budget
from qtorch.portfolio.constraints import Constraints
from qtorch.portfolio.dual import at_prices, coefficients, prices_of
from qtorch.portfolio.groups import group_rows
from qtorch.portfolio.universe import reachable, settle


def project(
    y: Float[Tensor, "*batch N"],
    constraints: Constraints,
    mask: Bool[Tensor, "*#batch N"] | None = None,
    *,
    holdings: Float[Tensor, "*#batch N"] | None = None,
    tradable: Bool[Tensor, "*#batch N"] | None = None,
    groups: Mapping[str, Int[Tensor, "..."]] | None = None,
) -> Float[Tensor, "*batch N"]:
    r"""The weights that minimise $\sum (w_i - y_i)^2$ under the constraints.

    A budget between bounds is `project_capped_simplex`. For the others the few multipliers are found in float64 by a
    damped Newton method on the dual, to which each asset responds in closed form. On the pieces that they select the
    answer is linear: $w_F = y_F - A_F^T (A_F A_F^T)^+ (A w^0 - b)$ with A the constraints that bind, F the free assets,
    and $w^0$ that is y on F and the value that holds the asset elsewhere. This is computed exactly, and
    differentiating it gives the exact gradient in y and in the holdings.

    Args:
        y: scores or ideal weights; NaN where masked is fine.
        constraints: what to keep to.
        mask: True for assets of the universe. Others have weight 0, even when they could not be sold; what is held of
            them is sold and counts as turnover.
        holdings: today's weights, drifted with the prices; needed for `tradable` and for a turnover limit. Where an
            asset is not in the universe, NaN means that none is held.
        tradable: False where the exchange is closed: the weight stays that of the holdings, outside its bounds too, and
            the others are chosen around it; where it alone is beyond the budget, at their lower bounds, and where the
            budget is out of their reach because of what is closed, as with a holding that must come down to its upper
            bound while all that could be bought instead is closed, at their upper bounds, the rest being cash. A row
            without any tradable asset keeps its holdings whatever the limits.
        groups: by the name of a partition that the constraints cap, the label of each asset, `[N]` or `[B N]`, from 0;
            -1 for none.

    Returns:
        Weights. A masked asset's is exactly 0 and without gradient.

    Raises:
        ValueError: no weights meet the constraints (the message names the row, the constraint and what to change), a
            score or a holding is NaN, or an input that the constraints need is missing.

    References:
        Bertsekas (1982), Projected Newton methods for optimization problems with simple constraints, SIAM Journal on
        Control and Optimization 20.

    Example:
        >>> sectors = {"sector": torch.tensor([0, 0, 1, 1])}
        >>> project(torch.tensor([0.9, 0.7, 0.1, 0.0]), Constraints(caps={"sector": 0.6}), groups=sectors)
        tensor([0.4000, 0.2000, 0.2500, 0.1500])
    """
    if constraints.turnover is not None and holdings is None:
        raise ArgumentError("a limit of the turnover needs the holdings: pass holdings=, or turnover=None.")
    z, free, place, held, closed = settle(y, mask, holdings, tradable)
    lower = torch.where(free, -inf if constraints.lower is None else constraints.lower, place)
    upper = torch.where(free, inf if constraints.upper is None else constraints.upper, place)
    if constraints.gross is None and constraints.turnover is None and not constraints.caps:
        if constraints.budget is None:
            return torch.maximum(torch.minimum(z, upper), lower).reshape(y.shape).to(y.dtype)
        budget = z.new_full(z.shape[:1], constraints.budget)
        w = to_budget(z, lower, upper, _reachable(budget, lower, upper, place, closed, constraints))
    else:
        w = _to_all(z, lower, upper, place, closed, held, constraints, mask, groups, y.shape)
    return w.reshape(y.shape).to(y.dtype)


def _to_all(
    y: Tensor,
    lower: Tensor,
    upper: Tensor,
    place: Tensor,
    closed: Tensor,
    holdings: Tensor,
    constraints: Constraints,
    mask: Tensor | None,
    groups: Mapping[str, Tensor] | None,
    shape: torch.Size,
) -> Tensor:
    rows, bounds, names = group_rows(constraints.caps, groups, mask, shape, y.device)
    equalities = 0
    if constraints.budget is not None:
        equalities = 1
        rows = torch.cat((torch.ones_like(y).unsqueeze(1), rows), 1)
        bounds, names = [constraints.budget, *bounds], ["budget", *names]
    limits = (inf if limit is None else limit for limit in (constraints.gross, constraints.turnover))
    right = y.new_tensor([*bounds, *limits]).expand(len(y), -1)
    if equalities:
        budget = _reachable(right[:, 0], lower, upper, place, closed, constraints)
        right = torch.cat((budget.unsqueeze(-1), right[:, 1:]), -1)
    z, low, high, held, limit = (x.detach() for x in (y, lower, upper, holdings, right))
    start = torch.zeros_like(right)
    if equalities:
        start = torch.cat((threshold(z, low, high, limit[:, 0]).unsqueeze(-1), start[:, 1:]), -1)
    prices = prices_of(z, low, high, held, rows, limit, start, equalities, [*names, "gross", "turnover"])
    response = at_prices(z, low, high, held, rows, prices)
    free = response.free
    # What holds the others. Bounds come first: those of fixed assets are their place.
    still = torch.where(response.weights == holdings, holdings, 0.0)
    still = torch.where(response.weights <= lower, lower, torch.where(response.weights >= upper, upper, still))
    base = torch.where(free, y, still)
    every = torch.cat((rows, response.side.unsqueeze(1), response.trade.unsqueeze(1)), 1)
    traded = (response.trade * holdings).sum(-1, keepdim=True)
    offset = torch.cat((torch.zeros_like(right[:, :-1]), traded), -1)
    binding = torch.cat((torch.ones_like(prices[:, :equalities], dtype=torch.bool), prices[:, equalities:] > 0), -1)
    slopes = torch.where(binding.unsqueeze(-1), coefficients(response, rows), 0.0)
    inverse = torch.linalg.pinv(slopes @ slopes.mT, rtol=1e-9, hermitian=True)  # its entries are whole numbers
    w = base
    for _ in range(2):  # the second takes off the first's rounding
        excess = (every @ w.unsqueeze(-1)).squeeze(-1) - offset
        excess = torch.where(binding, excess - torch.where(binding, right, 0.0), 0.0)
        w = w - (slopes.mT @ (inverse @ excess.unsqueeze(-1))).squeeze(-1)
    return w


def _reachable(
    budget: Tensor, lower: Tensor, upper: Tensor, place: Tensor, closed: Tensor, constraints: Constraints
) -> Tensor:
    return reachable(budget, lower, upper, place, closed, inf if constraints.upper is None else constraints.upper)
