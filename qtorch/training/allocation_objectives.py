"""What training an allocator minimises: functions of what its portfolios earned."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from qtorch.distributions.checks import require
from qtorch.portfolio import (
    cvar,
    differential_sharpe,
    log_wealth,
    maximum_drawdown,
    mean_variance,
    sharpe,
    sortino,
    tracking_error,
)
from qtorch.portfolio.simulation import Simulation

YEAR = 252.0  # sessions


AllocationObjective = Callable[[Simulation], Tensor]  # a number to minimise, of simulations of net returns `[B T]`


@dataclass(frozen=True)
class LeastVariance:
    """log of the mean squared return a session of all episodes, and a price of turnover.

    The squares of storms weigh as they do in the volatility of a whole backtest.

    Attributes:
        turnover: what a one-way turnover of 1 a year costs, in units of the log of the variance.
    """

    turnover: float = 0.0

    def __call__(self, account: Simulation) -> Float[Tensor, ""]:
        """The loss."""
        return account.returns.square().mean().log() + self.turnover * yearly_turnover(account)


@dataclass(frozen=True)
class MostSharpe:
    """Minus the mean over episodes of the Sharpe ratio a year, net of costs.

    Attributes:
        turnover: what a one-way turnover of 1 a year costs beyond what is paid for it, in units of the ratio.
    """

    turnover: float = 0.0

    def __call__(self, account: Simulation) -> Float[Tensor, ""]:
        """The loss."""
        ratio: Tensor = sharpe(account.returns) * YEAR**0.5
        return -ratio.mean() + self.turnover * yearly_turnover(account)


@dataclass(frozen=True)
class MostSortino:
    """Minus the mean over episodes of the Sortino ratio a year, net of costs, which counts losses alone as risk.

    Attributes:
        target: least acceptable return a session.
        turnover: what a one-way turnover of 1 a year costs beyond what is paid for it, in units of the ratio.
    """

    target: float = 0.0
    turnover: float = 0.0

    def __call__(self, account: Simulation) -> Float[Tensor, ""]:
        """The loss."""
        ratio: Tensor = sortino(account.returns, target=self.target, periods=YEAR)
        return -ratio.mean() + self.turnover * yearly_turnover(account)


@dataclass(frozen=True)
class MostDifferentialSharpe:
    """Minus what each session adds to a moving Sharpe ratio, as a mean over sessions and episodes, a year.

    Against `MostSharpe` each return is judged by those before it, so that a session of late weighs no less in a long
    episode.

    Attributes:
        rate: of the ratio's moments, in (0, 1).
        deviation: of a session's returns before the first.
        turnover: what a one-way turnover of 1 a year costs beyond what is paid for it, in units of the ratio.

    References:
        Moody and Saffell (2001), Learning to trade via direct reinforcement, IEEE Transactions on Neural Networks 12.
    """

    rate: float = 0.01
    deviation: float = 0.01
    turnover: float = 0.0

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ValueError: the rate is not inside (0, 1), or the deviation not positive.
        """
        require(0 < self.rate < 1, "rate", self.rate, "give a number inside (0, 1), such as 0.01")
        require(self.deviation > 0, "deviation", self.deviation, "give a positive number, such as 0.01")

    def __call__(self, account: Simulation) -> Float[Tensor, ""]:
        """The loss."""
        added: Tensor = differential_sharpe(account.returns, rate=self.rate, deviation=self.deviation)
        return -added.mean() * YEAR**0.5 + self.turnover * yearly_turnover(account)


@dataclass(frozen=True)
class MeanVariance:
    """Minus mean less variance a year, as a mean over episodes, net of costs.

    Attributes:
        risk_aversion: half of it is the price of variance; 1 is nearly that of the growth of wealth.
        turnover: what a one-way turnover of 1 a year costs beyond what is paid for it, in units of return.
    """

    risk_aversion: float = 1.0
    turnover: float = 0.0

    def __post_init__(self) -> None:
        """Checks the risk aversion.

        Raises:
            ValueError: it is negative.
        """
        require(self.risk_aversion >= 0, "risk_aversion", self.risk_aversion, "give a number of at least 0")

    def __call__(self, account: Simulation) -> Float[Tensor, ""]:
        """The loss."""
        utility: Tensor = mean_variance(account.returns, risk_aversion=self.risk_aversion) * YEAR
        return -utility.mean() + self.turnover * yearly_turnover(account)


@dataclass(frozen=True)
class LeastTrackingError:
    """The standard deviation a year, in per cent, of the return less that of equal weights, as a mean over episodes.

    The equal weights are those of each decision's universe, in an account of their own that pays no costs.

    Attributes:
        turnover: what a one-way turnover of 1 a year costs, in per cent.
    """

    turnover: float = 0.0

    def __call__(self, account: Simulation, benchmark: Simulation) -> Float[Tensor, ""]:
        """The loss.

        Args:
            account: of the portfolio.
            benchmark: of the equal weights, as of `Allocator.equal`.
        """
        error: Tensor = tracking_error(account.returns, benchmark.returns, periods=YEAR)
        return 100 * error.mean() + self.turnover * yearly_turnover(account)


@dataclass(frozen=True)
class LeastShortfall:
    """The expected shortfall of a session's return, in per cent, pooled over all episodes.

    Attributes:
        level: of confidence.
    """

    level: float = 0.95

    def __post_init__(self) -> None:
        """Checks the level.

        Raises:
            ValueError: it is not inside (0, 1).
        """
        require(0 < self.level < 1, "level", self.level, "give a level of confidence, such as 0.95")

    def __call__(self, account: Simulation) -> Float[Tensor, ""]:
        """The loss."""
        return 100 * cvar(account.returns.flatten(), level=self.level)


@dataclass(frozen=True)
class MostWealth:
    """Minus the mean over episodes of the growth of log wealth a year, and a price of drawdowns.

    Attributes:
        drawdown: what a loss from a peak of 1 costs, in units of log wealth.
    """

    drawdown: float = 0.0

    def __call__(self, account: Simulation) -> Float[Tensor, ""]:
        """The loss."""
        growth: Tensor = log_wealth(account.returns) * (YEAR / account.returns.shape[-1])
        loss = -growth.mean()
        return loss + self.drawdown * maximum_drawdown(account.returns).mean() if self.drawdown else loss


def yearly_turnover(account: Simulation) -> Float[Tensor, ""]:
    """One-way turnover a year, without the first session's."""
    later = account.turnover[..., 1:]
    return later.sum() / max(later.numel(), 1) * (YEAR / 2)


def joined(ledgers: list[Simulation]) -> Simulation:
    """Ledgers of consecutive stretches as one."""
    names = ("returns", "weights", "turnover", "costs")
    return Simulation(
        **{name: torch.cat([getattr(part, name) for part in ledgers], 1) for name in names}, final=ledgers[-1].final
    )
