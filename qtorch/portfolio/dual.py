"""The prices (multipliers) at which the assets' own best weights meet the constraints that bind all of them."""

from typing import NamedTuple

import torch
from torch import Tensor

from qtorch.portfolio.feasibility import RowError, check_bounds, check_budget, check_limits
from qtorch.portfolio.operators import operator
from qtorch.portfolio.proximal import Response, respond

_STEPS = 300  # a dozen are usual; the most seen was 92, of 500 assets of which few are chosen
_LEAST_DAMPING = 1e-9
_TOLERANCE = 1e-12  # of the constraints, times the size of what is projected
_REFUSED = 1e-9  # a constraint missed by more after all steps is an error


def sums(weights: Tensor, holdings: Tensor, rows: Tensor) -> Tensor:
    """What the constraints limit, `[B R + 2]`: the rows' sums, the gross exposure and the turnover."""
    linear = (rows @ weights.unsqueeze(-1)).squeeze(-1)
    both = weights.abs().sum(-1, keepdim=True), (weights - holdings).abs().sum(-1, keepdim=True)
    return torch.cat((linear, *both), -1)


def coefficients(response: Response, rows: Tensor) -> Tensor:
    """Slopes of `sums` in the free weights, `[B R + 2 N]`; zero at the other assets."""
    all_rows = torch.cat((rows, response.side.unsqueeze(-2), response.trade.unsqueeze(-2)), -2)
    return torch.where(response.free.unsqueeze(-2), all_rows, 0.0)


def at_prices(y: Tensor, lower: Tensor, upper: Tensor, holdings: Tensor, rows: Tensor, prices: Tensor) -> Response:
    """The assets' response to prices `[B R + 2]`."""
    z = y - (prices[:, None, :-2] @ rows).squeeze(-2)
    return respond(z, lower, upper, holdings, prices[:, -2:-1], prices[:, -1:])


def _solve(
    y: Tensor,
    lower: Tensor,
    upper: Tensor,
    holdings: Tensor,
    rows: Tensor,
    bounds: Tensor,
    start: Tensor,
    equalities: int,
    names: list[str],
) -> Tensor:
    """Maximises the concave dual, which is piecewise quadratic, by a damped projected Newton method.

    With r the sums less their bounds (the gradient), A the slopes and H = A A', a step goes to
    max(prices + (H + damping I)^-1 r, 0), where prices at zero with r <= 0 stay. It is taken if the dual rises, and the
    damping then falls, so that the last steps are Newton's, which end on the right piece; else the damping grows, until
    the step is one of projected gradient ascent, which does rise.

    Returns:
        Prices `[B R + 2]`.
    """
    check_bounds(lower, upper)
    if equalities:
        check_budget(lower, upper, bounds[:, 0])
    check_limits(lower, upper, holdings, rows, bounds, equalities, names)
    _check_finite(y, holdings)
    prices = start.clone()
    size = 1 + y.abs().amax(-1) if y.numel() else y.new_ones(len(y))
    data: tuple[Tensor, ...] = (y, lower, upper, holdings, rows, bounds)
    state = _State(prices.clone(), *_dual(data, prices), torch.ones_like(size))
    going = torch.nonzero((lower < upper).any(-1)).squeeze(-1)
    data, state = tuple(x[going] for x in data), state.at(going)
    for _ in range(_STEPS):
        state = _step(data, state, equalities, _TOLERANCE * size[going])
        prices[going] = state.prices
        missed = _shortfalls(state.prices, state.excess, equalities).amax(-1) / size[going]
        left = torch.nonzero(missed > _TOLERANCE).squeeze(-1)
        if len(left) < len(going):
            going, data, state = going[left], tuple(x[left] for x in data), state.at(left)
        if not len(going):
            return prices
    missed = _shortfalls(state.prices, state.excess, equalities)
    wrong = torch.nonzero(missed.amax(-1) > _REFUSED * size[going])
    if len(wrong):
        row = int(wrong[0])
        which = int(missed[row].argmax())
        raise RowError(
            f"found no weights that meet all constraints together; the nearest miss {names[which]} by "
            f"{missed[row, which].item():.2g}: widen it or the other limits.",
            int(going[row]),
        )
    return prices


class _State(NamedTuple):
    """Of the search: prices, the assets' response to them, the dual's gradient and value, and the damping `[B]`."""

    prices: Tensor
    response: Response
    excess: Tensor
    value: Tensor
    damping: Tensor

    def at(self, rows: Tensor) -> "_State":
        response = Response(*(x[rows] for x in self.response))
        return _State(self.prices[rows], response, self.excess[rows], self.value[rows], self.damping[rows])


def _step(data: tuple[Tensor, ...], now: _State, equalities: int, tolerance: Tensor) -> _State:
    held = torch.logical_and(now.prices == 0, now.excess <= 0)
    held[:, :equalities] = False
    slopes = coefficients(now.response, data[4]).masked_fill(held.unsqueeze(-1), 0.0)
    damped = slopes @ slopes.mT + torch.diag_embed(torch.where(held, 1.0, now.damping.unsqueeze(-1)))
    rest = now.excess.masked_fill(held, 0.0).unsqueeze(-1)
    prices = now.prices + torch.cholesky_solve(rest, torch.linalg.cholesky(damped)).squeeze(-1)
    prices[:, equalities:].clamp_(min=0)
    response, excess, value = _dual(data, prices)
    change = prices - now.prices
    at_first, at_last = (now.excess * change).sum(-1), (excess * change).sum(-1)
    # The dual is concave: if its slope at the end still rises along the step, so has it.
    taken = torch.logical_or(at_last >= 0, value - now.value >= 1e-4 * at_first)
    taken = torch.logical_or(taken, _shortfalls(prices, excess, equalities).amax(-1) <= tolerance)
    # Less damping after a step that ends in a rise, more after one that went past the top.
    factor = torch.where(at_last > 0.3 * at_first, 0.03, torch.where(at_last > -0.05 * at_first, 0.3, 2.0))
    damping = (now.damping * torch.where(taken, factor, 5.0)).clamp(min=_LEAST_DAMPING)
    here = taken.unsqueeze(-1)
    return _State(
        torch.where(here, prices, now.prices),
        Response(*(torch.where(here, new, old) for new, old in zip(response, now.response, strict=True))),
        torch.where(here, excess, now.excess),
        torch.where(taken, value, now.value),
        damping,
    )


def _dual(data: tuple[Tensor, ...], prices: Tensor) -> tuple[Response, Tensor, Tensor]:
    """The response to prices, the gradient of the dual, and its value."""
    y, lower, upper, holdings, rows, bounds = data
    response = at_prices(y, lower, upper, holdings, rows, prices)
    excess = sums(response.weights, holdings, rows) - bounds
    excess = torch.where(bounds.isinf(), -1.0, excess)
    value = 0.5 * ((response.weights - y) ** 2).sum(-1) + (prices * excess).sum(-1)
    return response, excess, value


def _shortfalls(prices: Tensor, excess: Tensor, equalities: int) -> Tensor:
    """By how much each constraint is missed, or is met with room though it has a price."""
    missed = torch.where(prices > 0, excess.abs(), excess.clamp(min=0))
    return torch.cat((excess[:, :equalities].abs(), missed[:, equalities:]), -1)


def _check_finite(y: Tensor, holdings: Tensor) -> None:
    for what, x in (("score", y), ("holding", holdings)):
        if not x.isfinite().all():
            row, asset = (~x.isfinite()).nonzero()[0].tolist()
            raise RowError(f"the {what} is {x[row, asset].item()}: mask it or mend it.", row, asset)


prices_of = operator(
    "projection_prices",
    "(Tensor y, Tensor lower, Tensor upper, Tensor holdings, Tensor rows, Tensor bounds, Tensor start, int equalities, "
    "str[] names) -> Tensor",
    _solve,
    lambda y, lower, upper, holdings, rows, bounds, start, equalities, names: bounds.new_empty(bounds.shape),
)
