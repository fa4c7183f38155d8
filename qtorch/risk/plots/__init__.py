"""Pictures of risk forecasts; each function draws on the matplotlib axes that it is given.

Artists carry labels; `legend_above` makes the legend of one picture, `figure.legend` that of several.
"""

from qtorch.risk.plots.calibration import pit_histogram, reliability_curve, rolling_coverage
from qtorch.risk.plots.comparison import loss_difference
from qtorch.risk.plots.diagnostics import reliability_diagram, selective_risk_curve
from qtorch.risk.plots.forecasts import exceedance_chart, fan_chart
from qtorch.risk.plots.style import legend_above

__all__ = [
    "exceedance_chart",
    "fan_chart",
    "legend_above",
    "loss_difference",
    "pit_histogram",
    "reliability_curve",
    "reliability_diagram",
    "rolling_coverage",
    "selective_risk_curve",
]
