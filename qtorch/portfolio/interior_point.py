"""A batched interior-point method for convex losses of scenarios over polyhedra of weights."""

import torch
from jaxtyping import Float64
from torch import Tensor

from qtorch.portfolio.feasibility import RowError
from qtorch.portfolio.newton_system import NewtonSystem
from qtorch.portfolio.operators import operator
from qtorch.portfolio.optimality import (
    Flags,
    Pairs,
    Point,
    Problem,
    count,
    flags_of,
    goal_at,
    per_row,
    products_of,
    residuals_of,
    slacks_of,
    whole,
)

_STEPS = 100  # 15 to 35 are usual
_SHORT = 0.995  # of the way to the boundary
_CENTRED = 1e-3  # by which products may differ from the gap that is asked for, relatively
_FEASIBLE = 1e-9  # of the residuals, in the units of a problem whose scenarios are of size 1
_REFUSED = 1e-6  # a residual or gap above it after all steps is an error


def central_parts(problem: Problem, gap: Float64[Tensor, " B"]) -> Float64[Tensor, "B J N"]:
    """The parts at which the loss is above its least by at most `gap`, on the central path.

    They depend smoothly on everything in the problem. The path is followed without gradient; one Newton step from its
    end, which moves nothing but rounding, then has the gradient of the implicit function.

    A scenario's term of the CVaR is a pair of slacks whose prices add up to a constant, and one of the log a slack
    whose product with its price is one over the number of scenarios: so both are rows of an interior-point method, and
    a step is a system of the size of the weights and rows alone, whatever the numbers of scenarios and parts.

    Raises:
        RowError: no minimum was found: the loss has none, or the constraints leave no room.

    References:
        Mehrotra (1992), On the implementation of a primal-dual interior point method, SIAM Journal on Optimization 2;
        Rockafellar and Uryasev (2000), Optimization of conditional value-at-risk, Journal of Risk 2.
    """
    still = problem.detached()
    point = _unpacked(_follow(*still[:9], gap.detach(), *still[9:]), problem)
    flags = flags_of(still)
    goal = goal_at(still, flags, gap.detach())
    system = NewtonSystem.of(still, point, flags)
    return point.x + system.direction(problem, point, flags, goal).x


def _start(problem: Problem, flags: Flags) -> Point:
    """Near zero parts, inside all bounds; the rows and the scenarios' equations may be missed."""
    n = flags.free.any(1).sum(-1).clamp(min=1)
    far = 1 / n.double()
    reach = torch.minimum((problem.upper - problem.lower) / 2, per_row(far, problem.lower))
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
        unit = 1 / problem.size.unsqueeze(-1)
        s = torch.maximum(unit + R, 0.1 * unit)
        y = unit / (R.shape[1] * s)
    mu = 0.1 * far
    free_slack = torch.where(flags.rows, problem.right, 0.0) - (problem.rows * x.unsqueeze(1)).sum((2, 3))
    slack = torch.where(flags.limits, free_slack.clamp(min=0.1), 1.0)
    prices = torch.where(flags.limits, mu.unsqueeze(-1) / slack, 0.0)
    point = Point(x, v, s, u, y, prices, slack, torch.zeros_like(x), torch.zeros_like(x))
    below, above = slacks_of(problem, point, flags)
    return point._replace(
        low=torch.where(flags.low, per_row(mu, x) / below, 0.0),
        high=torch.where(flags.high, per_row(mu, x) / above, 0.0),
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
        raise RowError("a scenario is not finite: mask the asset or mend the forecast.", row, asset)
    problem = Problem(X, base, lower, upper, price, rows, right, curvature, size, mean, tail, growth, equalities)
    flags = flags_of(problem)
    point = _start(problem, flags)
    result = _packed(point)
    going = torch.arange(len(X), device=X.device)
    for _ in range(_STEPS):
        goal = goal_at(problem, flags, gap)
        missed, gaps = _missed(problem, point, flags, goal)
        left = torch.nonzero(~((missed <= _FEASIBLE) & (gaps <= _CENTRED))).squeeze(-1)
        result[going] = _packed(point)
        if not len(left):
            return result
        if len(left) < len(going):
            going, gap, problem = going[left], gap[left], problem.at(left)
            point = Point(*(part[left] for part in point))
            flags = Flags(*(part[left] for part in flags))
            goal = Pairs(*(part[left] for part in goal))
        point = _step(problem, point, flags, goal)
    goal = goal_at(problem, flags, gap)
    missed, _ = _missed(problem, point, flags, goal)
    products = products_of(problem, point, flags)
    excess = torch.cat([(p - g).flatten(1) for p, g in zip(products, goal, strict=True)], -1).abs().sum(-1)
    wrong = ~(torch.maximum(missed, excess) <= _REFUSED)
    if wrong.any():
        row = int(wrong.nonzero()[0])
        raise RowError(
            f"no best weights were found; after {_STEPS} steps the conditions are missed by {float(missed[row]):.2g} "
            f"and the gap is {float(excess[row]):.2g}. Bound the weights (lower, upper or gross), and widen limits "
            "that leave no room.",
            int(going[row]),
        )
    result[going] = _packed(point)
    return result


def _missed(problem: Problem, point: Point, flags: Flags, goal: Pairs) -> tuple[Tensor, Tensor]:
    """The largest residual, and by how much a product differs from its goal, relatively, `[B]`."""
    left = residuals_of(problem, point, flags)
    missed = torch.cat([part.flatten(1) for part in (left.x, left.v, left.s, left.prices)], -1).abs().amax(-1)
    products = products_of(problem, point, flags)
    relative = [
        torch.where(g > 0, (p / torch.where(g > 0, g, 1.0) - 1).abs(), 0.0).flatten(1)
        for p, g in zip(products, goal, strict=True)
    ]
    return missed, torch.cat(relative, -1).amax(-1)


def _step(problem: Problem, point: Point, flags: Flags, final: Pairs) -> Point:
    """Mehrotra's predictor and corrector, which never aims below the final products."""
    system = NewtonSystem.of(problem, point, flags)
    none = Pairs(*(torch.zeros_like(part) for part in final))
    if problem.growth:
        none = none._replace(s=final.s)
    ahead = system.direction(problem, point, flags, none)
    mu = _mean_product(products_of(problem, point, flags), flags)
    after = _moved(point, ahead, _longest(problem, point, ahead, flags))
    then = _mean_product(products_of(problem, after, flags), flags)
    aim = mu * (then / mu.clamp(min=1e-300)).clamp(0, 1) ** 3
    # The predictor goes to zero products; near the final ones its second order is not that of the step.
    far = mu > 3 * _mean_product(final, flags)

    def target(floor: Tensor, flag: Tensor, second: Tensor) -> Tensor:
        there = per_row(far, floor)
        aimed = torch.where(there, torch.maximum(per_row(aim, floor), floor) - second, floor)
        return torch.where(flag, aimed, 0.0)

    goal = Pairs(
        target(final.low, flags.low, ahead.low * ahead.x),
        target(final.high, flags.high, -ahead.high * ahead.x),
        final.s if problem.growth else target(final.s, flags.hinges, ahead.s * ahead.y),
        target(final.u, flags.hinges, -ahead.u * ahead.y),
        target(final.rows, flags.limits, ahead.prices * ahead.slack),
    )
    change = system.direction(problem, point, flags, goal)
    return _moved(point, change, _longest(problem, point, change, flags))


def _mean_product(products: Pairs, flags: Flags) -> Tensor:
    s = torch.where(flags.hinges, products.s, 0.0)
    every = [part.flatten(1) for part in (products.low, products.high, s, products.u, products.rows)]
    return torch.cat(every, -1).sum(-1) / count(flags)


def _longest(problem: Problem, point: Point, change: Point, flags: Flags) -> Tensor:
    """How far along a change everything stays positive, at most 1."""
    below, above = slacks_of(problem, point, flags)
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
        pairs += [(point.u, change.u), (whole(problem) - point.y, -change.y)]
    room = [torch.where(move < 0, value / (-move).clamp(min=1e-300), torch.inf).flatten(1) for value, move in pairs]
    return (_SHORT * torch.cat(room, -1).amin(-1)).clamp(max=1.0)


def _moved(point: Point, change: Point, length: Tensor) -> Point:
    return Point(*(part + per_row(length, part) * move for part, move in zip(point, change, strict=True)))


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
