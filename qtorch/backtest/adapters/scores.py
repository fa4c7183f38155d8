"""What makes one number of a forecast, higher for what to buy."""

import torch
from jaxtyping import Float
from torch import Tensor

from qtorch.forecast import Forecast


def mean_return(forecast: Forecast) -> Float[Tensor, "D H N"]:
    """The mean of the simple return."""
    return forecast.marginals.mean


def gain_probability(forecast: Forecast) -> Float[Tensor, "D H N"]:
    """The probability of a return above 0."""
    law = forecast.marginals
    return 1 - law.cdf(torch.zeros_like(law.mean))


def less_risk(forecast: Forecast, level: float = 0.99) -> Float[Tensor, "D H N"]:
    """Minus the value at risk, so that what may lose least comes first.

    Args:
        forecast: of any law.
        level: confidence; another one by ``functools.partial(less_risk, level=0.95)``.
    """
    return -forecast.value_at_risk(level)
