"""How likely a Sharpe ratio is real, given the returns' shape and how many strategies were tried."""

from math import e, sqrt

import torch
from jaxtyping import Float
from torch import Tensor

from qtorch.distributions.checks import require

_EULER = 0.5772156649015329


def probabilistic_sharpe(returns: Float[Tensor, " T"], benchmark: float = 0.0) -> float:
    r"""The probability that the true Sharpe ratio is above a benchmark's.

    $\Phi((\hat S - S^*) \sqrt{T - 1} / \sqrt{1 - \gamma_3 \hat S + (\gamma_4 - 1) \hat S^2 / 4})$ with the sample's
    skewness and kurtosis, by the estimator's asymptotic law for independent returns.

    Args:
        returns: of a portfolio less the riskless rate, a session.
        benchmark: Sharpe ratio a session, not annualised.

    Raises:
        ValueError: fewer than 3 sessions.

    References:
        Bailey and Lopez de Prado (2012), The Sharpe ratio efficient frontier, Journal of Risk 15.

    Example:
        >>> x = 0.0004 + 0.01 * torch.randn(1000, generator=torch.Generator().manual_seed(0))
        >>> round(probabilistic_sharpe(x), 2)
        0.98
    """
    x = returns.detach().double()
    require(len(x) >= 3, "returns", f"of {len(x)} sessions", "at least 3 are needed")
    z = (x - x.mean()) / x.std(correction=0)
    return probability_above(float(x.mean() / x.std()), len(x), float((z**3).mean()), float((z**4).mean()), benchmark)


def deflated_sharpe(returns: Float[Tensor, " T"], trials: int, variance: float | None = None) -> float:
    """The probability that the true Sharpe ratio is above what the best of some trials without skill would show.

    Args:
        returns: of the portfolio that was chosen, less the riskless rate, a session.
        trials: how many independent ones were looked at.
        variance: of their Sharpe ratios a session (an annualised ratio's over 252); 1 / T, that of ratios that are
            all zero in truth, by default.

    Raises:
        ValueError: fewer than 3 sessions, or no trial.

    References:
        Bailey and Lopez de Prado (2014), The deflated Sharpe ratio, Journal of Portfolio Management 40.
    """
    best = expected_best_sharpe(trials, 1 / len(returns) if variance is None else variance)
    return probabilistic_sharpe(returns, best)


def expected_best_sharpe(trials: int, variance: float) -> float:
    r"""The expected largest Sharpe ratio of trials without skill.

    $\sqrt V ((1 - \gamma) \Phi^{-1}(1 - 1/N) + \gamma \Phi^{-1}(1 - 1 / (N e)))$ with Euler's constant; of one trial,
    zero. For normal estimates it is 2.3 % above the exact value with 10 trials, 0.9 % with 100 and 0.4 % with 1,000.

    Args:
        trials: N, independent.
        variance: V of their Sharpe ratios.

    Raises:
        ValueError: no trial, or a negative variance.

    References:
        Bailey and Lopez de Prado (2014), equation 1.

    Example:
        >>> round(expected_best_sharpe(100, 0.5 / 250), 4)
        0.1132
    """
    require(trials >= 1, "trials", trials, "give how many strategies were looked at, 1 or more")
    require(variance >= 0, "variance", variance, "give a variance of at least 0")
    if trials == 1:
        return 0.0
    tails = torch.tensor([1 / trials, 1 / (trials * e)], dtype=torch.float64)
    common, far = (-torch.special.ndtri(tails)).tolist()
    return sqrt(variance) * ((1 - _EULER) * common + _EULER * far)


def probability_above(sharpe: float, sessions: int, skewness: float, kurtosis: float, benchmark: float) -> float:
    """`probabilistic_sharpe` by a sample's figures; the kurtosis of a normal law is 3."""
    spread = sqrt(1 - skewness * sharpe + (kurtosis - 1) / 4 * sharpe**2)
    z = (sharpe - benchmark) * sqrt(sessions - 1) / spread
    return float(torch.special.ndtr(torch.tensor(z, dtype=torch.float64)))
