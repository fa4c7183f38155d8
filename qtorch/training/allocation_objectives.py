"""What training an allocator minimises: functions of what its portfolios earned."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from qtorch.distributions.checks import require
from qtorch.portfolio import cvar, log_wealth, maximum_drawdown, sharpe
from qtorch.portfolio.ledger import Ledger

YEAR = 252  # sessions


AllocationObjective = Callable[[Ledger], Tensor]  # a number to minimise, of ledgers of net returns `[B T]`


@dataclass(frozen=True)
class LeastVariance:
    """log of the mean squared return a session of all episodes, and a price of turnover.

    The squares of storms weigh as they do in the volatility of a whole backtest.

    Attributes:
        turnover: what a one-way turnover of 1 a year costs, in units of the log of the variance.
    """

    turnover: float = 0.0

    def __call__(self, ledger: Ledger) -> Float[Tensor, ""]:
        """The loss."""
        return ledger.returns.square().mean().log() + self.turnover * yearly_turnover(ledger)


@dataclass(frozen=True)
class MostSharpe:
    """Minus the mean over episodes of the Sharpe ratio a year, net of costs.

    Attributes:
        turnover: what a one-way turnover of 1 a year costs beyond what is paid for it, in units of the ratio.
    """

    turnover: float = 0.0

    def __call__(self, ledger: Ledger) -> Float[Tensor, ""]:
        """The loss."""
        ratio: Tensor = sharpe(ledger.returns) * YEAR**0.5
        return -ratio.mean() + self.turnover * yearly_turnover(ledger)


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

    def __call__(self, ledger: Ledger) -> Float[Tensor, ""]:
        """The loss."""
        return 100 * cvar(ledger.returns.flatten(), level=self.level)


@dataclass(frozen=True)
class MostWealth:
    """Minus the mean over episodes of the growth of log wealth a year, and a price of drawdowns.

    Attributes:
        drawdown: what a loss from a peak of 1 costs, in units of log wealth.
    """

    drawdown: float = 0.0

    def __call__(self, ledger: Ledger) -> Float[Tensor, ""]:
        """The loss."""
        growth: Tensor = log_wealth(ledger.returns) * (YEAR / ledger.returns.shape[-1])
        loss = -growth.mean()
        return loss + self.drawdown * maximum_drawdown(ledger.returns).mean() if self.drawdown else loss


def yearly_turnover(ledger: Ledger) -> Float[Tensor, ""]:
    """One-way turnover a year, without the first session's."""
    later = ledger.turnover[..., 1:]
    return later.sum() / max(later.numel(), 1) * (YEAR / 2)


def joined(ledgers: list[Ledger]) -> Ledger:
    """Ledgers of consecutive stretches as one."""
    names = ("returns", "weights", "turnover", "costs")
    return Ledger(
        **{name: torch.cat([getattr(part, name) for part in ledgers], 1) for name in names}, final=ledgers[-1].final
    )
