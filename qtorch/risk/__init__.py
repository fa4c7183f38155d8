"""Risk measures, portfolio aggregation, and scores and backtests of forecasts."""

from qtorch.risk.backtests import LikelihoodRatio, christoffersen, kupiec, traffic_light
from qtorch.risk.measures import expected_shortfall, value_at_risk
from qtorch.risk.scenarios import PortfolioRisk, complete, joint_scenarios, portfolio_risk, rolling_scenarios
from qtorch.risk.scores import fz0, pinball

__all__ = [
    "LikelihoodRatio",
    "PortfolioRisk",
    "christoffersen",
    "complete",
    "expected_shortfall",
    "fz0",
    "joint_scenarios",
    "kupiec",
    "pinball",
    "portfolio_risk",
    "rolling_scenarios",
    "traffic_light",
    "value_at_risk",
]
