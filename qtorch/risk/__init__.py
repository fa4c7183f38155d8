"""Risk measures, and scores and backtests of forecasts."""

from qtorch.risk.measures import expected_shortfall, value_at_risk
from qtorch.risk.scores import fz0, pinball

__all__ = ["expected_shortfall", "fz0", "pinball", "value_at_risk"]
