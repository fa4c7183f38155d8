"""Expected shortfall over the liquidity horizons of Basel's market risk standard, and the capital that follows."""

from collections.abc import Sequence
from enum import Enum

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from qtorch.distributions.checks import require
from qtorch.errors import ArgumentError
from qtorch.risk.measures.estimates import estimate_expected_shortfall

LIQUIDITY_HORIZONS = (10, 20, 40, 60, 120)
"""Sessions, in ascending order; the first is the base horizon of the expected shortfalls."""


class RiskFactorCategory(Enum):
    """Basel's categories of risk factors, each with the liquidity horizon that a bank must at least use.

    References:
        Basel Committee on Banking Supervision (2019), MAR33.12, table 2.

    Example:
        >>> RiskFactorCategory.EQUITY_PRICE_SMALL_CAP.liquidity_horizon
        20
    """

    INTEREST_RATE_SPECIFIED_CURRENCY = "Interest rate: EUR, USD, GBP, AUD, JPY, SEK, CAD and the domestic currency", 10
    INTEREST_RATE_OTHER_CURRENCY = "Interest rate: other currencies", 20
    INTEREST_RATE_VOLATILITY = "Interest rate: volatility", 60
    INTEREST_RATE_OTHER = "Interest rate: other types", 60
    CREDIT_SOVEREIGN_INVESTMENT_GRADE = "Credit spread: sovereign, investment grade", 20
    CREDIT_SOVEREIGN_HIGH_YIELD = "Credit spread: sovereign, high yield", 40
    CREDIT_CORPORATE_INVESTMENT_GRADE = "Credit spread: corporate, investment grade", 40
    CREDIT_CORPORATE_HIGH_YIELD = "Credit spread: corporate, high yield", 60
    CREDIT_VOLATILITY = "Credit spread: volatility", 120
    CREDIT_OTHER = "Credit spread: other types", 120
    EQUITY_PRICE_LARGE_CAP = "Equity price, large market capitalisation", 10
    EQUITY_PRICE_SMALL_CAP = "Equity price, small market capitalisation", 20
    EQUITY_VOLATILITY_LARGE_CAP = "Equity volatility, large market capitalisation", 20
    EQUITY_VOLATILITY_SMALL_CAP = "Equity volatility, small market capitalisation", 60
    EQUITY_OTHER = "Equity: other types", 60
    FX_SPECIFIED_PAIR = "FX rate: specified currency pairs", 10
    FX_OTHER_PAIR = "FX rate: other currency pairs", 20
    FX_VOLATILITY = "FX: volatility", 40
    FX_OTHER = "FX: other types", 40
    ENERGY_PRICE = "Energy and carbon emissions trading price", 20
    PRECIOUS_METAL_PRICE = "Precious and non-ferrous metals price", 20
    OTHER_COMMODITY_PRICE = "Other commodities price", 60
    ENERGY_VOLATILITY = "Energy and carbon emissions trading: volatility", 60
    PRECIOUS_METAL_VOLATILITY = "Precious and non-ferrous metals: volatility", 60
    OTHER_COMMODITY_VOLATILITY = "Other commodities: volatility", 120
    COMMODITY_OTHER = "Commodity: other types", 120

    @property
    def liquidity_horizon(self) -> int:
        """In sessions."""
        return self.value[1]


def liquidity_horizon_es(
    expected_shortfalls: Float[Tensor, "J *batch"], horizons: Sequence[int] = LIQUIDITY_HORIZONS
) -> Float[Tensor, "*batch"]:
    """ES = sqrt(sum_j (ES_j sqrt((LH_j - LH_{j-1}) / LH_1))^2), with LH_0 = 0.

    Args:
        expected_shortfalls: at the base horizon LH_1 and 97.5 %, positive losses: the first to shocks of all risk
            factors, the j-th to shocks of only those whose liquidity horizon is LH_j or longer.
        horizons: sessions, ascending, one for each.

    Returns:
        Liquidity-adjusted expected shortfall, in the unit of the given ones.

    Raises:
        ValueError: the horizons are not ascending, or not one for each expected shortfall.

    References:
        Basel Committee on Banking Supervision (2019), MAR33.4 and MAR33.5.
    """
    ascending = all(a < b for a, b in zip((0, *horizons), horizons, strict=False))
    fits = ascending and len(horizons) == len(expected_shortfalls)
    require(fits, "horizons", tuple(horizons), f"give {len(expected_shortfalls)} ascending numbers of sessions")
    step = torch.tensor(horizons, dtype=expected_shortfalls.dtype).diff(prepend=torch.zeros(1)) / horizons[0]
    step = step.to(expected_shortfalls.device).reshape(-1, *[1] * (expected_shortfalls.ndim - 1))
    return torch.sqrt((step * expected_shortfalls**2).sum(0))


def es_by_liquidity_horizon(
    profits: Float[Tensor, "S F *batch"],
    factor_horizons: Int64[Tensor, " F"],
    level: float = 0.975,
    horizons: Sequence[int] = LIQUIDITY_HORIZONS,
    weights: Float[Tensor, " S"] | None = None,
) -> Float64[Tensor, "J *batch"]:
    """What `liquidity_horizon_es` takes, for a portfolio whose profit is the sum over its risk factors.

    Args:
        profits: of a scenario over the base horizon, from each risk factor by itself.
        factor_horizons: liquidity horizon of each risk factor in sessions, such as of its `RiskFactorCategory`.
        level: confidence.
        horizons: sessions, ascending.
        weights: of the scenarios, not negative, in any scale; equal by default.

    Returns:
        Positive losses; zero at horizons that no factor reaches.
    """
    parts = []
    for horizon in horizons:
        reached = factor_horizons >= horizon
        profit = profits[:, reached].sum(1)
        parts.append(estimate_expected_shortfall(profit, level, weights).value)
    return torch.stack(parts)


def stressed_es(reduced_stressed: Tensor, full_current: Tensor, reduced_current: Tensor) -> Tensor:
    """ES = ES_{R,S} max(ES_{F,C} / ES_{R,C}, 1): the stress period's, scaled up to all risk factors.

    Args:
        reduced_stressed: ES_{R,S}, of the reduced set of risk factors over the stress period.
        full_current: ES_{F,C}, of the full set over the last twelve months.
        reduced_current: ES_{R,C}, of the reduced set over the last twelve months; at least 75 % of the full set's.

    Raises:
        ValueError: the reduced set's current expected shortfall is below 75 % of the full set's.

    References:
        Basel Committee on Banking Supervision (2019), MAR33.5 to MAR33.7.
    """
    short = reduced_current < 0.75 * full_current
    if short.any():
        raise ArgumentError(
            f"{int(short.sum())} reduced sets of risk factors explain less than 75 % of the full set's expected "
            "shortfall: add risk factors to them."
        )
    return reduced_stressed * (full_current / reduced_current).clamp(min=1)


def internal_models_capital(
    unconstrained: Tensor, by_risk_class: Float[Tensor, "C *batch"], rho: float = 0.5
) -> Tensor:
    """IMCC = rho IMCC(C) + (1 - rho) sum_i IMCC(C_i): half of the diversification between risk classes counts.

    Args:
        unconstrained: stressed expected shortfall of all risk classes together.
        by_risk_class: of each class (interest rate, equity, foreign exchange, commodity, credit spread) by itself.
        rho: relative weight of the unconstrained.

    References:
        Basel Committee on Banking Supervision (2019), MAR33.13 to MAR33.15.
    """
    return rho * unconstrained + (1 - rho) * by_risk_class.sum(0)
