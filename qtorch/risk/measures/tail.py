"""Value at risk and expected shortfall of a distribution of returns."""

import torch
from torch import Tensor
from torch.distributions import Distribution

from qtorch.distributions import tail_mean
from qtorch.distributions.checks import require


def value_at_risk(distribution: Distribution, level: float) -> Tensor:
    """The loss that is not exceeded with probability `level`: minus the quantile of left-tail mass 1 - level.

    Args:
        distribution: of returns in decimals, with `icdf`.
        level: confidence, such as 0.99.

    Returns:
        Positive losses in decimals, of the batch shape.

    Raises:
        ValueError: the level is not inside (0, 1).
    """
    probability = torch.tensor(1 - checked_level(level), dtype=torch.float64)
    return -distribution.icdf(probability)


def expected_shortfall(distribution: Distribution, level: float) -> Tensor:
    """The mean loss of the 1 - level worst: minus the mean quantile up to 1 - level, E[X | X <= q] without atoms.

    Of S equal scenarios that is the mean of the ceil(S (1 - level)) worst, as historical simulation has it. Acerbi and
    Tasche's split of the last one, which differs where S (1 - level) is not whole, is `spectral_risk` of a constant
    spectrum on the tail, and that of mixtures. Continuous laws know no difference.

    Args:
        distribution: of returns in decimals.
        level: confidence, such as 0.975.

    Returns:
        Positive losses in decimals, of the batch shape.

    Raises:
        ValueError: the level is not inside (0, 1).

    References:
        Acerbi and Tasche (2002), On the coherence of expected shortfall, Journal of Banking and Finance 26, for both.
    """
    return -tail_mean(distribution, 1 - checked_level(level))


def checked_level(level: float) -> float:
    """The level itself.

    Raises:
        ValueError: it is not inside (0, 1).
    """
    require(0 < level < 1, "level", level, "give a confidence inside (0, 1), such as 0.99")
    return level
