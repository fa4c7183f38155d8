"""Conditional value at risk (expected shortfall) of a sample of returns, as an objective."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from qtorch.distributions.checks import require
from qtorch.portfolio.moments import usable


def cvar(
    returns: Float[Tensor, "*batch T"],
    level: float,
    mask: Bool[Tensor, "*#batch T"] | None = None,
    *,
    threshold: Float[Tensor, "*#batch"] | None = None,
) -> Float[Tensor, "*batch"]:
    r"""Mean loss in the worst 1 - level of the returns, a positive number for a loss.

    $v + E[(L - v)^+] / (1 - \text{level})$ with L = -returns, which is least at v the quantile of L. By default that is
    the sample's quantile, exactly, so that the value is the mean of the worst returns, the last by the part that
    belongs to the tail.

    Args:
        returns: of a portfolio, or of scenarios.
        level: confidence, such as 0.95.
        mask: of the usable ones; a row without any gives 0.
        threshold: v, to be minimised along with the weights in place of the quantile.

    Raises:
        ValueError: the level is not inside (0, 1).

    References:
        Rockafellar and Uryasev (2000), Optimization of conditional value-at-risk, Journal of Risk 2.

    Example:
        >>> cvar(torch.tensor([-0.05, 0.01, -0.01, 0.02]), 0.5)
        tensor(0.0300)
    """
    require(0 < level < 1, "level", level, "a confidence inside (0, 1) is needed")
    x, there, count = usable(returns, mask)
    tail = count.clamp(min=1).to(x.dtype) * (1 - level)
    if threshold is None:
        order = torch.where(there, -x, -torch.inf).sort(-1, descending=True).values
        rank = torch.ceil(tail - 1e-6 * tail.clamp(max=1)).long().clamp(min=1)  # a whole number may come out above
        v = order.gather(-1, rank.unsqueeze(-1) - 1)
        v = torch.where(count.unsqueeze(-1) > 0, v, 0.0)
    else:
        v = threshold.to(x.dtype).unsqueeze(-1)
    beyond = torch.where(there, (-x - v).clamp(min=0), 0.0)
    return v.squeeze(-1) + beyond.sum(-1) / tail


class RockafellarUryasev(nn.Module):
    """`cvar` with a threshold that is learnt along with the weights; at the optimum it is the value at risk.

    Unlike the sample's quantile, the threshold is carried from batch to batch, which small batches need.

    Args:
        level: confidence, such as 0.95.
        start: of the threshold, a positive loss.
    """

    def __init__(self, level: float, start: float = 0.0) -> None:
        super().__init__()
        require(0 < level < 1, "level", level, "a confidence inside (0, 1) is needed")
        self.level, self.start = level, start
        self.threshold = nn.Parameter(torch.tensor(start))

    def forward(
        self, returns: Float[Tensor, "*batch T"], mask: Bool[Tensor, "*#batch T"] | None = None
    ) -> Float[Tensor, "*batch"]:
        """The objective; an upper bound of the conditional value at risk."""
        return cvar(returns, self.level, mask, threshold=self.threshold)
