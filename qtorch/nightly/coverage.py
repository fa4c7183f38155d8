"""The page's part on calibration: what it changes, and how often values at risk were exceeded, raw and calibrated."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from qtorch.nightly.calibration import CALIBRATED, COLUMNS, MUCH, changed_much, changes
from qtorch.nightly.drawing import date_axis, responsive
from qtorch.nightly.forecast_history import MODEL
from qtorch.nightly.night import Night
from qtorch.nightly.record import ZONE_SESSIONS, Record
from qtorch.risk.plots import rolling_coverage
from qtorch.risk.plots.forecasts import hits, rolling_count

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def calibrated_section(night: Night, most: int = 12) -> dict[str, Any] | None:
    """The assets whose value at risk the calibrator changes most, and how often it and the raw one were exceeded."""
    if night.calibration is None:
        return None
    level = max(night.config.risk.levels)
    change = changes(night.forecasts)
    at = (night.forecasts["level"] == level) & (night.forecasts["horizon"] == night.config.model.horizons[0])
    tonight = night.forecasts[at].set_index("asset")
    rates = {name: _recent_rates(night.records[name], level) for name in (MODEL, CALIBRATED)}
    rows = []
    for asset in change.index[np.argsort(-change.abs().to_numpy(), kind="stable")][:most]:
        n = night.history.panel.assets.index(asset)
        rows.append(
            {
                "asset": asset,
                "raw": tonight["value_at_risk"][asset],
                "var": tonight[COLUMNS[0]][asset],
                "es": tonight[COLUMNS[1]][asset],
                "change": change[asset],
                "much": abs(change[asset]) > MUCH,
                "before": rates[MODEL][n],
                "after": rates[CALIBRATED][n],
            }
        )
    outside = {name: sum(rate["outside"] for rate in of) for name, of in rates.items()}
    return {
        "level": level,
        "rows": rows,
        "much": MUCH,
        "changed": changed_much(night.forecasts),
        "sessions": ZONE_SESSIONS,
        "judged": sum(rate["days"] > 0 for rate in rates[MODEL]),
        "outside": (outside[MODEL], outside[CALIBRATED]),
        "origin": night.calibration.origin,
        "note": night.calibration.note,
        "method": type(night.calibration.calibrator).__name__,
        "series": _series(night, change)[0],
        "picture": responsive(lambda w: _figure(night, change, w)),
    }


def _recent_rates(record: Record, level: float, confidence: float = 0.95) -> list[dict[str, Any]]:
    """Of each series' last 250 days: how many, the share of exceedances, and if that leaves the binomial's band."""
    from scipy.stats import binom

    there = record.recent(level)
    days, beyond = there.sum(0).numpy(), (record.exceeded(level) & there).sum(0).numpy()
    low, high = binom.interval(confidence, np.maximum(days, 1), 1 - level)
    return [
        {"days": int(n), "rate": k / n if n else np.nan, "outside": bool(n and not a <= k <= b)}
        for n, k, a, b in zip(days, beyond, low, high, strict=True)
    ]


def _series(night: Night, change: pd.Series) -> tuple[str, Record, Record, int]:
    """What the chart of coverage is about, its records raw and calibrated, and its column in them.

    The portfolio, or without one the asset that is changed most.
    """
    if night.held is not None and night.held_calibrated is not None:
        return "the portfolio", night.held.record, night.held_calibrated, 0
    asset = str(change.abs().idxmax())
    return asset, night.records[MODEL], night.records[CALIBRATED], night.history.panel.assets.index(asset)


def _figure(night: Night, change: pd.Series, width: float) -> "Figure":
    from matplotlib.figure import Figure

    level = max(night.config.risk.levels)
    _, raw, calibrated, n = _series(night, change)
    dates = night.history.record_dates() if night.held is None else night.held.dates
    returns = raw.returns[:, n].numpy()
    there, exceeded = hits(returns, raw.value_at_risk[level][:, n].numpy())
    window = min(ZONE_SESSIONS, max(1, len(exceeded) // 2))
    figure = Figure(figsize=(width, 3.0))
    ax = figure.subplots()
    rolling_coverage(ax, dates, returns, calibrated.value_at_risk[level][:, n].numpy(), level, window)
    rate = rolling_count(exceeded, window)[window - 1 :] / window
    days = dates.to_numpy()[there][window - 1 :]
    ax.plot(days, rate, color="#5b6876", linewidth=1.2, linestyle="--", drawstyle="steps-post", label="raw")
    ax.set_ylim(top=max(ax.get_ylim()[1], 1.15 * rate.max(initial=0.0)))
    figure.legend(loc="outside lower center", ncols=5 if width > 6 else 2, fontsize=9)
    date_axis(ax, width)
    return figure
