"""Quadratic programs over weights in which what is traded has a price."""

import torch
from jaxtyping import Float
from torch import Tensor

from qtorch.portfolio.feasibility import RowError
from qtorch.portfolio.operators import operator
from qtorch.portfolio.quadratic import minimise_quadratic

_ROUNDS = 100
_EDGE = 1e-9  # of a weight: nearer than that it stands at the bound
_TOLERANCE = 1e-8  # of the gain of a trade, in units of the largest gradient


def minimise_with_trades(
    matrix: Float[Tensor, "B N N"],
    linear: Float[Tensor, "B N"],
    lower: Float[Tensor, "B N"],
    upper: Float[Tensor, "B N"],
    budget: Float[Tensor, " B"],
    held: Float[Tensor, "B N"],
    price: Float[Tensor, " B"],
) -> Float[Tensor, "B N"]:
    r"""The w that minimises $\frac12 w^T Q w + c^T w + p \sum_i |w_i - h_i|$; all else as of `minimise_quadratic`.

    Each asset is let go up only, or down only, from what is held, which makes the price linear; assets that stay where
    they are though they had rather move the other way change sides, until nobody does. Each round lowers the objective,
    so that there are finitely many. The gradient is that of the last program, and exact.

    Args:
        matrix: Q, symmetric and positive definite.
        linear: c.
        lower: of each weight, finite.
        upper: of each weight, finite.
        budget: of each row.
        held: h; beyond a bound, the trade to the bound has to be made anyway.
        price: p of each row, at least 0.

    Returns:
        Weights, float64; those that are not traded are exactly what is held.

    Raises:
        ValueError: as of `minimise_quadratic`.
    """
    Q, c, low, high, total, h, p = (x.double() for x in (matrix, linear, lower, upper, budget, held, price))
    start = torch.minimum(torch.maximum(h, low), high)
    side = _sides(*(x.detach() for x in (Q, c, low, high, total, start, p)))
    return minimise_quadratic(*_one_sided(side, Q, c, low, high, total, start, p))


def _one_sided(
    side: Tensor, Q: Tensor, c: Tensor, low: Tensor, high: Tensor, budget: Tensor, start: Tensor, price: Tensor
) -> tuple[Tensor, ...]:
    up = side > 0
    return Q, c + side * price.unsqueeze(-1), torch.where(up, start, low), torch.where(up, high, start), budget


def _solve(
    Q: Tensor, c: Tensor, low: Tensor, high: Tensor, budget: Tensor, start: Tensor, price: Tensor
) -> Float[Tensor, "B N"]:
    """Which way each asset may go: 1 up, -1 down."""
    side = torch.where(minimise_quadratic(Q, c, low, high, budget) >= start, 1.0, -1.0).to(c.dtype)
    todo = torch.arange(len(c), device=c.device)
    for _ in range(_ROUNDS):
        q, linear, lowest, highest, total, at, p = (x[todo] for x in (Q, c, low, high, budget, start, price))
        w = minimise_quadratic(*_one_sided(side[todo], q, linear, lowest, highest, total, at, p))
        g = (q @ w.unsqueeze(-1)).squeeze(-1) + linear
        # What a unit more costs, and what a unit less saves.
        more = torch.where(w >= at - _EDGE, g + p.unsqueeze(-1), g - p.unsqueeze(-1))
        less = torch.where(w <= at + _EDGE, g - p.unsqueeze(-1), g + p.unsqueeze(-1))
        more = torch.where(w >= highest - _EDGE, torch.inf, more)
        less = torch.where(w <= lowest + _EDGE, -torch.inf, less)
        cheapest, dearest = more.amin(-1, keepdim=True), less.amax(-1, keepdim=True)
        gains = (dearest - cheapest > _TOLERANCE * (g.abs().amax(-1, keepdim=True) + 1e-300)).squeeze(-1)
        if not gains.any():
            return side
        between = (cheapest + dearest) / 2
        rests = (w - at).abs() <= _EDGE
        changes = rests & torch.where(side[todo] > 0, less > between, more < between) & gains.unsqueeze(-1)
        side[todo] = torch.where(changes, -side[todo], side[todo])
        todo = todo[gains]
    raise RowError(
        f"no minimum was found in {_ROUNDS} rounds; the matrix is close to singular. Shrink the covariance.",
        int(todo[0]),
    )


_sides = operator(
    "quadratic_trade_sides",
    "(Tensor Q, Tensor c, Tensor low, Tensor high, Tensor budget, Tensor start, Tensor price) -> Tensor",
    _solve,
    lambda Q, c, low, high, budget, start, price: torch.empty_like(c),
)
