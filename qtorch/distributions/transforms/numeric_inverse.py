"""The inverse of increasing elementwise maps that have none in closed form."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Values = Float[Tensor, "..."]
ValueAndLadj = Callable[[Values], tuple[Values, Values]]
_ITERATIONS, _COMPILED = 200, 40


def continued(function: ValueAndLadj, x: Values, bound: float) -> tuple[Values, Values]:
    """A map on [-bound, bound], and beyond it the tangents at its ends: value and log-derivative."""
    inside = x.clamp(-bound, bound)
    y, ladj = function(inside)
    return torch.addcmul(y, x - inside, torch.exp(ladj)), ladj


def continued_bracket(function: ValueAndLadj, y: Values, bound: float) -> tuple[Values, Values]:
    """Where the x of a y may lie, for a map continued by its tangents."""
    with torch.no_grad():
        edge = torch.full_like(y, bound)
        (first, ladj_first), (last, ladj_last) = function(-edge), function(edge)
        low = -edge + ((y - first) * torch.exp(-ladj_first)).clamp(max=0)
        return low, edge + ((y - last) * torch.exp(-ladj_last)).clamp(min=0)


def solve(function: ValueAndLadj, y: Values, low: Values, high: Values) -> tuple[Values, Values]:
    """The x with f(x) = y and log dx/dy, by Newton's method inside a bracket.

    A Newton step that leaves the bracket, or is more than half as long as the one before, gives way to bisection, so
    that the search always ends. It ends at steps of eps^0.75, since one more Newton step squares the error. That one
    is part of the graph, all before it is not: gradients are implicit, exact to first order in y and in whatever the
    map depends on. In compiled code the number of steps is fixed, since torch.while_loop (of torch 2.13) gave wrong
    values there inside an autoregressive inverse.

    Args:
        function: x to f(x) and log f'(x), f increasing.
        y: values.
        low: at or below the roots, of y's shape.
        high: at or above them.
    """
    close = torch.finfo(y.dtype).eps ** 0.75
    with torch.no_grad():
        x = torch.minimum(torch.maximum(y, low), high)
        last, done = high - low, y.isnan()
        for _ in range(_COMPILED if torch.compiler.is_compiling() else _ITERATIONS):
            value, ladj = function(x)
            step = (y - value) * torch.exp(-ladj)
            low, high = torch.where(value <= y, x, low), torch.where(value >= y, x, high)
            new, half = x + step, 0.5 * (high - low)
            inside = torch.logical_and(new >= low, new <= high)
            newton = torch.logical_and(inside, step.abs() <= 0.5 * last)
            last = torch.where(newton, step.abs(), half)
            # A finished element stays, so that its root depends on no other.
            new = torch.where(done, x, torch.where(newton, new, low + half))
            done = torch.logical_or(done, (new - x).abs() <= close * (1 + x.abs()))
            x = new
            if not torch.compiler.is_compiling() and done.all():
                break
    value, ladj = function(x)
    x = x + (y - value) * torch.exp(-ladj.detach())
    return x, -function(x)[1]
