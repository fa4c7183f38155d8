"""Expectiles: the only coherent risk measures that are elicitable by themselves."""

import torch
from torch import Tensor
from torch.distributions import Distribution

from qtorch.distributions import partial_mean
from qtorch.risk.measures.tail import checked_level

_STEPS = 200


def expectile(distribution: Distribution, level: float) -> Tensor:
    """Expectile value at risk: minus the expectile e of returns at tau = 1 - level.

    e solves tau E(X - e)+ = (1 - tau) E(e - X)+: what must be added so that gains over losses, in the mean, are
    (1 - tau) / tau to one. At level 0.99855 it is the normal's value at risk at 0.99; it is coherent for levels of one
    half and more, and the mean loss at one half.

    By the partial moment E(e - X)+ = e F(e) - E[X; X <= e], Newton's method; the gap is concave or convex in e and
    falling, so that the steps come to the root from one side, from any start. Gradients in the parameters follow
    from the implicit function theorem.

    Args:
        distribution: of returns in decimals, batch shape `[...]`, with `cdf`, `mean` and a tail mean, in float64 for
            far levels.
        level: confidence, such as 0.99855.

    Returns:
        Losses in decimals, positive in the tail, of the batch shape, in float64.

    Raises:
        ValueError: the level is not inside (0, 1).
        ArithmeticError: no convergence, because a mean or tail mean is not finite.

    References:
        Newey and Powell (1987), Asymmetric least squares estimation and testing, Econometrica 55.
        Bellini and Di Bernardino (2017), Risk management with expectiles, European Journal of Finance 23, section 2.

    Example:
        >>> normal = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 1.0)
        >>> round(expectile(normal, 0.99855).item(), 2)
        2.33
    """
    tau = 1 - checked_level(level)
    with torch.no_grad():
        mean = distribution.mean.double()
        e = mean
        for _ in range(_STEPS):
            gap, slope = _gap_and_slope(distribution, e, tau)
            step = gap / slope
            e = e - step
            if (step.abs() <= 1e-13 * ((e - mean).abs() + e.abs())).all():
                break
        else:
            raise ArithmeticError(f"No expectile at level {level} after {_STEPS} steps: is the mean finite everywhere?")
    gap, slope = _gap_and_slope(distribution, e, tau)
    return gap / slope.detach() - e


def _gap_and_slope(distribution: Distribution, e: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    """The gap tau E(X - e)+ - (1 - tau) E(e - X)+ and its derivative in e."""
    p = distribution.cdf(e).double()
    below = e * p - partial_mean(distribution, e).double()  # E(e - X)+
    return tau * (distribution.mean.double() - e) - (1 - 2 * tau) * below, -tau - (1 - 2 * tau) * p
