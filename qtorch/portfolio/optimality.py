"""A convex loss of scenarios over a polyhedron of weights, and the conditions of its least value."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float64, Shaped
from torch import Tensor


class Problem(NamedTuple):
    r"""What is minimised over the parts x, with w = base + sum of the parts, R = X w, p the price and z the size.

    $p^T x - m \bar R + \frac{c}{2} V[R] + \mathrm{CVaR}[R] - \overline{\log(1 + z R)} / z$,

    the last two where they are asked for.

    Attributes:
        X: scenarios over their size, `[B S N]`.
        base: `[B N]`.
        lower: of the parts, `[B J N]`, minus infinity for none; equal to `upper` where a part is fixed at 0.
        upper: likewise.
        price: linear, `[B J N]`.
        rows: of linear constraints `[B R J N]`, the first of which are equalities, the others upper bounds.
        right: their right sides `[B R]`, infinity for none.
        curvature: c, `[B]`.
        size: `[B]`, of the returns before they were divided by it.
        mean: m.
        tail: left-tail mass of the CVaR; 0 for none of it.
        growth: whether the log is there.
        equalities: how many rows are.
    """

    X: Tensor
    base: Tensor
    lower: Tensor
    upper: Tensor
    price: Tensor
    rows: Tensor
    right: Tensor
    curvature: Tensor
    size: Tensor
    mean: float
    tail: float
    growth: bool
    equalities: int

    def at(self, rows: Tensor) -> "Problem":
        """Some rows of the batch."""
        return self._map(lambda part: part[rows])

    def detached(self) -> "Problem":
        """Without gradient."""
        return self._map(Tensor.detach)

    def _map(self, function: Callable[[Tensor], Tensor]) -> "Problem":
        parts: dict[str, Any] = {
            name: function(part) if isinstance(part, Tensor) else part for name, part in self._asdict().items()
        }
        return Problem(**parts)


class Point(NamedTuple):
    """An iterate: everything positive but x and v.

    Attributes:
        x: parts `[B J N]`.
        v: the threshold of the CVaR `[B 1]`.
        s: slack of each scenario `[B S]`: above the threshold, or the wealth over the size.
        u: loss beyond the threshold `[B S]`.
        y: price of s `[B S]`; of the CVaR the price of u is the scenario's whole weight less y.
        prices: of the rows `[B R]`.
        slack: of the rows `[B R]`.
        low: prices of the lower bounds `[B J N]`.
        high: prices of the upper bounds `[B J N]`.
    """

    x: Tensor
    v: Tensor
    s: Tensor
    u: Tensor
    y: Tensor
    prices: Tensor
    slack: Tensor
    low: Tensor
    high: Tensor


class Pairs(NamedTuple):
    """Products of slacks and prices, or what they are to be: of bounds `[B J N]`, scenarios `[B S]`, rows `[B R]`."""

    low: Tensor
    high: Tensor
    s: Tensor
    u: Tensor
    rows: Tensor


class Flags(NamedTuple):
    """Which parts are free, have bounds, and which rows bind anything."""

    free: Tensor
    low: Tensor
    high: Tensor
    rows: Tensor
    limits: Tensor
    hinges: Tensor


def flags_of(problem: Problem) -> Flags:
    """Of a problem: a part between equal bounds is not free, and a row of zeros or without limit binds nothing."""
    free = problem.lower < problem.upper
    any_row = torch.logical_and((problem.rows != 0).flatten(2).any(-1), problem.right.isfinite())
    limits = torch.logical_and(any_row, torch.arange(any_row.shape[1], device=any_row.device) >= problem.equalities)
    hinges = torch.full((len(free), problem.X.shape[1]), bool(problem.tail), device=free.device)
    return Flags(
        free,
        torch.logical_and(free, problem.lower.isfinite()),
        torch.logical_and(free, problem.upper.isfinite()),
        any_row,
        limits,
        hinges,
    )


def goal_at(problem: Problem, flags: Flags, gap: Float64[Tensor, " B"]) -> Pairs:
    """Products on the central path at a gap."""
    mu = gap / count(flags)
    low, high, rows = (torch.where(flag, per_row(mu, flag), 0.0) for flag in (flags.low, flags.high, flags.limits))
    u = torch.where(flags.hinges, mu.unsqueeze(-1), 0.0)
    s = u
    if problem.growth:
        s = (1 / (problem.size * problem.X.shape[1])).detach().unsqueeze(-1).expand_as(u)
    return Pairs(low, high, s, u, rows)


def products_of(problem: Problem, point: Point, flags: Flags) -> Pairs:
    """Slacks times their prices."""
    below, above = slacks_of(problem, point, flags)
    u = (whole(problem) - point.y) * point.u if problem.tail else torch.zeros_like(point.u)
    rows = torch.where(flags.limits, point.prices * point.slack, 0.0)
    return Pairs(point.low * below, point.high * above, point.s * point.y, u, rows)


def residuals_of(problem: Problem, point: Point, flags: Flags) -> Point:
    """By how much the conditions of optimality are missed, in the places of what they determine: x, v, s and prices."""
    X = problem.X
    w = problem.base + point.x.sum(1)
    R = (X @ w.unsqueeze(-1)).squeeze(-1)
    mean = X.mean(1)
    slope = -problem.mean * mean
    centred = (R - R.mean(-1, keepdim=True)) / max(X.shape[1] - 1, 1)
    slope = slope + problem.curvature.unsqueeze(-1) * (X.mT @ centred.unsqueeze(-1)).squeeze(-1)
    s, v = torch.zeros_like(point.s), torch.zeros_like(point.v)
    if problem.tail or problem.growth:
        slope = slope - (X.mT @ point.y.unsqueeze(-1)).squeeze(-1)
        s = point.s - point.u - R - (point.v if problem.tail else 1 / problem.size.unsqueeze(-1))
    if problem.tail:
        v = 1 - point.y.sum(-1, keepdim=True)
    x = slope.unsqueeze(1) + problem.price - point.low + point.high
    x = x + (problem.rows * point.prices[:, :, None, None]).sum(1)
    rows = (problem.rows * point.x.unsqueeze(1)).sum((2, 3)) - torch.where(flags.rows, problem.right, 0.0)
    rows = torch.where(flags.rows, rows + torch.where(flags.limits, point.slack, 0.0), 0.0)
    zero = torch.zeros_like
    return Point(
        torch.where(flags.free, x, 0.0),
        v,
        s,
        zero(s),
        zero(s),
        rows,
        zero(rows),
        zero(x),
        zero(x),
    )


def slacks_of(
    problem: Problem, point: Point, flags: Flags
) -> tuple[Float64[Tensor, "B J N"], Float64[Tensor, "B J N"]]:
    """Of the bounds; 1 where there is none, where its price is 0."""
    below = torch.where(flags.low, point.x - torch.where(flags.low, problem.lower, 0.0), 1.0)
    above = torch.where(flags.high, torch.where(flags.high, problem.upper, 0.0) - point.x, 1.0)
    return below, above


def whole(problem: Problem) -> float:
    """The weight of a scenario beyond the threshold."""
    return 1 / (problem.tail * problem.X.shape[1])


def count(flags: Flags) -> Float64[Tensor, " B"]:
    """Of the products that add up to the gap, at least 1."""
    each = (flags.low.flatten(1), flags.high.flatten(1), flags.limits, flags.hinges, flags.hinges)
    return torch.cat(each, -1).sum(-1).clamp(min=1).double()


def per_row(mu: Shaped[Tensor, " B"], like: Shaped[Tensor, "B *rest"]) -> Shaped[Tensor, "B *ones"]:
    """A number of each row of the batch, with the axes of another tensor."""
    return mu.reshape(-1, *(1,) * (like.ndim - 1))
