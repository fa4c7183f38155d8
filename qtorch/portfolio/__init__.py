"""Portfolios: allocation layers under constraints, and objectives."""

from qtorch.portfolio.capped_simplex import project_capped_simplex
from qtorch.portfolio.constraints import Constraints, GroupCap
from qtorch.portfolio.convex_program import ConvexProgram
from qtorch.portfolio.costs import Costs
from qtorch.portfolio.differential_sharpe import differential_sharpe
from qtorch.portfolio.drawdown import maximum_drawdown
from qtorch.portfolio.groups import numbered
from qtorch.portfolio.market_neutral import MarketNeutral
from qtorch.portfolio.minimum_variance import MinimumVariance
from qtorch.portfolio.projected import Projected
from qtorch.portfolio.projection import project
from qtorch.portfolio.ratios import sharpe, sortino, tracking_error
from qtorch.portfolio.risk_parity import risk_parity
from qtorch.portfolio.scenario_program import ScenarioProgram
from qtorch.portfolio.scenario_returns import portfolio_returns, scenario_returns
from qtorch.portfolio.scenario_utility import Growth, MeanVariance, ScenarioUtility, TailRisk
from qtorch.portfolio.shortfall import RockafellarUryasev, cvar
from qtorch.portfolio.simulation import Simulation, simulate
from qtorch.portfolio.softmax import Softmax
from qtorch.portfolio.utility import log_wealth, mean_variance

__all__ = [
    "Constraints",
    "ConvexProgram",
    "Costs",
    "GroupCap",
    "Growth",
    "MarketNeutral",
    "MeanVariance",
    "MinimumVariance",
    "Projected",
    "RockafellarUryasev",
    "ScenarioProgram",
    "ScenarioUtility",
    "Simulation",
    "Softmax",
    "TailRisk",
    "cvar",
    "differential_sharpe",
    "log_wealth",
    "maximum_drawdown",
    "mean_variance",
    "numbered",
    "portfolio_returns",
    "project",
    "project_capped_simplex",
    "risk_parity",
    "scenario_returns",
    "sharpe",
    "simulate",
    "sortino",
    "tracking_error",
]
