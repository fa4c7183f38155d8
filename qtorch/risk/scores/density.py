"""The logarithmic score of a forecast distribution."""

import torch
from torch import Tensor
from torch.distributions import Distribution

from qtorch.risk.scores.observed import observed


def log_score(distribution: Distribution, outcomes: Tensor, mask: Tensor | None = None) -> Tensor:
    """Minus the log density at the outcome.

    Args:
        distribution: forecast, batch shape `[...]`; of returns, so that percent instead of decimals adds log(100).
        outcomes: realised; they broadcast against the batch shape, and have the event's dimensions if there are any.
        mask: which outcomes count; all by default. A joint outcome counts if all of it does.

    Returns:
        A loss for each element; NaN where an outcome or forecast is, and outside the mask.

    References:
        Good (1952), Rational decisions, Journal of the Royal Statistical Society B 14.
    """
    there, (y,) = observed(mask, outcomes)
    if distribution.event_shape:
        there = there.flatten(-len(distribution.event_shape)).all(-1)
    return torch.where(there, -distribution.log_prob(y), torch.nan)
