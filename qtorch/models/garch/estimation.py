"""Maximum likelihood of many series at once: BFGS in free coordinates, each series with a step of its own."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from qtorch.models.garch.likelihood import Sample, log_likelihood, log_likelihood_and_gradient, scores
from qtorch.models.garch.specification import Parameters, Specification

Each = Float64[Tensor, " N"]
Coordinates = Float64[Tensor, "N k"]

# Starts: share of the news in the persistence, and persistence; omega follows from the sample variance.
_STARTS = ((0.06, 0.985), (0.12, 0.95), (0.03, 0.995), (0.2, 0.8))
# Likelihoods of returns with single large moves can have two maxima, one of a fast and one of a slow variance. Of 2,160
# fits to windows of 20 US stocks, those that missed the higher one had all ended below a persistence of .94, and one of
# these starts leads all but one of them to it.
_SLOW, _FAST = ((0.008, 0.99), (0.03, 0.995)), 0.94
_NEGATIVE = 0.75  # share of the news that a negative residual makes
_START_NU = 8.0
_LONGEST = 0.7  # of a step in any coordinate; angles turn at pi / 2
_ENOUGH = 1e-4  # of the expected decrease, Armijo's condition
_DECREMENT = 1e-8  # expected gain in log-likelihood at which a series has converged: 1e-4 standard errors
_SHORTEST = 1e-6  # step at which a line search is given up


@dataclass(frozen=True, eq=False)
class Estimates:
    """Where each series' search ended.

    Attributes:
        parameters: estimates.
        log_likelihood: at them.
        converged: whether the expected gain of a further step was below 1e-8.
        iterations: evaluations of the log-likelihood with its gradient.
    """

    parameters: Parameters
    log_likelihood: Each
    converged: Bool[Tensor, " N"]
    iterations: Int64[Tensor, " N"]


def estimate(sample: Sample, specification: Specification, most_iterations: int = 100) -> Estimates:
    """Maximises the log-likelihood of each series.

    The search begins at the best by likelihood of a few starts whose unconditional variance is the sample's. Where it
    ends at a persistence below .94, further ones begin at slowly moving variances, and the best is taken.
    """
    found = _search(sample, specification, _start(sample, specification, _STARTS), most_iterations)
    for slow in _SLOW:
        fast = torch.nonzero(found.parameters.persistence < _FAST).squeeze(-1)
        if not len(fast):
            break
        again = sample.take(fast)
        other = _search(again, specification, _start(again, specification, (slow,)), most_iterations)
        better = other.log_likelihood > found.log_likelihood[fast]
        pairs = zip(found.parameters, other.parameters, strict=True)
        found = Estimates(
            Parameters(*(_put(old, fast, better, new) for old, new in pairs)),
            _put(found.log_likelihood, fast, better, other.log_likelihood),
            _put(found.converged, fast, better, other.converged),
            found.iterations.index_add(0, fast, other.iterations),
        )
    return found


def _put(old: Tensor, at: Int64[Tensor, " M"], better: Bool[Tensor, " M"], new: Tensor) -> Tensor:
    """Some elements replaced by better ones."""
    return old.index_put((at,), torch.where(better, new, old[at]))


def _search(sample: Sample, specification: Specification, x: Coordinates, most_iterations: int) -> Estimates:
    """BFGS from given coordinates.

    The first metric is the inverse of the outer product of scores. All series are evaluated at once, each at its own
    trial point: accepted ones get a new direction, the others a shorter step. Series that have converged leave.

    References:
        Berndt, Hall, Hall and Hausman (1974) for the metric; Nocedal and Wright (2006), equation 6.17, for the update.
    """
    whole = sample
    value, gradient = _objective(sample, specification, x)
    metric = _metric(sample, specification, x)
    N = len(value)
    best, lowest = x.clone(), value.clone()
    converged = torch.zeros(N, dtype=torch.bool, device=x.device)
    iterations = torch.ones(N, dtype=torch.int64, device=x.device)
    index = torch.arange(N, device=x.device)
    direction, slope = _direction(metric, gradient)
    length = torch.ones_like(value)
    for _ in range(most_iterations):
        trial = x + length.unsqueeze(-1) * direction
        new_value, new_gradient = _objective(sample, specification, trial)
        iterations[index] += 1
        # Beside Armijo's share, the rounding of a sum of thousands of terms.
        accepted = new_value <= value + _ENOUGH * length * slope + 1e-13 * value.abs()
        step, change = trial - x, new_gradient - gradient
        metric = _update(metric, step, change, accepted)
        shorter = -slope * length**2 / (2 * (new_value - value - slope * length))
        shorter = torch.where(shorter.isfinite(), shorter.clamp(min=0.1 * length, max=0.5 * length), 0.3 * length)
        x = torch.where(accepted.unsqueeze(-1), trial, x)
        gradient = torch.where(accepted.unsqueeze(-1), new_gradient, gradient)
        value = torch.where(accepted, new_value, value)
        turned, turned_slope = _direction(metric, gradient)
        direction = torch.where(accepted.unsqueeze(-1), turned, direction)
        slope = torch.where(accepted, turned_slope, slope)
        length = torch.where(accepted, 1.0, shorter)
        flat = -slope / 2 < _DECREMENT
        done = flat | (length < _SHORTEST)
        if done.any():
            at = index[done]
            best[at], lowest[at], converged[at] = x[done], value[done], flat[done]
            rest = torch.nonzero(~done).squeeze(-1)
            if not len(rest):
                break
            sample, index = sample.take(rest), index[rest]
            x, value, gradient, metric = x[rest], value[rest], gradient[rest], metric[rest]
            direction, slope, length = direction[rest], slope[rest], length[rest]
    else:
        best[index], lowest[index] = x, value
    theta = specification.natural(best, whole.mean, whole.variance)
    return Estimates(theta, -lowest, converged, iterations)


def _objective(sample: Sample, specification: Specification, x: Coordinates) -> tuple[Each, Coordinates]:
    """Minus the log-likelihood, infinite where it is no number, and its gradient in the free coordinates."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        theta = specification.natural(x, sample.mean, sample.variance)
    plain = Parameters(*(value.detach() for value in theta))
    value, gradient = log_likelihood_and_gradient(sample, plain, specification.errors)
    free = [k for k, parameter in enumerate(theta) if parameter.requires_grad]
    (turned,) = torch.autograd.grad([theta[k] for k in free], x, [-gradient[:, k] for k in free])
    return torch.where(value.isfinite(), -value, torch.inf), turned


def _metric(sample: Sample, specification: Specification, x: Coordinates) -> Float64[Tensor, "N k k"]:
    """The inverse of the outer product of scores in the free coordinates."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        theta = specification.natural(x, sample.mean, sample.variance)
        free = [k for k, parameter in enumerate(theta) if parameter.requires_grad]
        rows = [torch.autograd.grad(theta[k].sum(), x, retain_graph=True)[0] for k in free]
    jacobian = torch.stack(rows, dim=1)  # [N, natural, free]
    plain = Parameters(*(value.detach() for value in theta))
    by_session = scores(sample, plain, specification.errors)[free].flatten(1, 2)
    information = x.new_empty(len(x), len(free), len(free))
    for k, one in enumerate(by_session):
        for j, other in enumerate(by_session[: k + 1]):
            information[:, k, j] = information[:, j, k] = (one * other).sum(0)
    information = jacobian.mT @ information @ jacobian
    diagonal = information.diagonal(dim1=-2, dim2=-1)
    diagonal += 1e-3 * diagonal + 1.0  # where a coordinate does nothing there is no information about it
    return torch.linalg.inv(information)


def _direction(metric: Float64[Tensor, "N k k"], gradient: Coordinates) -> tuple[Coordinates, Each]:
    """The quasi-Newton step, cut to `_LONGEST`, and the slope along it."""
    direction = -(metric @ gradient.unsqueeze(-1)).squeeze(-1)
    direction = direction * (_LONGEST / direction.abs().amax(-1, keepdim=True).clamp(min=_LONGEST))
    return direction, (direction * gradient).sum(-1)


def _update(
    metric: Float64[Tensor, "N k k"], step: Coordinates, change: Coordinates, accepted: Bool[Tensor, " N"]
) -> Float64[Tensor, "N k k"]:
    """BFGS's update of the inverse metric, where the step was taken and the curvature along it is positive."""
    curvature = (step * change).sum(-1)
    good = accepted & (curvature > 1e-12)
    rho = torch.where(good, 1 / curvature, 0.0)[:, None, None]
    step, moved = step.unsqueeze(-1), metric @ torch.where(good.unsqueeze(-1), change, 0.0).unsqueeze(-1)
    cross = step @ moved.mT
    quadratic = (torch.where(good.unsqueeze(-1), change, 0.0).unsqueeze(-2) @ moved) * rho
    return metric + rho * ((1 + quadratic) * (step @ step.mT) - cross - cross.mT)


def _start(sample: Sample, specification: Specification, starts: tuple[tuple[float, float], ...]) -> Coordinates:
    """The best of some starts by likelihood."""
    negative = _NEGATIVE if specification.o else 0.5
    tried, values = [], []
    for share, persistence in starts:
        theta = start(sample.mean, sample.variance, share, persistence, negative)
        tried.append(specification.free(theta, sample.mean, sample.variance))
        values.append(log_likelihood(sample, theta, specification.errors).nan_to_num(nan=-torch.inf))
    best = torch.stack(values).argmax(0)
    return torch.stack(tried)[best, torch.arange(len(best), device=best.device)]


def start(mean: Each, variance: Each, share: float, persistence: float, negative: float) -> Parameters:
    """Parameters whose unconditional variance is given.

    Args:
        mean: mu.
        variance: unconditional variance.
        share: of the news in the persistence.
        persistence: alpha + gamma / 2 + beta.
        negative: share of the news that a negative residual makes; half without asymmetry.
    """
    one = torch.ones_like(mean)
    news = share * persistence
    alpha, both = 2 * news * (1 - negative), 2 * news * negative
    return Parameters(
        mean,
        variance * (1 - persistence),
        alpha * one,
        (both - alpha) * one,
        (persistence - news) * one,
        _START_NU * one,
        0 * one,
    )
