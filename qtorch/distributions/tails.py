"""Tail means of any distribution, by closed form where one is registered and by quadrature where not."""

import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal

from qtorch.distributions.cumulative import ndtr
from qtorch.distributions.quadrature import lower_mean
from qtorch.errors import ArgumentError

_D = TypeVar("_D", bound=Distribution)
_REGISTRY: dict[type[Distribution], Callable[..., Tensor]] = {}


def register_tail_mean(
    kind: type[_D],
) -> Callable[[Callable[[_D, Tensor], Tensor]], Callable[[_D, Tensor], Tensor]]:
    """Registers a closed form of `tail_mean` for a class of distributions, as `register_kl` does for divergences."""

    def register(function: Callable[[_D, Tensor], Tensor]) -> Callable[[_D, Tensor], Tensor]:
        _REGISTRY[kind] = function
        return function

    return register


def tail_mean(distribution: Distribution, probability: float | Tensor) -> Tensor:
    """ES = (1/p) int_0^p icdf(u) du at left-tail mass p; minus the expected shortfall of a return.

    It is E[X | X <= q], q the quantile, of a law without an atom at q; of an atom it takes only the mass that p has
    left for it, but an `Empirical` takes the last of its values whole. Without a closed form it is found by
    Gauss-Legendre quadrature with u = p v^6, which takes the singularity out of tails of index above 1.2. Both work in
    float64 where the distribution allows it.

    Args:
        distribution: of batch shape `[...]`, with `icdf`.
        probability: left-tail mass in (0, 1); a tensor broadcasts against the batch shape.

    Returns:
        Tensor of the broadcast shape.

    Raises:
        ValueError: a probability is not inside (0, 1).

    Example:
        >>> import torch
        >>> round(tail_mean(torch.distributions.Normal(0.0, 1.0), 0.025).item(), 4)
        -2.3378
    """
    p = torch.as_tensor(probability, dtype=torch.float64)
    if not torch.compiler.is_compiling() and not ((p > 0) & (p < 1)).all():
        raise ArgumentError(f"tail_mean needs left-tail masses inside (0, 1), not {probability}.")
    for kind in type(distribution).__mro__:
        if kind in _REGISTRY:
            return _REGISTRY[kind](distribution, p)
    return by_quadrature(distribution, p)


def partial_mean(distribution: Distribution, value: Tensor) -> Tensor:
    """E[X 1{X <= value}], the lower partial expectation: the law's own where it has one, else by `tail_mean`."""
    own = getattr(distribution, "partial_mean", None)
    if own is not None:
        return own(value)
    if isinstance(distribution, Normal):
        z = (value - distribution.loc) / distribution.scale
        density = torch.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
        return distribution.loc * ndtr(z) - distribution.scale * density
    mass = distribution.cdf(value).double()
    inside = mass.nan_to_num(0.5).clamp(1e-300, 1 - 2**-53)
    return torch.where(mass == 0, 0.0, mass * tail_mean(distribution, inside))


def by_quadrature(distribution: Distribution, p: Tensor) -> Tensor:
    """(1/p) int_0^p icdf(u) du by Gauss-Legendre quadrature."""
    p = p.to(distribution.icdf(p).device)  # a number may lie on the CPU whatever the law's device, but nodes may not
    return lower_mean(distribution.icdf, p, len(distribution.batch_shape))


@register_tail_mean(Normal)
def _normal(distribution: Normal, p: Tensor) -> Tensor:
    """Mean - sigma phi(z_p) / p."""
    z = torch.special.ndtri(p)
    density = (torch.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)).to(distribution.scale.device)
    return (distribution.loc - distribution.scale * (density / p)).to(distribution.loc.dtype)
