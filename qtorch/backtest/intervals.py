"""Bootstrapped intervals of Sharpe ratios and volatilities, and of the differences between two portfolios."""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import torch
from jaxtyping import Float
from torch import Tensor

from qtorch.backtest.block_length import block_length
from qtorch.distributions.checks import require
from qtorch.risk.backtests.confidence_set import resampled as resampled_dates


@dataclass(frozen=True)
class Interval:
    """An estimate with its uncertainty.

    Attributes:
        estimate: of the sample.
        lower: end of the interval.
        upper: the other.
        standard_error: standard deviation over the draws.
        block: mean length of the blocks that were resampled.
    """

    estimate: float
    lower: float
    upper: float
    standard_error: float
    block: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the sign of the estimate survives."""
        return self.lower > 0 or self.upper < 0

    def __str__(self) -> str:
        return f"{self.estimate:.3f} [{self.lower:.3f}, {self.upper:.3f}]"


def sharpe_interval(
    a: Float[Tensor, " T"],
    b: Float[Tensor, " T"] | None = None,
    *,
    level: float = 0.95,
    draws: int = 2000,
    block: int | None = None,
    periods: float = 252.0,
    generator: torch.Generator | None = None,
) -> Interval:
    """An annualised Sharpe ratio, or a's less b's, with its percentile interval by the stationary bootstrap.

    Both portfolios are resampled by the same dates. Of 600 samples of 1,000 sessions, the 95 % interval held the true
    ratio in 93.3 % and the true difference (of portfolios with correlation .7) in 94.5 %, for independent Student-t
    returns with 5 degrees of freedom; with a GARCH's clustered volatility in 95.7 and 94.3 % (standard error 0.9).

    Args:
        a: returns of a portfolio less the riskless rate.
        b: of another on the same sessions.
        level: of the interval.
        draws: samples.
        block: mean length of the blocks of sessions; None takes the best for the statistic's linear part, see
            `block_length`.
        periods: sessions in a year.
        generator: of the draws; a fixed one by default, so that the same returns give the same interval.

    Raises:
        ValueError: the lengths differ, or a setting is outside its domain.

    References:
        Politis and Romano (1994), The stationary bootstrap, JASA 89; Ledoit and Wolf (2008), Robust performance
        hypothesis testing with the Sharpe ratio, Journal of Empirical Finance 15.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> x = 0.0004 + 0.01 * torch.randn(1000, generator=generator)
        >>> print(sharpe_interval(x, generator=generator))
        1.064 [0.118, 1.981]
    """

    def ratio(mean: Tensor, square: Tensor) -> Tensor:
        return periods**0.5 * mean / (square - mean**2).clamp(min=1e-20).sqrt()

    return _interval(ratio, a, b, level, draws, block, generator)


def volatility_interval(
    a: Float[Tensor, " T"],
    b: Float[Tensor, " T"] | None = None,
    *,
    level: float = 0.95,
    draws: int = 2000,
    block: int | None = None,
    periods: float = 252.0,
    generator: torch.Generator | None = None,
) -> Interval:
    """An annualised volatility, or a's less b's, with its interval; all else as of `sharpe_interval`."""

    def deviation(mean: Tensor, square: Tensor) -> Tensor:
        return (periods * (square - mean**2).clamp(min=1e-20)).sqrt()

    return _interval(deviation, a, b, level, draws, block, generator)


def _interval(
    of_moments: Callable[[Tensor, Tensor], Tensor],
    a: Tensor,
    b: Tensor | None,
    level: float,
    draws: int,
    block: int | None,
    generator: torch.Generator | None,
) -> Interval:
    """Of a function of a mean and a mean square, or of its difference."""
    require(0 < level < 1, "level", level, "give a confidence inside (0, 1)")
    require(draws >= 100, "draws", draws, "draw at least 100 samples")
    require(block is None or block >= 1, "block", block, "give a mean length of at least 1")
    require(b is None or b.shape == a.shape, "b", None if b is None else tuple(b.shape), "give the sessions of a")
    x, y = a.detach().double(), None if b is None else b.detach().double()
    moments = torch.stack((x, x**2) if y is None else (x, x**2, y, y**2), -1)

    def statistic(m: Tensor) -> Tensor:
        value = of_moments(m[..., 0], m[..., 1])
        return value if y is None else value - of_moments(m[..., 2], m[..., 3])

    mean = moments.mean(0)
    if block is None:
        influence = (moments - mean) @ torch.func.grad(statistic)(mean)
        block = ceil(block_length(influence))
    if generator is None:
        generator = torch.Generator().manual_seed(0)
    weights = resampled_dates(len(x), draws, block, generator).to(x.device) / len(x)
    drawn = statistic(weights @ moments)
    ends = torch.quantile(drawn, drawn.new_tensor([(1 - level) / 2, (1 + level) / 2])).tolist()
    return Interval(float(statistic(mean)), ends[0], ends[1], float(drawn.std()), block)
