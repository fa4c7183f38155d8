"""What a portfolio is chosen by on scenarios: tail risk, mean and variance, or growth."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from qtorch.distributions.checks import require
from qtorch.portfolio.moments import mean_and_variance, usable


class ScenarioUtility(nn.Module, ABC):
    """A convex loss of a portfolio's returns, less `mean` times their mean.

    The attributes say to the solver what the loss is made of.

    Attributes:
        mean: weight of the mean return, at least 0.
        risk_aversion: half of it weighs the variance.
        level: of the conditional value at risk in it; None for none.
        growth: whether minus the mean log of wealth is in it.
    """

    risk_aversion: float = 0.0
    level: float | None = None
    growth: bool = False

    def __init__(self, mean: float) -> None:
        super().__init__()
        require(0 <= mean < float("inf"), "mean", mean, "give a weight of at least 0")
        self.mean = mean

    def losses(
        self, returns: Float[Tensor, "*batch S"], mask: Bool[Tensor, "*#batch S"] | None = None
    ) -> Float[Tensor, "*batch S"]:
        """Each return's part of the loss, which is their mean over the usable ones.

        Args:
            returns: of a portfolio over scenarios, or what was realised over many dates.
            mask: of the usable ones; the others' parts are 0.
        """
        x, there, _ = usable(returns, mask)
        parts = self._risks(x, there) - self.mean * x
        return torch.where(there, parts, 0.0)

    def forward(
        self, returns: Float[Tensor, "*batch S"], mask: Bool[Tensor, "*#batch S"] | None = None
    ) -> Float[Tensor, "*batch"]:
        """The loss: the mean of `losses`."""
        _, _, count = usable(returns, mask)
        return self.losses(returns, mask).sum(-1) / count.clamp(min=1)

    @abstractmethod
    def _risks(self, x: Tensor, there: Tensor) -> Tensor:
        """The parts without the mean."""


class TailRisk(ScenarioUtility):
    r"""The conditional value at risk less `mean` times the mean: $\mathrm{CVaR} - m\,E[R]$.

    Args:
        level: confidence, such as 0.95.
        mean: weight m of the mean return.

    Raises:
        ValueError: the level is not inside (0, 1), or the weight is negative.

    References:
        Rockafellar and Uryasev (2000), Optimization of conditional value-at-risk, Journal of Risk 2.
    """

    def __init__(self, level: float = 0.95, mean: float = 0.0) -> None:
        super().__init__(mean)
        require(0 < level < 1, "level", level, "a confidence inside (0, 1) is needed")
        self.level: float = level

    def _risks(self, x: Tensor, there: Tensor) -> Tensor:
        # By the envelope theorem the threshold needs no gradient: at the quantile the loss does not move with it.
        count = there.sum(-1, keepdim=True).clamp(min=1)
        rank = torch.ceil((1 - self.level) * count - 1e-6).long().clamp(min=1)
        order = torch.where(there, -x, -torch.inf).detach().sort(-1, descending=True).values
        v = order.gather(-1, rank - 1)
        v = torch.where(there.any(-1, keepdim=True), v, 0.0)
        return v + (-x - v).clamp(min=0) / (1 - self.level)


class MeanVariance(ScenarioUtility):
    r"""Half the risk aversion times the variance, less `mean` times the mean: $\frac{\gamma}{2} V[R] - m\,E[R]$.

    Minus `qtorch.portfolio.mean_variance`, where m is 1.

    Args:
        risk_aversion: gamma, positive.
        mean: weight m of the mean return; 0 for the least variance.

    Raises:
        ValueError: the risk aversion is not positive, or the weight is negative.

    References:
        Markowitz (1952), Portfolio selection, Journal of Finance 7.
    """

    def __init__(self, risk_aversion: float = 1.0, mean: float = 1.0) -> None:
        super().__init__(mean)
        require(0 < risk_aversion < float("inf"), "risk_aversion", risk_aversion, "give a positive number")
        self.risk_aversion: float = risk_aversion

    def _risks(self, x: Tensor, there: Tensor) -> Tensor:
        mean, _ = mean_and_variance(x, there)
        count = there.sum(-1, keepdim=True)
        return 0.5 * self.risk_aversion * (x - mean.unsqueeze(-1)) ** 2 * (count / (count - 1).clamp(min=1))


class Growth(ScenarioUtility):
    """Minus the mean log of wealth, less `mean` times the mean: infinite where all is lost in a scenario.

    Args:
        mean: weight of the mean return beside it.

    Raises:
        ValueError: the weight is negative.

    References:
        Kelly (1956), A new interpretation of information rate, Bell System Technical Journal 35.
    """

    growth: bool = True

    def __init__(self, mean: float = 0.0) -> None:
        super().__init__(mean)

    def _risks(self, x: Tensor, there: Tensor) -> Tensor:
        return -torch.log1p(x)
