"""Scenarios of joint laws by randomised quasi-Monte-Carlo, given what is known or under stress, and odd nights."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor
from torch.distributions import Distribution, Uniform

from qtorch.distributions import Empirical, JointDistribution, StudentTCopula, take
from qtorch.distributions.checks import require
from qtorch.distributions.coordinates import others, positions
from qtorch.distributions.copulas import Copula
from qtorch.risk.drawn_scenarios import drawn_scenarios
from qtorch.risk.measures.estimates import Estimate
from qtorch.risk.measures.tail import expected_shortfall, value_at_risk
from qtorch.risk.scenarios import rolling_scenarios

_PIECE = 1 << 20  # transforms that are held at once


def quasi_random_scenarios(
    joint: JointDistribution, count: int, *, randomisations: int = 8, seed: int = 0
) -> Float64[Tensor, "M S *batch N"]:
    """Scenarios from scrambled Sobol points, several times over: their means err less than those of as many draws.

    The first dimensions, which are the most even, go to the t's common mixing variable and the factors, the others to
    the assets' own shocks. A point is one scenario of every law of a batch. How well a number is determined is told by
    its spread over the randomisations, which are independent; see `randomised`.

    Args:
        joint: of `N` assets and R factors, R + N at most 21,200.
        count: scenarios of a randomisation, S; a power of 2.
        randomisations: M, independent scramblings.
        seed: of the first; the same gives the same scenarios.

    Raises:
        ValueError: the count is not a power of 2, or there is no randomisation.
        TypeError: the law's copula is not one of factors.

    References:
        Owen (1997), Scrambled net variance for integrals of smooth functions, Annals of Statistics 25; Glasserman
        (2003), Monte Carlo Methods in Financial Engineering, section 5.4.
    """
    from scipy.special import gammaincinv
    from scipy.stats import qmc

    require(count > 0 and count & (count - 1) == 0, "count", count, "give a power of 2, such as 1024")
    require(randomisations >= 1, "randomisations", randomisations, "give at least 1, or 2 for standard errors")
    copula, N = _factor_copula(joint), joint.event_shape[0]
    R, device = copula.loadings.shape[-1], copula.loadings.device
    points = np.stack([qmc.Sobol(1 + R + N, seed=seed + m).random(count) for m in range(randomisations)])
    # A scrambled point may be 0 to rounding.
    points = np.clip(points, 2.0**-33, 1 - 2.0**-33).reshape(randomisations, count, *[1] * len(joint.batch_shape), -1)
    mixing = torch.ones((), dtype=torch.float64, device=device)
    if isinstance(copula, StudentTCopula):
        half = copula.df.detach().double().cpu().numpy() / 2
        mixing = torch.from_numpy(np.asarray(gammaincinv(half, points[..., 0]) / half)).to(device)
        mixing = mixing.clamp(min=torch.finfo(torch.float64).tiny)
    shocks = torch.special.ndtri(torch.from_numpy(points[..., 1:])).to(device)
    with torch.no_grad():
        return joint.returns(copula.scores(shocks[..., :R], shocks[..., R:], mixing)).double()


def scenarios_of(
    joint: Distribution, count: int, *, randomisations: int = 8, seed: int = 0
) -> Float64[Tensor, "M S N"]:
    """Scenarios of any joint law: quasi-random ones where its copula is of factors, else independent draws.

    Args:
        joint: of no batch shape.
        count: scenarios of a randomisation, S; a power of 2 for quasi-random ones.
        randomisations: M.
        seed: of the first; the same gives the same scenarios.

    Returns:
        NaN for assets that the law leaves out.

    Raises:
        ValueError: as of `quasi_random_scenarios` or `drawn_scenarios`.
    """
    if of_factors(joint):
        return quasi_random_scenarios(joint, count, randomisations=randomisations, seed=seed)
    return torch.stack([drawn_scenarios(joint, count, seed=seed + m) for m in range(randomisations)])


def portfolio_scenarios(
    joint: Distribution, exposures: Float64[Tensor, "D N"], count: int, *, seed: int = 0
) -> Float64[Tensor, "D S"]:
    """A portfolio's scenarios at many dates: quasi-random, by tables of the marginals' quantiles, or drawn.

    Args:
        joint: of each date, batch shape `[D]`; its copula may be one for all. One without a copula of factors is drawn
            from, date by date; see `drawn_scenarios`.
        exposures: of each date; 0 leaves an asset out.
        count: S, a power of 2 for quasi-random ones; every date has the same points.
        seed: as of `quasi_random_scenarios`.

    Returns:
        Profits (losses negative) in the unit of the exposures; see `qtorch.risk.QuantileTable` for their error.

    Raises:
        ValueError: the count is not a power of 2.
    """
    D, N = exposures.shape
    if not of_factors(joint):
        profits = []
        for d, held in enumerate(exposures):
            drawn = scenarios_of(take(joint, d), count, randomisations=1, seed=seed)[0]
            profits.append(torch.where(held != 0, drawn, 0.0) @ held)
        return torch.stack(profits)
    copula: Any = joint.copula
    zero = torch.zeros(N, dtype=torch.float64, device=copula.loadings.device)
    parts = []
    with torch.no_grad():
        marginals = joint.marginals.expand(torch.Size((D, N)))
        for days in torch.arange(D).split(max(1, _PIECE // (count * N)) if copula.batch_shape else max(1, D)):
            own: Any = take(copula, days) if copula.batch_shape else copula
            uniform = JointDistribution(Uniform(zero, zero + 1), own)
            pit = quasi_random_scenarios(uniform, count, randomisations=1, seed=seed)[0].movedim(0, -2)
            first = days - days[:1] if copula.batch_shape else torch.zeros_like(days)
            rows = pit.flatten(end_dim=-2)
            parts.append(rolling_scenarios(take(marginals, days), rows, first * count, count, exposures[days]))
    return torch.cat(parts)


def randomised(statistic: Callable[[Tensor], Tensor], scenarios: Float64[Tensor, "M S ..."]) -> Estimate:
    """A statistic of scenarios and its standard error, from its spread over independent randomisations.

    Args:
        statistic: of the scenarios `[S, ...]` of one randomisation, such as a portfolio's value at risk.
        scenarios: of `M` randomisations, such as of `quasi_random_scenarios`.

    Raises:
        ValueError: there are fewer than two randomisations.

    Example:
        >>> from qtorch.distributions import GaussianCopula, StudentT
        >>> law = JointDistribution(StudentT(4.0, torch.zeros(2), 0.01), GaussianCopula(torch.full((2, 1), 0.7)))
        >>> both = quasi_random_scenarios(law, 1024).sum(-1)
        >>> estimate = randomised(lambda x: -x.quantile(0.01), both)
        >>> bool(estimate.standard_error < 0.02 * estimate.value)
        True
    """
    M = len(scenarios)
    require(M > 1, "randomisations", M, "give at least 2, from whose spread an error is known")
    values = torch.stack([statistic(part) for part in scenarios]).double()
    return Estimate(values.mean(0), values.std(0) / M**0.5)


def scenario_errors(profits: Float64[Tensor, "M S"], level: float) -> tuple[Float64[Tensor, ""], Float64[Tensor, ""]]:
    """Standard errors of the value at risk and expected shortfall of several sets of scenarios taken together.

    Args:
        profits: of `M` independent randomisations.
        level: confidence, such as 0.99.

    Returns:
        In the unit of the profits; NaN of one set, whose error no spread tells.

    Raises:
        ValueError: the level is not inside (0, 1).
    """
    if len(profits) == 1:
        unknown = torch.full((), torch.nan, dtype=torch.float64, device=profits.device)
        return unknown, unknown.clone()

    def error(measure: Callable[[Distribution, float], Tensor]) -> Float64[Tensor, ""]:
        return randomised(lambda x: measure(Empirical(x), level), profits).standard_error

    return error(value_at_risk), error(expected_shortfall)


def conditional_scenarios(
    joint: JointDistribution,
    returns: Float[Tensor, " N"],
    known: Bool[Tensor, " N"],
    count: int,
    *,
    randomisations: int = 8,
    seed: int = 0,
) -> Float64[Tensor, "M S N"]:
    """Scenarios of all assets given what some have done: these at their returns, the rest drawn from their law.

    For a book across time zones, when Tokyo has closed and New York has not.

    Args:
        joint: of tonight, of no batch shape.
        returns: what stands where nothing is known is not looked at.
        known: which are known.
        count: as of `quasi_random_scenarios`, as what follows.
        randomisations: M.
        seed: of the first.

    Raises:
        ValueError: a known return is not finite, or as of `quasi_random_scenarios`.
    """
    k = positions(known, joint.event_shape[0], known.device)
    rest = joint.condition(returns, known)
    drawn = quasi_random_scenarios(rest, count, randomisations=randomisations, seed=seed)
    scenarios = returns.double().expand(randomisations, count, -1).clone()
    scenarios[..., others(k, joint.event_shape[0])] = drawn
    return scenarios


def stress(
    joint: JointDistribution,
    shocks: Mapping[str, float] | Mapping[int, float],
    assets: Sequence[str] | None = None,
    *,
    count: int = 1024,
    randomisations: int = 8,
    seed: int = 0,
) -> Float64[Tensor, "M S N"]:
    """Scenarios in which some assets return what a stress says, and the others what that makes of them.

    Under a t copula a large shock raises the volatility of everything, not the mean alone.

    Args:
        joint: of tonight, of no batch shape.
        shocks: returns in decimals, by position or, with `assets`, by name.
        assets: names in the order of the law's coordinates.
        count: as of `quasi_random_scenarios`, as what follows.
        randomisations: M.
        seed: of the first.

    Raises:
        ValueError: there is no shock, or one to an asset that is not there.
        TypeError: the law's copula is not one of factors.

    Example:
        >>> from qtorch.distributions import StudentT
        >>> law = JointDistribution(StudentT(4.0, torch.zeros(3), 0.01), StudentTCopula(5.0, torch.full((3, 1), 0.8)))
        >>> scenarios = stress(law, {"SPY": -0.1}, ["SPY", "AAPL", "JPM"])
        >>> bool(scenarios[..., 1].mean() < -0.05)
        True
    """
    N = joint.event_shape[0]
    names: list[str | int] = list(range(N)) if assets is None else list(assets)
    unknown = [name for name in shocks if name not in names]
    require(len(names) == N, "assets", len(names), f"give the {N} names of the law's coordinates, in their order")
    require(bool(shocks) and not unknown, "shocks", unknown or shocks, f"give returns of some of {names}")
    value = torch.full((N,), torch.nan, dtype=torch.float64, device=_factor_copula(joint).loadings.device)
    for name, shock in shocks.items():
        value[names.index(name)] = shock
    known = ~value.isnan()
    return conditional_scenarios(joint, value, known, count, randomisations=randomisations, seed=seed)


def anomaly(
    joint: Distribution,
    returns: Float[Tensor, "*batch N"],
    mask: Bool[Tensor, "*batch N"] | None = None,
    *,
    draws: int = 1000,
    seed: int = 0,
) -> Float64[Tensor, "*batch"]:
    """How odd the returns of a date are: the probability of a joint density as low as theirs under their own forecast.

    Uniform if the forecast is right; a small one asks for a look at the data, or at the market. The density is that of
    the assets that are there, and so is that of the draws beside it.

    Args:
        joint: the forecast, batch shape `[*batch]`.
        returns: of the dates; NaN where none.
        mask: which count; those that are finite by default.
        draws: of the forecast, to compare with; probabilities are at least 1 / (draws + 1).
        seed: of the draws, apart from torch's generator.

    Returns:
        Probabilities; NaN where no asset is there.
    """
    law: Any = joint
    there = returns.isfinite() if mask is None else mask & returns.isfinite()
    devices = [returns.device] if returns.is_cuda else []
    with torch.no_grad(), torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        simulated = law.log_prob(law.sample(torch.Size([draws])).double(), there)
        observed = law.log_prob(returns.double(), there)
    p = (1 + (simulated <= observed).sum(0)) / (draws + 1)
    return torch.where(there.any(-1), p.double(), torch.nan)


def of_factors(law: Distribution) -> TypeGuard[JointDistribution]:
    """Whether scenarios can be made from shocks to the factors of the law's copula."""
    return isinstance(law, JointDistribution) and isinstance(law.copula, Copula)


def _factor_copula(joint: JointDistribution) -> Copula:
    """The law's copula, if scenarios can be made from shocks to its factors."""
    copula: Any = joint.copula
    if of_factors(joint):
        return copula
    raise TypeError(
        f"These scenarios are made from shocks to factors, which a {type(joint.copula).__name__} has not: give a law "
        "of a GaussianCopula or a StudentTCopula, or draw scenarios with joint.sample."
    )
