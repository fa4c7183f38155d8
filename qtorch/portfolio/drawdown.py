"""The worst fall of wealth from its peak."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qtorch.portfolio.moments import usable


def maximum_drawdown(
    returns: Float[Tensor, "*batch T"], mask: Bool[Tensor, "*#batch T"] | None = None
) -> Float[Tensor, "*batch"]:
    """Largest fall from an earlier peak as a share of it; the wealth before the first session is a peak too.

    Args:
        returns: simple returns of a portfolio.
        mask: of the usable sessions.

    Example:
        >>> maximum_drawdown(torch.tensor([-0.5, 0.2]))
        tensor(0.5000)
    """
    x = usable(returns, mask)[0]
    wealth = torch.cat((torch.ones_like(x[..., :1]), 1 + x), -1).cumprod(-1)
    return (1 - wealth / wealth.cummax(-1).values).amax(-1)
