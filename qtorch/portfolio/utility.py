"""What an investor maximises: mean less variance, and the growth of wealth."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qtorch.portfolio.moments import mean_and_variance, usable


def mean_variance(
    returns: Float[Tensor, "*batch T"],
    mask: Bool[Tensor, "*#batch T"] | None = None,
    *,
    risk_aversion: float = 1.0,
) -> Float[Tensor, "*batch"]:
    """Mean less half the risk aversion times the variance.

    Args:
        returns: of a portfolio, or of scenarios.
        mask: of the usable sessions.
        risk_aversion: 1 is nearly that of `log_wealth`.

    References:
        Markowitz (1952), Portfolio selection, Journal of Finance 7.
    """
    mean, variance = mean_and_variance(returns, mask)
    return mean - 0.5 * risk_aversion * variance


def log_wealth(
    returns: Float[Tensor, "*batch T"], mask: Bool[Tensor, "*#batch T"] | None = None
) -> Float[Tensor, "*batch"]:
    """Logarithm of the final wealth per unit at the start, when all is reinvested; minus infinity at a total loss.

    Args:
        returns: simple returns of a portfolio, above -1.
        mask: of the usable sessions.

    References:
        Kelly (1956), A new interpretation of information rate, Bell System Technical Journal 35.
    """
    return torch.log1p(usable(returns, mask)[0]).sum(-1)
