"""The Sharpe ratio's change by each new return."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qtorch.distributions.checks import require
from qtorch.portfolio.moments import usable


def differential_sharpe(
    returns: Float[Tensor, "*batch T"],
    mask: Bool[Tensor, "*#batch T"] | None = None,
    *,
    rate: float = 0.01,
    mean: float = 0.0,
    deviation: float = 0.01,
) -> Float[Tensor, "*batch T"]:
    r"""What each return adds to an exponentially weighted Sharpe ratio, to first order in the rate.

    $D_t = (B_{t-1} \Delta A_t - A_{t-1} \Delta B_t / 2) / (B_{t-1} - A_{t-1}^2)^{3/2}$, where A and B are the weighted
    first and second moments, $\Delta A_t = R_t - A_{t-1}$ and $\Delta B_t = R_t^2 - B_{t-1}$. The moments carry no
    gradient: they are the past, against which a return is judged.

    Args:
        returns: of a portfolio, in time's order.
        mask: of the usable sessions; others add 0 and leave the moments.
        rate: of the moments, between 0 and 1.
        mean: of returns before the first.
        deviation: of returns before the first.

    Raises:
        ValueError: the rate or the deviation is outside its domain.

    References:
        Moody and Saffell (2001), Learning to trade via direct reinforcement, IEEE Transactions on Neural Networks 12,
        equations 13 to 15.
    """
    require(0 < rate < 1, "rate", rate, "a number between 0 and 1 is needed")
    require(deviation > 0, "deviation", deviation, "a positive number is needed")
    x, there, _ = usable(returns, mask)
    a = torch.full_like(x[..., 0], mean)
    b = torch.full_like(a, mean**2 + deviation**2)
    added = []
    for r, here in zip(x.unbind(-1), there.unbind(-1), strict=True):
        change_a, change_b = r - a, r**2 - b
        gain = (b * change_a - 0.5 * a * change_b) / (b - a**2).pow(1.5)
        added.append(torch.where(here, gain, 0.0))
        step = rate * here
        a, b = a + step * change_a.detach(), b + step * change_b.detach()
    return torch.stack(added, -1)
