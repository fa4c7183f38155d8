"""Tail means of any distribution, by closed form where one is registered and by quadrature where not."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution, Normal

_D = TypeVar("_D", bound=Distribution)
_REGISTRY: dict[type[Distribution], Callable[..., Tensor]] = {}
_NODES = 128


def register_tail_mean(
    kind: type[_D],
) -> Callable[[Callable[[_D, Tensor], Tensor]], Callable[[_D, Tensor], Tensor]]:
    """Registers a closed form of `tail_mean` for a class of distributions, as `register_kl` does for divergences."""

    def register(function: Callable[[_D, Tensor], Tensor]) -> Callable[[_D, Tensor], Tensor]:
        _REGISTRY[kind] = function
        return function

    return register


def tail_mean(distribution: Distribution, probability: float | Tensor) -> Tensor:
    """E[X | X <= q], q the quantile at left-tail mass `probability`; minus the expected shortfall of a return.

    Without a closed form it is (1/p) int_0^p icdf(u) du by Gauss-Legendre quadrature with u = p v^6, which takes
    the singularity out of tails of index above 1.2. Both work in float64 where the distribution allows it.

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
    if not ((p > 0) & (p < 1)).all():
        raise ValueError(f"tail_mean needs left-tail masses inside (0, 1), not {probability}.")
    for kind in type(distribution).__mro__:
        if kind in _REGISTRY:
            return _REGISTRY[kind](distribution, p)
    return _by_quadrature(distribution, p)


def _by_quadrature(distribution: Distribution, p: Tensor) -> Tensor:
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    shape = (-1, *[1] * max(p.ndim, len(distribution.batch_shape)))
    v = torch.from_numpy((nodes + 1) / 2).reshape(shape)
    weight = torch.from_numpy(weights / 2).reshape(shape) * 6 * v**5
    return (weight * distribution.icdf(p * v**6)).sum(0)


@register_tail_mean(Normal)
def _normal(distribution: Normal, p: Tensor) -> Tensor:
    """Mean - sigma phi(z_p) / p."""
    density = torch.exp(Normal(0.0, 1.0).log_prob(torch.special.ndtri(p))).to(distribution.scale.device)
    return (distribution.loc - distribution.scale * (density / p)).to(distribution.loc.dtype)
