"""Quantiles by root finding, for laws that know their distribution function and density alone."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from qtorch.distributions.loops import State, repeat_while

Double = Float64[Tensor, "..."]
_ITERATIONS = 200
_HALVINGS = 100
_CLOSE = 1e-9  # relative error of the mass from which one Newton step, which squares it, is the last


def invert(
    tails: Callable[[Double], tuple[Double, Double]],
    log_density: Callable[[Double], Double],
    p: Double,
    low: Double,
    high: Double,
) -> Double:
    """The x with F(x) = p, by Newton's method on the log of the smaller tail, kept inside a bracket by bisection.

    Gradients, in everything that the functions depend on, come from Newton steps that are part of the graph: after one
    the first derivatives are exact, after two the first three (each step doubles the order of the error). There are
    two of them, but one in compiled code, which has first derivatives alone.

    Args:
        tails: log F(x) and log(1 - F(x)).
        log_density: log f(x).
        p: left-tail masses; 0 and 1 give the infinities, masses outside NaN.
        low: an x known to be at or below the root, finite.
        high: an x known to be at or above the root, finite.
    """
    inside = (p > 0) & (p < 1)
    safe = torch.where(inside, p, 0.5)
    lower = safe < 0.5
    log_p, log_q = torch.log(safe), torch.log1p(-safe)

    def newton(x: Double) -> tuple[Double, Double]:
        """Excess of log F, or shortfall of log(1 - F), and the Newton step."""
        below, above = tails(x)
        error = torch.where(lower, below - log_p, log_q - above)
        return error, -error * torch.exp(torch.where(lower, below, above) - log_density(x))

    def unfinished(i: Tensor, x: Double, low: Double, high: Double, done: Tensor) -> Tensor:
        return torch.logical_and(i < _ITERATIONS, torch.logical_not(done.all()))

    def iterate(i: Tensor, x: Double, low: Double, high: Double, done: Tensor) -> State:
        error, step = newton(x)
        low, high = torch.where(error < 0, x, low), torch.where(error < 0, high, x)
        new = x + step
        inside = (new > low) & (new < high)
        close = (error.abs() <= _CLOSE) | (step.abs() <= 4e-16 * x.abs())
        last = torch.where(new.isfinite(), new, x).clamp(low, high)  # in a gap, without density, no step is a number
        new = torch.where(close, last, torch.where(inside, new, low + 0.5 * (high - low)))
        return i + 1, new, low, high, close

    with torch.no_grad():
        low, high, x = torch.broadcast_tensors(low, high, 0.5 * (low + high) + 0 * safe)
        start = (torch.zeros((), dtype=torch.int64, device=x.device), x, low.clone(), high.clone(), x.isnan())
        x = repeat_while(unfinished, iterate, start)[1]
    if torch.is_grad_enabled():
        for _ in range(1 if torch.compiler.is_compiling() else 2):
            step = newton(x)[1]
            if not step.requires_grad:
                break
            x = x + step
    x = torch.where(inside, x, torch.nan)
    return torch.where(p == 0, -torch.inf, torch.where(p == 1, torch.inf, x))


@torch.no_grad()
def least(enough: Callable[[Double], Bool[Tensor, "..."]], low: Double, high: Double) -> Double:
    """The smallest x that is enough, as all above it are, by bisection down to two numbers side by side.

    An atom, the smallest x with F(x) >= p, is found to its last digit, or to 1e-18 of the bracket where it is nearer to
    0 than that. There are no gradients.

    Args:
        enough: whether an x is, such as F(x) >= p; of the shape of the bracket.
        low: an x below the one sought, but for rounding, finite.
        high: an x at or above it, but for rounding, finite.
    """
    # Components that scale their values in float32 may put a quantile to the other side of an atom.
    margin = 1e-6 * torch.maximum(low.abs(), high.abs())
    low, high = torch.broadcast_tensors(low - margin, high + margin)
    width = 1e-18 * (high - low)

    def unfinished(i: Tensor, low: Double, high: Double, done: Tensor) -> Tensor:
        return torch.logical_and(i < _HALVINGS, torch.logical_not(done.all()))

    def halve(i: Tensor, low: Double, high: Double, done: Tensor) -> State:
        middle = low + 0.5 * (high - low)
        reached = enough(middle)
        new_low, new_high = torch.where(reached, low, middle), torch.where(reached, middle, high)
        return i + 1, new_low, new_high, torch.logical_not((middle > low) & (middle < high) & (high - low > width))

    start = (torch.zeros((), dtype=torch.int64, device=low.device), low.clone(), high.clone(), low.isnan())
    return repeat_while(unfinished, halve, start)[2]
