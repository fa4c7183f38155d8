"""How narrow forecasts are, whatever came."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor
from torch.distributions import Distribution

from qtorch.distributions.checks import require


class Sharpness(NamedTuple):
    """Mean widths over time, in the unit of the forecast; NaN where there is no forecast.

    Attributes:
        width: of the central interval.
        volatility: the square root of the mean variance.
    """

    width: Float64[Tensor, "*series"]
    volatility: Float64[Tensor, "*series"]


def interval_width(law: Distribution, coverage: float = 0.9) -> Float[Tensor, "*batch"]:
    """Width of the central interval that is forecast to hold `coverage` of the outcomes.

    Args:
        law: univariate, batch shape `[*batch]`.
        coverage: such as 0.9, between the quantiles at 5 and 95 %.

    Raises:
        ValueError: the coverage is not inside (0, 1).
    """
    require(0 < coverage < 1, "coverage", coverage, "give a probability inside (0, 1), such as 0.9")
    low, high = (law.icdf(torch.tensor(p, dtype=torch.float64)) for p in ((1 - coverage) / 2, (1 + coverage) / 2))
    return high - low


def sharpness(law: Distribution, coverage: float = 0.9, mask: Bool[Tensor, "T *series"] | None = None) -> Sharpness:
    """Mean width of the central interval and volatility over time; of two calibrated forecasts the sharper says more.

    Args:
        law: forecasts, batch shape `[T, *series]`.
        coverage: of the interval.
        mask: which forecasts count, all by default.

    Raises:
        ValueError: the coverage is not inside (0, 1).

    References:
        Gneiting, Balabdaoui and Raftery (2007), Probabilistic forecasts, calibration and sharpness, JRSS B 69.

    Example:
        >>> law = torch.distributions.Normal(torch.zeros(4, 1), torch.tensor([[1.0], [1.0], [7.0], [1.0]]))
        >>> sharpness(law, mask=torch.tensor([[True], [True], [False], [False]])).width
        tensor([3.2897], dtype=torch.float64)
    """
    width, variance = interval_width(law, coverage).double(), law.variance.double()
    there = torch.ones_like(width, dtype=torch.bool) if mask is None else mask
    mean = (torch.where(there, x, torch.nan).nanmean(0) for x in (width, variance))
    return Sharpness(next(mean), next(mean).sqrt())
