"""Quadratic programs over weights between bounds that add up to a budget."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qtorch.portfolio.capped_simplex import threshold
from qtorch.portfolio.feasibility import RowError, check_bounds, check_budget
from qtorch.portfolio.operators import operator

_BLOCKS, _STEPS, _PIVOTS = 200, 50, 20
_TOLERANCE = 1e-10  # of the gradient's wrong signs, in units of the largest gradient


def minimise_quadratic(
    matrix: Float[Tensor, "B N N"],
    linear: Float[Tensor, "B N"],
    lower: Float[Tensor, "B N"],
    upper: Float[Tensor, "B N"],
    budget: Float[Tensor, " B"],
) -> Float[Tensor, "B N"]:
    r"""The w that minimises $\frac12 w^T Q w + c^T w$ with lower <= w <= upper and sum w = budget.

    In float64. Which assets stand at a bound is found by exact solutions on the free assets with exchanges of those
    that stand wrong (Hintermüller, Ito and Kunisch 2002), until the conditions of optimality hold; where they do not
    within a few exchanges, from where accelerated projected gradients lead (Beck and Teboulle 2009). Then

    $$ \begin{pmatrix} Q_{FF} & 1 \\ 1^T & 0 \end{pmatrix} \begin{pmatrix} w_F \\ \tau \end{pmatrix} =
       \begin{pmatrix} -c_F - Q_{FA} w_A \\ b - 1^T w_A \end{pmatrix} $$

    on the free assets F is solved once more, and differentiating that solution gives the exact gradient in all
    arguments.

    Args:
        matrix: Q, symmetric and positive definite.
        linear: c.
        lower: of each weight, finite; equal to `upper` where a weight is fixed.
        upper: of each weight, finite.
        budget: of each row.

    Returns:
        Weights, float64.

    Raises:
        ValueError: bounds cross or cannot add up to the budget, or a matrix is not positive definite or not finite.

    References:
        Beck and Teboulle (2009), A fast iterative shrinkage-thresholding algorithm for linear inverse problems, SIAM
        Journal on Imaging Sciences 2.
        Hintermüller, Ito and Kunisch (2002), The primal-dual active set strategy as a semismooth Newton method, SIAM
        Journal on Optimization 13.
    """
    Q, c, low, high, total = (x.double() for x in (matrix, linear, lower, upper, budget))
    side = _active(*(x.detach() for x in (Q, c, low, high, total)))
    free = side == 0
    fixed = torch.where(side > 0, high, low)
    return _on_free(Q, c, fixed, free, total)[0]


def _on_free(
    Q: Tensor, c: Tensor, fixed: Tensor, free: Tensor, budget: Tensor
) -> tuple[Float[Tensor, "B N"], Float[Tensor, " B"]]:
    """The minimum with the other assets fixed, within no bounds, and the price of the budget."""
    B, N = c.shape
    w_A = torch.where(free, 0.0, fixed)
    scale = Q.detach().diagonal(dim1=-2, dim2=-1).mean(-1)  # keeps the system's entries of one size
    m = free.to(Q.dtype)
    K = Q.new_zeros(B, N + 1, N + 1)
    K[:, :N, :N] = torch.where(free.unsqueeze(-1) & free.unsqueeze(-2), Q / scale[:, None, None], 0.0)
    K[:, :N, :N] += torch.diag_embed(1 - m)
    K[:, :N, N] = K[:, N, :N] = m
    nobody = ~free.any(-1)
    K[:, N, N] = nobody.to(Q.dtype)
    right = torch.where(free, -(c + (Q @ w_A.unsqueeze(-1)).squeeze(-1)) / scale.unsqueeze(-1), 0.0)
    rest = torch.where(nobody, 0.0, budget - w_A.sum(-1))
    solution = torch.linalg.solve(K, torch.cat((right, rest.unsqueeze(-1)), -1))
    return torch.where(free, solution[:, :N], w_A), solution[:, N] * scale


def _solve(Q: Tensor, c: Tensor, low: Tensor, high: Tensor, budget: Tensor) -> Tensor:
    """Where each asset stands: -1 at its lower bound, 1 at its upper, 0 between."""
    check_bounds(low, high)
    check_budget(low, high, budget)
    _check_matrix(Q)
    side = torch.zeros(c.shape, dtype=torch.int8, device=c.device)
    todo = torch.arange(len(c), device=c.device)
    w = (low + high) / 2
    w = (w - threshold(w, low, high, budget).unsqueeze(-1)).clamp(low, high)
    for _ in range(_BLOCKS):
        part = [x[todo] for x in (Q, c, low, high, budget)]
        found, done = _pivot(w, *part)
        side[todo[done]] = found[done]
        todo = todo[~done]
        if not len(todo):
            return side
        w = _descend(w[~done], *(x[~done] for x in part))
    raise RowError("no minimum was found; the matrix is close to singular. Shrink the covariance.", int(todo[0]))


_active = operator(
    "quadratic_active",
    "(Tensor Q, Tensor c, Tensor low, Tensor high, Tensor budget) -> Tensor",
    _solve,
    lambda Q, c, low, high, budget: c.new_empty(c.shape, dtype=torch.int8),
)


def _check_matrix(Q: Tensor) -> None:
    finite = Q.isfinite().flatten(1).all(-1)
    definite = finite.clone()
    definite[finite] = torch.linalg.cholesky_ex(Q[finite])[1] == 0
    if not definite.all():
        row = int((~definite).nonzero()[0])
        what = "positive definite" if finite[row] else "finite"
        raise RowError(f"the matrix is not {what}; shrink the covariance, and mask what has no history.", row)


def _descend(w: Tensor, Q: Tensor, c: Tensor, low: Tensor, high: Tensor, budget: Tensor) -> Tensor:
    """Accelerated projected gradient steps, started anew where they turn uphill."""
    size = torch.linalg.matrix_norm(Q, float("inf")).unsqueeze(-1)  # no less than the largest eigenvalue
    at, momentum = w, torch.ones_like(size)
    for _ in range(_STEPS):
        g = (Q @ at.unsqueeze(-1)).squeeze(-1) + c
        step = at - g / size
        new = (step - threshold(step, low, high, budget).unsqueeze(-1)).clamp(low, high)
        uphill = ((at - new) * (new - w)).sum(-1, keepdim=True) > 0
        momentum = torch.where(uphill, 1.0, momentum)
        following = (1 + torch.sqrt(1 + 4 * momentum * momentum)) / 2
        at = new + torch.where(uphill, 0.0, (momentum - 1) / following) * (new - w)
        w, momentum = new, following
    return w


def _pivot(
    w: Tensor, Q: Tensor, c: Tensor, low: Tensor, high: Tensor, budget: Tensor
) -> tuple[Tensor, Bool[Tensor, " B"]]:
    """Sides by exact solutions on the free assets, and whether the conditions of optimality hold."""
    fixed = low == high
    g = (Q @ w.unsqueeze(-1)).squeeze(-1) + c
    edge = 1e-9 * (1 + high - low)
    side = torch.where(w <= low + edge, -1, torch.where(w >= high - edge, 1, 0)).to(torch.int8)
    best, done = side, torch.zeros(len(c), dtype=torch.bool, device=c.device)
    for _ in range(_PIVOTS):
        side = torch.where(fixed, -1, side).to(torch.int8)
        x, price = _on_free(Q, c, torch.where(side > 0, high, low), side == 0, budget)
        g = (Q @ x.unsqueeze(-1)).squeeze(-1) + c
        nobody = ~(side == 0).any(-1)
        pull = g + price.unsqueeze(-1)
        # Without a free asset any price between those at which one would move will do.
        up = torch.where((side < 0) & ~fixed, g, torch.inf).amin(-1)
        down = torch.where((side > 0) & ~fixed, g, -torch.inf).amax(-1)
        between = torch.where(up.isinf(), down, torch.where(down.isinf(), up, (up + down) / 2))
        pull = torch.where(nobody.unsqueeze(-1), g - torch.where(between.isinf(), 0.0, between).unsqueeze(-1), pull)
        slack = _TOLERANCE * (g.abs().amax(-1, keepdim=True) + 1e-300)
        out_low, out_high = x < low - 1e-12, x > high + 1e-12
        leaves = ((side < 0) & (pull < -slack)) | ((side > 0) & (pull > slack))
        leaves &= ~fixed
        right_sum = ((x.sum(-1) - budget).abs() <= 1e-9 * (1 + budget.abs())) | fixed.all(-1)
        good = ~(((side == 0) & (out_low | out_high)) | leaves).any(-1) & right_sum
        new = good & ~done
        best = torch.where(new.unsqueeze(-1), side, best)
        done |= good
        if done.all():
            break
        moved = torch.where((side == 0) & out_low, -1, torch.where((side == 0) & out_high, 1, side))
        moved = torch.where(leaves, 0, moved).to(torch.int8)
        side = torch.where(good.unsqueeze(-1), side, moved)
    return best, done
