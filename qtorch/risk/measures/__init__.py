"""Risk measures of a distribution of returns, of weighted scenarios, and over longer horizons."""

from qtorch.risk.measures.estimates import (
    Estimate,
    estimate_expected_shortfall,
    estimate_expectile,
    estimate_spectral_risk,
    estimate_value_at_risk,
)
from qtorch.risk.measures.expectiles import expectile
from qtorch.risk.measures.spectral import exponential_spectrum, spectral_risk
from qtorch.risk.measures.tail import expected_shortfall, value_at_risk

__all__ = [
    "Estimate",
    "estimate_expected_shortfall",
    "estimate_expectile",
    "estimate_spectral_risk",
    "estimate_value_at_risk",
    "expected_shortfall",
    "expectile",
    "exponential_spectrum",
    "spectral_risk",
    "value_at_risk",
]
