"""A batched interior-point method for convex losses of scenarios over polyhedra of weights."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from qtorch.portfolio.operators import operator

_STEPS = 100  # 15 to 35 are usual
_SHORT = 0.995  # of the way to the boundary
_CENTRED = 1e-3  # by which products may differ from the gap that is asked for, relatively
_FEASIBLE = 1e-9  # of the residuals, in the units of a problem whose scenarios are of size 1
_REFUSED = 1e-6  # a residual or gap above it after all steps is an error
_TINY = 1e-14  # curvature of parts that nothing bounds


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


class _Pairs(NamedTuple):
    """Products of slacks and prices, or what they are to be: of bounds `[B J N]`, scenarios `[B S]`, rows `[B R]`."""

    low: Tensor
    high: Tensor
    s: Tensor
    u: Tensor
    rows: Tensor


class _Flags(NamedTuple):
    """Which parts are free, have bounds, and which rows bind anything."""

    free: Tensor
    low: Tensor
    high: Tensor
    rows: Tensor
    limits: Tensor
    hinges: Tensor


def central_parts(problem: Problem, gap: Float64[Tensor, " B"]) -> Float64[Tensor, "B J N"]:
    """The parts at which the loss is above its least by at most `gap`, on the central path.

    They depend smoothly on everything in the problem. The path is followed without gradient; one Newton step from its
    end, which moves nothing but rounding, then has the gradient of the implicit function.

    A scenario's term of the CVaR is a pair of slacks whose prices add up to a constant, and one of the log a slack
    whose product with its price is one over the number of scenarios: so both are rows of an interior-point method, and
    a step is a system of the size of the weights and rows alone, whatever the numbers of scenarios and parts.

    Raises:
        ValueError: no minimum was found: the loss has none, or the constraints leave no room.

    References:
        Mehrotra (1992), On the implementation of a primal-dual interior point method, SIAM Journal on Optimization 2;
        Rockafellar and Uryasev (2000), Optimization of conditional value-at-risk, Journal of Risk 2.
    """
    still = problem.detached()
    point = _unpacked(_follow(*still[:9], gap.detach(), *still[9:]), problem)
    flags = _flags(still)
    goal = _goal(still, flags, gap.detach())
    system = _System.of(still, point, flags)
    return point.x + system.direction(problem, point, flags, goal).x


class _System(NamedTuple):
    """A factorised Newton system and what is eliminated from it.

    The parts of a weight answer to its own pull through `share`, their curvature's inverse over its sum, and to each
    other through `between`, which is 1 / (d_j d_k sum 1/d) with d the curvature of their bounds: so nothing is divided
    by a curvature that vanishes.
    """

    lu: Tensor
    pivots: Tensor
    scale: Tensor
    D: Tensor
    share: Tensor
    between: Tensor

    @staticmethod
    def of(problem: Problem, point: Point, flags: _Flags) -> "_System":
        X, B, N = problem.X, len(problem.X), problem.X.shape[2]
        below, above = _slacks(problem, point, flags)
        d = (point.low / below + point.high / above).clamp(min=_TINY)
        inverse = torch.where(flags.free, 1 / d, 0.0)
        total = inverse.sum(1)
        some = flags.free.any(1)
        share = torch.where(some.unsqueeze(1), inverse / total.clamp(min=1e-300).unsqueeze(1), 0.0)
        between = inverse.unsqueeze(2) * share.unsqueeze(1)
        R = problem.right.shape[1]
        M = X.new_zeros(B, N + 1 + R, N + 1 + R)
        D = torch.zeros_like(point.y)
        H = problem.curvature[:, None, None] * _covariance(X)
        if problem.tail:
            D = 1 / (point.s / point.y + point.u / (_whole(problem) - point.y))
            M[:, N, N] = D.sum(-1)
            M[:, :N, N] = M[:, N, :N] = torch.where(some, (X.mT @ D.unsqueeze(-1)).squeeze(-1), 0.0)
        else:
            M[:, N, N] = 1.0
        if problem.growth:
            D = point.y / point.s
        if problem.tail or problem.growth:
            H = H + X.mT @ (D.unsqueeze(-1) * X)
        H = torch.where(some.unsqueeze(-1) & some.unsqueeze(-2), H, 0.0)
        M[:, :N, :N] = H + torch.diag_embed(torch.where(some, 1 / total.clamp(min=1e-300), 1.0))
        mean_rows = (problem.rows * share.unsqueeze(1)).sum(2)
        M[:, N + 1 :, :N], M[:, :N, N + 1 :] = mean_rows, mean_rows.mT
        corner = torch.diag_embed(
            torch.where(flags.limits, point.slack / point.prices, torch.where(flags.rows, 0.0, 1.0))
        )
        for j in range(problem.lower.shape[1]):
            for k in range(j):
                gap = problem.rows[:, :, j] - problem.rows[:, :, k]
                corner = corner + (gap * between[:, None, j, k]) @ gap.mT
        M[:, N + 1 :, N + 1 :] = -corner
        size = M.diagonal(dim1=-2, dim2=-1).abs()
        scale = torch.where(size > 0, size.clamp(min=1e-30).rsqrt(), 1.0)
        lu, pivots, _ = torch.linalg.lu_factor_ex(scale.unsqueeze(-1) * M * scale.unsqueeze(-2))
        return _System(lu, pivots, scale, D, share, between)

    def direction(self, problem: Problem, point: Point, flags: _Flags, goal: _Pairs) -> Point:
        """To where the products are the goal, by Newton's linearisation; differentiable in the problem."""
        X, N = problem.X, problem.X.shape[-1]
        below, above = _slacks(problem, point, flags)
        left = _residuals(problem, point, flags)
        pull = -left.x + (goal.low / below - point.low) - (goal.high / above - point.high)
        pull = torch.where(flags.free, pull, 0.0)
        right_w = (self.share * pull).sum(1)
        right_v = -left.v
        E = torch.zeros_like(point.y)
        if problem.tail or problem.growth:
            E = goal.s / point.y - point.s + left.s
            if problem.tail:
                E = E - (goal.u / (_whole(problem) - point.y) - point.u)
                right_v = right_v + (self.D * E).sum(-1, keepdim=True)
            right_w = right_w + torch.where(flags.free.any(1), (X.mT @ (self.D * E).unsqueeze(-1)).squeeze(-1), 0.0)
        right_rows = torch.where(flags.limits, -left.prices - (goal.rows / point.prices - point.slack), -left.prices)
        J = problem.lower.shape[1]
        for j in range(J):
            for k in range(j):
                gap = problem.rows[:, :, j] - problem.rows[:, :, k]
                moved = self.between[:, j, k] * (pull[:, j] - pull[:, k])
                right_rows = right_rows - (gap @ moved.unsqueeze(-1)).squeeze(-1)
        right = self.scale * torch.cat((right_w, right_v, right_rows), -1)
        found = self.scale * torch.linalg.lu_solve(self.lu, self.pivots, right.unsqueeze(-1)).squeeze(-1)
        dw, dv, dprices = found[:, :N], found[:, N : N + 1], found[:, N + 1 :]
        net = pull - (problem.rows * dprices[:, :, None, None]).sum(1)
        spread = (self.between * (net.unsqueeze(2) - net.unsqueeze(1))).sum(2)
        dx = self.share * dw.unsqueeze(1) + spread
        dy, ds, du = (torch.zeros_like(point.y) for _ in range(3))
        if problem.tail or problem.growth:
            dy = self.D * (E - (X @ dw.unsqueeze(-1)).squeeze(-1) - (dv if problem.tail else 0.0))
            ds = goal.s / point.y - point.s - point.s / point.y * dy
        if problem.tail:
            q = _whole(problem) - point.y
            du = goal.u / q - point.u + point.u / q * dy
        dslack = torch.where(
            flags.limits, goal.rows / point.prices - point.slack - point.slack / point.prices * dprices, 0.0
        )
        dlow = goal.low / below - point.low - point.low / below * dx
        dhigh = goal.high / above - point.high + point.high / above * dx
        return Point(dx, dv, ds, du, dy, dprices, dslack, dlow, dhigh)


def _covariance(X: Tensor) -> Tensor:
    centred = X - X.mean(1, keepdim=True)
    return centred.mT @ centred / max(X.shape[1] - 1, 1)


def _whole(problem: Problem) -> float:
    """The weight of a scenario beyond the threshold."""
    return 1 / (problem.tail * problem.X.shape[1])


def _flags(problem: Problem) -> _Flags:
    free = problem.lower < problem.upper
    any_row = torch.logical_and((problem.rows != 0).flatten(2).any(-1), problem.right.isfinite())
    limits = torch.logical_and(any_row, torch.arange(any_row.shape[1], device=any_row.device) >= problem.equalities)
    hinges = torch.full((len(free), problem.X.shape[1]), bool(problem.tail), device=free.device)
    return _Flags(
        free,
        torch.logical_and(free, problem.lower.isfinite()),
        torch.logical_and(free, problem.upper.isfinite()),
        any_row,
        limits,
        hinges,
    )


def _goal(problem: Problem, flags: _Flags, gap: Tensor) -> _Pairs:
    """Products on the central path at a gap."""
    mu = gap / _count(flags)
    low, high, rows = (torch.where(flag, _per_row(mu, flag), 0.0) for flag in (flags.low, flags.high, flags.limits))
    u = torch.where(flags.hinges, mu.unsqueeze(-1), 0.0)
    s = u
    if problem.growth:
        s = (1 / (problem.size * problem.X.shape[1])).detach().unsqueeze(-1).expand_as(u)
    return _Pairs(low, high, s, u, rows)


def _count(flags: _Flags) -> Tensor:
    each = (flags.low.flatten(1), flags.high.flatten(1), flags.limits, flags.hinges, flags.hinges)
    return torch.cat(each, -1).sum(-1).clamp(min=1).double()


def _per_row(mu: Tensor, like: Tensor) -> Tensor:
    return mu.reshape(-1, *(1,) * (like.ndim - 1))


def _slacks(problem: Problem, point: Point, flags: _Flags) -> tuple[Tensor, Tensor]:
    """Of the bounds; 1 where there is none, where its price is 0."""
    below = torch.where(flags.low, point.x - torch.where(flags.low, problem.lower, 0.0), 1.0)
    above = torch.where(flags.high, torch.where(flags.high, problem.upper, 0.0) - point.x, 1.0)
    return below, above


def _residuals(problem: Problem, point: Point, flags: _Flags) -> Point:
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


def _products(problem: Problem, point: Point, flags: _Flags) -> _Pairs:
    below, above = _slacks(problem, point, flags)
    u = (_whole(problem) - point.y) * point.u if problem.tail else torch.zeros_like(point.u)
    rows = torch.where(flags.limits, point.prices * point.slack, 0.0)
    return _Pairs(point.low * below, point.high * above, point.s * point.y, u, rows)


def _start(problem: Problem, flags: _Flags) -> Point:
    """Near zero parts, inside all bounds; the rows and the scenarios' equations may be missed."""
    n = flags.free.any(1).sum(-1).clamp(min=1)
    far = 1 / n.double()
    reach = torch.minimum((problem.upper - problem.lower) / 2, _per_row(far, problem.lower))
    x = torch.zeros_like(problem.lower).maximum(problem.lower + reach).minimum(problem.upper - reach)
    x = torch.where(flags.free, x, 0.0)
    R = (problem.X @ (problem.base + x.sum(1)).unsqueeze(-1)).squeeze(-1)
    v = R.new_zeros(len(R), 1)
    s, u, y = torch.ones_like(R), torch.zeros_like(R), torch.zeros_like(R)
    if problem.tail:
        v = (-R).quantile(1 - problem.tail, dim=-1, keepdim=True)
        beyond = -R - v
        spread = beyond.abs().mean(-1, keepdim=True) + 1e-3
        u = beyond.clamp(min=0) + spread
        s, y = u - beyond, torch.full_like(R, 1 / R.shape[1])
    if problem.growth:
        whole = 1 / problem.size.unsqueeze(-1)
        s = torch.maximum(whole + R, 0.1 * whole)
        y = whole / (R.shape[1] * s)
    mu = 0.1 * far
    free_slack = torch.where(flags.rows, problem.right, 0.0) - (problem.rows * x.unsqueeze(1)).sum((2, 3))
    slack = torch.where(flags.limits, free_slack.clamp(min=0.1), 1.0)
    prices = torch.where(flags.limits, mu.unsqueeze(-1) / slack, 0.0)
    point = Point(x, v, s, u, y, prices, slack, torch.zeros_like(x), torch.zeros_like(x))
    below, above = _slacks(problem, point, flags)
    return point._replace(
        low=torch.where(flags.low, _per_row(mu, x) / below, 0.0),
        high=torch.where(flags.high, _per_row(mu, x) / above, 0.0),
    )


def _solve(
    X: Tensor,
    base: Tensor,
    lower: Tensor,
    upper: Tensor,
    price: Tensor,
    rows: Tensor,
    right: Tensor,
    curvature: Tensor,
    size: Tensor,
    gap: Tensor,
    mean: float,
    tail: float,
    growth: bool,
    equalities: int,
) -> Tensor:
    if not X.isfinite().all():
        row, _, asset = (~X.isfinite()).nonzero()[0].tolist()
        raise ValueError(f"row {row}, asset {asset}: a scenario is not finite: mask the asset or mend the forecast.")
    problem = Problem(X, base, lower, upper, price, rows, right, curvature, size, mean, tail, growth, equalities)
    flags = _flags(problem)
    point = _start(problem, flags)
    result = _packed(point)
    going = torch.arange(len(X), device=X.device)
    for _ in range(_STEPS):
        goal = _goal(problem, flags, gap)
        missed, gaps = _missed(problem, point, flags, goal)
        left = torch.nonzero(~((missed <= _FEASIBLE) & (gaps <= _CENTRED))).squeeze(-1)
        result[going] = _packed(point)
        if not len(left):
            return result
        if len(left) < len(going):
            going, gap, problem = going[left], gap[left], problem.at(left)
            point = Point(*(part[left] for part in point))
            flags = _Flags(*(part[left] for part in flags))
            goal = _Pairs(*(part[left] for part in goal))
        point = _step(problem, point, flags, goal)
    goal = _goal(problem, flags, gap)
    missed, _ = _missed(problem, point, flags, goal)
    products = _products(problem, point, flags)
    excess = torch.cat([(p - g).flatten(1) for p, g in zip(products, goal, strict=True)], -1).abs().sum(-1)
    wrong = ~(torch.maximum(missed, excess) <= _REFUSED)
    if wrong.any():
        row = int(wrong.nonzero()[0])
        raise ValueError(
            f"row {int(going[row])}: no best weights were found; after {_STEPS} steps the conditions are missed by "
            f"{float(missed[row]):.2g} and the gap is {float(excess[row]):.2g}. Bound the weights (lower, upper or "
            "gross), and widen limits that leave no room."
        )
    result[going] = _packed(point)
    return result


def _missed(problem: Problem, point: Point, flags: _Flags, goal: _Pairs) -> tuple[Tensor, Tensor]:
    """The largest residual, and by how much a product differs from its goal, relatively, `[B]`."""
    left = _residuals(problem, point, flags)
    missed = torch.cat([part.flatten(1) for part in (left.x, left.v, left.s, left.prices)], -1).abs().amax(-1)
    products = _products(problem, point, flags)
    relative = [
        torch.where(g > 0, (p / torch.where(g > 0, g, 1.0) - 1).abs(), 0.0).flatten(1)
        for p, g in zip(products, goal, strict=True)
    ]
    return missed, torch.cat(relative, -1).amax(-1)


def _step(problem: Problem, point: Point, flags: _Flags, final: _Pairs) -> Point:
    """Mehrotra's predictor and corrector, which never aims below the final products."""
    system = _System.of(problem, point, flags)
    none = _Pairs(*(torch.zeros_like(part) for part in final))
    if problem.growth:
        none = none._replace(s=final.s)
    ahead = system.direction(problem, point, flags, none)
    mu = _mean_product(_products(problem, point, flags), flags)
    after = _moved(point, ahead, _longest(problem, point, ahead, flags))
    then = _mean_product(_products(problem, after, flags), flags)
    aim = mu * (then / mu.clamp(min=1e-300)).clamp(0, 1) ** 3
    # The predictor goes to zero products; near the final ones its second order is not that of the step.
    far = mu > 3 * _mean_product(final, flags)

    def target(floor: Tensor, flag: Tensor, second: Tensor) -> Tensor:
        there = _per_row(far, floor)
        aimed = torch.where(there, torch.maximum(_per_row(aim, floor), floor) - second, floor)
        return torch.where(flag, aimed, 0.0)

    goal = _Pairs(
        target(final.low, flags.low, ahead.low * ahead.x),
        target(final.high, flags.high, -ahead.high * ahead.x),
        final.s if problem.growth else target(final.s, flags.hinges, ahead.s * ahead.y),
        target(final.u, flags.hinges, -ahead.u * ahead.y),
        target(final.rows, flags.limits, ahead.prices * ahead.slack),
    )
    change = system.direction(problem, point, flags, goal)
    return _moved(point, change, _longest(problem, point, change, flags))


def _mean_product(products: _Pairs, flags: _Flags) -> Tensor:
    s = torch.where(flags.hinges, products.s, 0.0)
    every = [part.flatten(1) for part in (products.low, products.high, s, products.u, products.rows)]
    return torch.cat(every, -1).sum(-1) / _count(flags)


def _longest(problem: Problem, point: Point, change: Point, flags: _Flags) -> Tensor:
    """How far along a change everything stays positive, at most 1."""
    below, above = _slacks(problem, point, flags)
    pairs = [
        (torch.where(flags.low, below, 1.0), torch.where(flags.low, change.x, 0.0)),
        (torch.where(flags.high, above, 1.0), torch.where(flags.high, -change.x, 0.0)),
        (torch.where(flags.low, point.low, 1.0), torch.where(flags.low, change.low, 0.0)),
        (torch.where(flags.high, point.high, 1.0), torch.where(flags.high, change.high, 0.0)),
        (torch.where(flags.limits, point.prices, 1.0), torch.where(flags.limits, change.prices, 0.0)),
        (torch.where(flags.limits, point.slack, 1.0), torch.where(flags.limits, change.slack, 0.0)),
    ]
    if problem.tail or problem.growth:
        pairs += [(point.s, change.s), (point.y, change.y)]
    if problem.tail:
        pairs += [(point.u, change.u), (_whole(problem) - point.y, -change.y)]
    room = [torch.where(move < 0, value / (-move).clamp(min=1e-300), torch.inf).flatten(1) for value, move in pairs]
    return (_SHORT * torch.cat(room, -1).amin(-1)).clamp(max=1.0)


def _moved(point: Point, change: Point, length: Tensor) -> Point:
    return Point(*(part + _per_row(length, part) * move for part, move in zip(point, change, strict=True)))


def _packed(point: Point) -> Tensor:
    return torch.cat([part.flatten(1) for part in point], -1)


def _shapes(problem_shapes: tuple[torch.Size, torch.Size, torch.Size]) -> list[tuple[int, ...]]:
    """Of the parts of a point without the batch, from the shapes of X, lower and right."""
    S, parts, R = problem_shapes[0][1], tuple(problem_shapes[1][1:]), problem_shapes[2][1]
    return [parts, (1,), (S,), (S,), (S,), (R,), (R,), parts, parts]


def _unpacked(packed: Tensor, problem: Problem) -> Point:
    shapes = _shapes((problem.X.shape, problem.lower.shape, problem.right.shape))
    sizes = [torch.Size(shape).numel() for shape in shapes]
    split = packed.split(sizes, -1)
    return Point(*(part.reshape(len(packed), *shape) for part, shape in zip(split, shapes, strict=True)))


_follow = operator(
    "central_path",
    "(Tensor X, Tensor base, Tensor lower, Tensor upper, Tensor price, Tensor rows, Tensor right, Tensor curvature, "
    "Tensor size, Tensor gap, float mean, float tail, bool growth, int equalities) -> Tensor",
    _solve,
    lambda X, base, lower, upper, price, rows, right, *rest: X.new_empty(
        len(X), sum(torch.Size(shape).numel() for shape in _shapes((X.shape, lower.shape, right.shape)))
    ),
)
