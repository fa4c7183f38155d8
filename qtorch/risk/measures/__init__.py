"""Risk measures of a distribution of returns, of weighted scenarios, and over longer horizons."""

from qtorch.risk.measures.estimates import (
    Estimate,
    estimate_expected_shortfall,
    estimate_expectile,
    estimate_spectral_risk,
    estimate_value_at_risk,
)
from qtorch.risk.measures.expectiles import expectile
from qtorch.risk.measures.horizons import (
    filtered_scenarios,
    horizon_scenarios,
    scale_to_horizon,
    variance_factor,
)
from qtorch.risk.measures.liquidity import (
    LIQUIDITY_HORIZONS,
    RiskFactorCategory,
    es_by_liquidity_horizon,
    internal_models_capital,
    liquidity_horizon_es,
    stressed_es,
)
from qtorch.risk.measures.spectral import exponential_spectrum, spectral_risk
from qtorch.risk.measures.tail import expected_shortfall, value_at_risk

__all__ = [
    "LIQUIDITY_HORIZONS",
    "Estimate",
    "RiskFactorCategory",
    "es_by_liquidity_horizon",
    "estimate_expected_shortfall",
    "estimate_expectile",
    "estimate_spectral_risk",
    "estimate_value_at_risk",
    "expected_shortfall",
    "expectile",
    "exponential_spectrum",
    "filtered_scenarios",
    "horizon_scenarios",
    "internal_models_capital",
    "liquidity_horizon_es",
    "scale_to_horizon",
    "spectral_risk",
    "stressed_es",
    "value_at_risk",
    "variance_factor",
]
