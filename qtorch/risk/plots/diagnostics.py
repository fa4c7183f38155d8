"""Pictures of uncertainty: reliability with its sampling band, and what is lost where the model is sure."""

from typing import TYPE_CHECKING

from qtorch.errors import ArgumentError
from qtorch.risk.diagnostics import CalibrationError, SelectiveRisk
from qtorch.risk.plots.style import BANDS, GRID, INK, LINE, RED, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def reliability_diagram(ax: "Axes", result: CalibrationError, confidence: float = 0.95) -> None:
    """Shares of outcomes below each quantile less its probability: zero if the forecast is right; red outside the band.

    The band is of each quantile by itself, as wide as the errors of the result are: over a panel it allows for what the
    assets of a date have in common.

    Args:
        ax: axes to draw on.
        result: of one series, or of a panel as a whole.
        confidence: of the band.

    Raises:
        ValueError: the result is of several series.
    """
    from matplotlib.ticker import PercentFormatter
    from scipy.stats import norm

    if result.error.ndim:
        shape = tuple(result.error.shape)
        raise ArgumentError(f"the result is of series {shape}: draw one series, or calibration_error(..., panel=True).")
    p, observed = result.probabilities.cpu().numpy(), result.observed.cpu().numpy()
    half = norm.ppf((1 + confidence) / 2) * result.standard_error.cpu().numpy()
    gap = observed - p
    outside = abs(gap) > half
    label = f"observed, n = {int(result.observations):,}: error {result.error:.2%}, {result.expected:.2%} if right"
    ax.fill_between(p, -half, half, color=BANDS[0], linewidth=0, label=f"{confidence:.0%} band if right")
    ax.axhline(0, color=INK, linewidth=0.8)
    ax.plot(p, gap, color=LINE, linewidth=1.4, marker="o", markersize=3.5, label=label)
    if outside.any():
        ax.plot(p[outside], gap[outside], "o", color=RED, markersize=5, zorder=4, label="outside the band")
    ax.set_xlim(0, 1)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    ax.set_xlabel("probability of the quantile", color=INK)
    ax.set_ylabel("outcomes below it, less that", color=INK)
    tidy(ax)


def selective_risk_curve(ax: "Axes", curve: SelectiveRisk, name: str = "loss") -> None:
    """Mean loss of the forecasts that are kept, the surest first, between the oracle's order and a random one.

    Args:
        ax: axes to draw on.
        curve: of `qtorch.risk.diagnostics.selective_risk`.
        name: of the loss.
    """
    from matplotlib.ticker import PercentFormatter

    kept, risk, oracle = (x.cpu().numpy() for x in (curve.coverage, curve.risk, curve.oracle))
    ax.plot(kept, oracle, color=GRID, linewidth=1.6, label="if losses were known")
    ax.axhline(curve.random, color=INK, linewidth=0.8, linestyle="--", label="at random")
    ax.plot(kept, risk, color=LINE, linewidth=1.8, label=f"the surest first, gain {curve.gain:.0%}")
    # Means of the first few jump about and would set the scale.
    late = kept >= min(0.02, kept[-1])
    low, high = min(oracle[late].min(), risk[late].min()), max(risk[late].max(), curve.random)
    room = 0.06 * max(high - low, 1e-12)
    ax.set_ylim(low - room, high + room)
    ax.set_xlim(0, 1)
    ax.xaxis.set_major_formatter(PercentFormatter(1))
    ax.set_xlabel("share of forecasts kept", color=INK)
    ax.set_ylabel(f"mean {name}", color=INK)
    tidy(ax)
