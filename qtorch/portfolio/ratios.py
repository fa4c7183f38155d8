"""Return per risk: Sharpe and Sortino ratios, and the error of tracking a benchmark."""

from jaxtyping import Bool, Float
from torch import Tensor

from qtorch.portfolio.moments import deviation, mean_and_variance, usable


def sharpe(
    returns: Float[Tensor, "*batch T"], mask: Bool[Tensor, "*#batch T"] | None = None, *, periods: float = 1.0
) -> Float[Tensor, "*batch"]:
    """Mean over standard deviation of a window's excess returns, times the root of the periods in a year.

    Args:
        returns: of a portfolio, or of scenarios; subtract the riskless rate first where it matters.
        mask: of the usable sessions.
        periods: 252 annualises daily returns.

    References:
        Sharpe (1994), The Sharpe ratio, Journal of Portfolio Management 21.
    """
    mean, variance = mean_and_variance(returns, mask)
    return periods**0.5 * mean / deviation(variance)


def sortino(
    returns: Float[Tensor, "*batch T"],
    mask: Bool[Tensor, "*#batch T"] | None = None,
    *,
    target: float = 0.0,
    periods: float = 1.0,
) -> Float[Tensor, "*batch"]:
    """Mean excess over the target, per root mean square of what falls short of it (over all sessions).

    Args:
        returns: of a portfolio, or of scenarios.
        mask: of the usable sessions.
        target: least acceptable return a session.
        periods: 252 annualises daily returns.

    References:
        Sortino and Price (1994), Performance measurement in a downside risk framework, Journal of Investing 3.
    """
    x, there, count = usable(returns, mask)
    short = (x - target).clamp(max=0) * there
    number = count.clamp(min=1)
    return periods**0.5 * (x.sum(-1) / number - target) / deviation((short**2).sum(-1) / number)


def tracking_error(
    returns: Float[Tensor, "*batch T"],
    benchmark: Float[Tensor, "*#batch T"],
    mask: Bool[Tensor, "*#batch T"] | None = None,
    *,
    periods: float = 1.0,
) -> Float[Tensor, "*batch"]:
    """Standard deviation of the returns less the benchmark's.

    Args:
        returns: of a portfolio, or of scenarios.
        benchmark: of the same sessions.
        mask: of the usable sessions.
        periods: 252 annualises daily returns.
    """
    return periods**0.5 * deviation(mean_and_variance(returns - benchmark, mask)[1])
