"""What the manifest and the report tell of a night's copula."""

import math
from typing import Any

import pandas as pd

from qtorch.nightly.config import NightlyConfig
from qtorch.nightly.forecast_history import History
from qtorch.nightly.tables import ERRORS, PORTFOLIO


def dependence_facts(history: History, portfolio: pd.DataFrame) -> dict[str, Any]:
    """Whose the copula is, its degrees of freedom, how well scenarios determine tonight's VaR, and how odd today was.

    Args:
        history: of the assets that depend on each other.
        portfolio: its portfolio table, which may be empty.

    Returns:
        of: past, where there is no copula and nothing else is told; fitted or model.
        degrees_of_freedom: by horizon, of a t copula, else empty.
        p_value: of today's returns under yesterday's forecast, None where no asset has both. value_at_risk_error: by
        horizon and level, in the portfolio's unit; None without a portfolio.
    """
    if not history.by_copula:
        return {"of": "past"}
    joint: Any = history.tonight.distribution
    horizons = history.tonight.horizons
    df = getattr(getattr(joint, "copula", None), "df", None)
    own = () if df is None else zip(horizons, df.expand(joint.batch_shape)[0].tolist(), strict=True)
    p = history.oddness()
    errors: dict[str, dict[str, float]] = {str(horizon): {} for horizon in horizons}
    for row in portfolio[portfolio["asset"] == PORTFOLIO].to_dict("records"):
        errors[str(row["horizon"])][str(row["level"])] = row[ERRORS[0]]
    return {
        "of": "model" if history.own_copula else "fitted",
        "degrees_of_freedom": {str(horizon): round(value, 4) for horizon, value in own},
        "p_value": None if math.isnan(p) else round(p, 6),
        "value_at_risk_error": None if portfolio.empty else errors,
    }


def without_dependence(config: NightlyConfig) -> dict[str, Any]:
    """The same of a night that joined no assets: there is no portfolio, and they are more than a slice."""
    if config.risk.dependence == "past":
        return {"of": "past"}
    return {"of": "none", "degrees_of_freedom": {}, "p_value": None, "value_at_risk_error": None}
