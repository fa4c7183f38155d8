"""The projection on weights between bounds that add up to a budget."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qtorch.portfolio.feasibility import RowError, check_bounds, check_budget
from qtorch.portfolio.operators import operator

_STEPS = 200  # a bracket of doubles is halved at least every fourth step; Newton needs about ten


def project_capped_simplex(
    y: Float[Tensor, "*batch N"],
    lower: Float[Tensor, "..."] | float = 0.0,
    upper: Float[Tensor, "..."] | float = 1.0,
    budget: Float[Tensor, "..."] | float = 1.0,
    mask: Bool[Tensor, "*#batch N"] | None = None,
) -> Float[Tensor, "*batch N"]:
    r"""The nearest weights to y with lower <= w <= upper and sum w = budget.

    $w_i = \min(\max(y_i - \tau, l_i), u_i)$, with $\tau$ such that they add up: found by a bracketed Newton iteration
    in float64, then computed exactly from the assets strictly inside their bounds, F. So with g the gradient of w, that
    of y is $g_i - \bar g_F$ on F and zero elsewhere, that of the budget $\bar g_F$, and that of a bound that holds an
    asset $g_i - \bar g_F$.

    Args:
        y: what to project, such as scores; NaN where masked is fine.
        lower: broadcasts against y; minus infinity for none.
        upper: broadcasts against y; infinity for none.
        budget: broadcasts against y's batch.
        mask: True for assets of the universe; the weight of others is 0. A row without any keeps zeros.

    Returns:
        Weights; what they add up to differs from the budget by less than 1e-12 in float64.

    Raises:
        ValueError: bounds cross, or a row's bounds cannot add up to the budget.

    References:
        Wang and Lu (2015), Projection onto the capped simplex, arXiv 1503.01002.

    Example:
        >>> project_capped_simplex(torch.tensor([0.9, 0.5, 0.1]), upper=0.5)
        tensor([0.5000, 0.4500, 0.0500])
    """
    z = y.double() if mask is None else torch.where(mask, y, 0.0).double()
    low, high = (_bound(bound, z, mask) for bound in (lower, upper))
    total = torch.as_tensor(budget, dtype=torch.float64, device=y.device).expand(y.shape[:-1])
    return to_budget(z, low, high, total).to(y.dtype)


def to_budget(
    y: Float[Tensor, "*batch N"],
    lower: Float[Tensor, "*batch N"],
    upper: Float[Tensor, "*batch N"],
    budget: Float[Tensor, "*batch"],
) -> Float[Tensor, "*batch N"]:
    """The same on float64 tensors of full shape, where fixed assets have equal bounds."""
    tau = threshold(y, lower, upper, budget)
    centred = y - tau.unsqueeze(-1)
    at_upper, at_lower = centred >= upper, centred <= lower
    free = ~torch.logical_or(at_upper, at_lower)
    base = torch.where(free, centred, torch.where(at_upper, upper, lower))
    rest = (base.sum(-1) - budget) / free.sum(-1).clamp(min=1)  # zero but for rounding; its gradient is what counts
    return torch.where(free, base - rest.unsqueeze(-1), base)


def threshold(
    y: Float[Tensor, "*batch N"],
    lower: Float[Tensor, "*batch N"],
    upper: Float[Tensor, "*batch N"],
    budget: Float[Tensor, "*batch"],
) -> Float[Tensor, "*batch"]:
    """The tau of the projection, without gradient."""
    flat = (x.detach().reshape(-1, y.shape[-1]) for x in (y, lower, upper))
    return _threshold(*flat, budget.detach().reshape(-1)).reshape(y.shape[:-1])


def _bound(bound: Tensor | float, like: Tensor, mask: Tensor | None) -> Tensor:
    full = torch.as_tensor(bound, dtype=torch.float64, device=like.device).expand(like.shape)
    return full if mask is None else torch.where(mask, full, 0.0)


def _solve(y: Tensor, lower: Tensor, upper: Tensor, budget: Tensor) -> Tensor:
    check_bounds(lower, upper)
    check_budget(lower, upper, budget)
    if not y.isfinite().all():
        row, asset = (~y.isfinite()).nonzero()[0].tolist()
        raise RowError(f"the score is {y[row, asset].item()}: mask it or mend the model.", row, asset)
    if not y.numel():
        return y.new_zeros(len(y))
    # No weight exceeds this in size, so that it may stand for an infinite bound.
    finite = (torch.where(bound.isinf(), 0.0, bound.abs()).sum(-1) for bound in (lower, upper))
    far = (2 * y.abs().amax(-1) + budget.abs() + sum(finite)).unsqueeze(-1)
    lower, upper = torch.maximum(lower, -far), torch.minimum(upper, far)
    low = (y - upper).amin(-1)
    high = torch.where((lower < upper).any(-1), (y - lower).amax(-1), low)  # a row without choice is done at once
    tau = ((y.sum(-1) - budget) / y.shape[-1]).clamp(low, high)
    tolerance = 1e-15 * (1 + budget.abs() + y.abs().amax(-1))
    for step in range(_STEPS):
        at = y - tau.unsqueeze(-1)
        excess = at.clamp(lower, upper).sum(-1) - budget
        free = torch.logical_and(at > lower, at < upper).sum(-1)
        low = torch.where(excess >= 0, tau, low)
        high = torch.where(excess <= 0, tau, high)
        newton = tau + excess / free  # infinite or NaN where none is free
        middle = (low + high) / 2
        inside = torch.logical_and(newton >= low, newton <= high)
        following = torch.where(inside, newton, middle) if step % 4 < 3 else torch.where(excess == 0, tau, middle)
        if bool(torch.logical_or((following - tau).abs() <= tolerance, high - low <= tolerance).all()):
            break
        tau = following
    return tau


_threshold = operator(
    "capped_simplex_threshold",
    "(Tensor y, Tensor lower, Tensor upper, Tensor budget) -> Tensor",
    _solve,
    lambda y, lower, upper, budget: y.new_empty(y.shape[0]),
)
