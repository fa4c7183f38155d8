"""The night's page: one self-contained HTML file."""

from collections.abc import Hashable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from qtorch.data import State
from qtorch.distributions import take
from qtorch.nightly.calibration import CALIBRATED
from qtorch.nightly.coverage import calibrated_section
from qtorch.nightly.drawing import NARROW, date_axis, responsive, svg
from qtorch.nightly.forecast_history import EWMA, HISTORICAL, MODEL
from qtorch.nightly.night import Night
from qtorch.nightly.record import ZONE_LEVEL, ZONES
from qtorch.nightly.tables import PORTFOLIO
from qtorch.nightly.uncertainty import MANY, MASS
from qtorch.risk.plots import fan_chart, pit_histogram

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN_DAYS = 250
SHOWN_LIGHTS, SHOWN_NAMES = 120, 40  # assets; of more the page tells how many there are, and the files which
PROBABILITIES = (0.01, 0.05, 0.25, 0.75, 0.95, 0.99)
NAMES = {
    MODEL: "qtorch",
    CALIBRATED: "qtorch, calibrated",
    EWMA: "RiskMetrics EWMA",
    HISTORICAL: "Historical simulation, 500 days",
}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "qtorch",
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica Neue", "Arial", "DejaVu Sans"],
    "font.size": 10,
    "axes.titlesize": 10,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


def write_report(night: Night, path: Path) -> None:
    """Writes the page; the same night gives the same bytes."""
    import jinja2
    import matplotlib

    loader = jinja2.PackageLoader("qtorch.nightly", "templates")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["percent"] = _percent
    environment.filters["money"] = lambda x: _amount(x, night.unit)
    with matplotlib.rc_context(STYLE):
        page = environment.get_template("report.html.j2").render(_content(night))
    path.write_text(page, encoding="utf-8")


def _content(night: Night) -> dict[str, Any]:
    due = night.states[night.states["status"] != "retired"]
    return {
        "date": night.date,
        "shown_days": SHOWN_DAYS,
        "unit": night.unit,
        "config": night.config,
        "model": night.model,
        "dependence": night.dependence,
        "headline": _headline(night),
        "alarms": [reading for reading in night.readings if reading.alarm],
        "portfolio_fan": None if night.held is None else responsive(lambda w: _portfolio_figure(night, w)),
        "contributions": _contributions(night),
        "largest": _largest(night),
        "trades": _trades(night),
        "unsure": _unsure(night),
        "calibrated": calibrated_section(night),
        "asset_fans": _asset_fans(night),
        "lights": _lights(night, due),
        "names": SHOWN_NAMES,
        "pit": responsive(lambda w: _pit_figure(night, w)),
        "comparison": _comparison(night),
        "markets": _markets(due),
        "not_usual": due[(due["status"] != "ok") | (due["reason"] != "")].reset_index().to_dict("records"),
        "retired": night.states[night.states["status"] == "retired"].reset_index().to_dict("records"),
        "findings": _findings(night),
    }


def _headline(night: Night) -> dict[str, Any] | None:
    if night.portfolio.empty:
        return None
    whole = night.portfolio[night.portfolio["asset"] == PORTFOLIO].set_index(["horizon", "level"])
    top, middle = max(night.config.risk.levels), sorted(night.config.risk.levels)[len(night.config.risk.levels) // 2]
    zones = None
    if night.held is not None and ZONE_LEVEL in night.config.risk.levels:
        zone, exceedances, observations = night.held.record.zones()
        zones = {"zone": ZONES[zone[0]], "exceedances": int(exceedances[0]), "observations": int(observations[0])}
    return {
        "figures": [
            {
                "horizon": horizon,
                "level": level,
                "measure": measure,
                "value": whole.loc[(horizon, level), column],
            }
            for horizon in night.config.model.horizons
            for measure, column, level in (
                ("Value at risk", "value_at_risk", top),
                ("Expected shortfall", "expected_shortfall", middle),
            )
        ],
        "errors": [
            {"horizon": horizon, "level": top, "error": whole.loc[(horizon, top), "value_at_risk_error"]}
            for horizon in night.config.model.horizons
            if night.history.by_copula
        ],
        "exposure": whole["exposure"].iloc[0],
        "status": whole["status"].iloc[0],
        "zones": zones,
    }


def _contributions(night: Night) -> dict[str, Any] | None:
    if night.portfolio.empty:
        return None
    level = sorted(night.config.risk.levels)[len(night.config.risk.levels) // 2]
    frame = night.portfolio[(night.portfolio["horizon"] == 1) & (night.portfolio["level"] == level)]
    total = frame.loc[frame["asset"] == PORTFOLIO, "expected_shortfall"].iloc[0]
    parts = frame[frame["asset"] != PORTFOLIO].sort_values("component_expected_shortfall", ascending=False)
    size = parts["component_expected_shortfall"].abs().max()
    rows = parts.assign(
        share=parts["component_expected_shortfall"] / total,
        width=100 * parts["component_expected_shortfall"].abs() / size,
        relief=parts["component_expected_shortfall"] < 0,
    )
    alone = rows["expected_shortfall"].sum()
    return {"level": level, "rows": rows.to_dict("records"), "diversified": 1 - total / alone if alone > 0 else np.nan}


def _largest(night: Night, most: int = 12) -> dict[str, Any]:
    top = max(night.config.risk.levels)
    frame = night.forecasts[(night.forecasts["level"] == top) & night.forecasts["value_at_risk"].notna()]
    wide = frame.pivot(index="asset", columns="horizon", values=["value_at_risk", "expected_shortfall"])
    wide = wide.loc[wide[("value_at_risk", 1)].sort_values(ascending=False).index[:most]]
    last = night.config.model.horizons[-1]
    ewma = night.records[EWMA].value_at_risk.get(top)
    yesterday = night.records[MODEL].value_at_risk.get(top)
    columns = {asset: n for n, asset in enumerate(night.history.panel.assets)}
    details = night.forecasts[night.forecasts["horizon"] == 1].drop_duplicates("asset").set_index("asset")
    rows = []
    for asset, row in wide.iterrows():
        n = columns[str(asset)]
        before = float(yesterday[-1, n]) if yesterday is not None and ewma is not None else np.nan
        rows.append(
            {
                "asset": asset,
                "var": row[("value_at_risk", 1)],
                "es": row[("expected_shortfall", 1)],
                "far": row[("value_at_risk", last)],
                "df": details["degrees_of_freedom"].get(asset),
                "change": row[("value_at_risk", 1)] / before - 1,
                "width": 100 * row[("value_at_risk", 1)] / wide[("value_at_risk", 1)].max(),
                "state": details["state"].get(asset),
            }
        )
    return {"level": top, "far": last, "rows": rows, "df": any(np.isfinite(row["df"]) for row in rows)}


def _trades(night: Night, most: int = 12) -> dict[str, Any] | None:
    """The largest trades, and what stands in their way."""
    if night.trades is None or night.allocation is None:
        return None
    size = night.trades["trade_weight"].abs()
    frame = night.trades.assign(
        width=100 * size / max(size.max(), np.finfo(float).tiny), buys=night.trades["trade_weight"] > 0
    )
    traded = frame[size > 0].sort_values("trade_weight", key=abs, ascending=False, kind="stable")
    levels = sorted(night.config.risk.levels)
    risk = [
        {
            "name": name,
            "level": level,
            "before": night.allocation["risk"]["before"][str(level)][measure],
            "after": night.allocation["risk"]["after"][str(level)][measure],
        }
        for name, measure, level in (
            ("Value at risk", "value_at_risk", levels[-1]),
            ("Expected shortfall", "expected_shortfall", levels[len(levels) // 2]),
        )
    ]
    stuck = frame[(size == 0) & ((frame["current_weight"] != 0) | (frame["state"] == State.OBSERVED.name))]
    return {
        "facts": night.allocation,
        "rows": traded.head(most).to_dict("records"),
        "more": max(0, len(traded) - most),
        "noted": bool((traded.head(most)["reason"] != "").any()),
        "valued": night.allocation["equity"] is not None,
        "risk": risk,
        "broken": {name: excess for name, excess in night.allocation["violations"].items() if excess > 0},
        "left": [{"reason": reason, "assets": _few(group["asset"])} for reason, group in stuck.groupby("reason")],
    }


def _few(names: pd.Series) -> str:
    """The first of some names, and how many more there are."""
    shown = ", ".join(names.iloc[:SHOWN_NAMES])
    return shown if len(names) <= SHOWN_NAMES else f"{shown} and {len(names) - SHOWN_NAMES} more"


def _unsure(night: Night, most: int = 12) -> dict[str, Any] | None:
    """The widest bands of the value at risk, drawn relative to it, and the assets that are flagged."""
    if night.unsure is None:
        return None
    shown = night.unsure.head(most)
    low, high = (shown[column] / shown["value_at_risk"] - 1 for column in ("value_at_risk_low", "value_at_risk_high"))
    reach = max(-low.min(), high.max(), np.finfo(float).tiny)
    bars = shown.assign(start=50 * (1 + low / reach), width=50 * (high - low) / reach)
    flagged = night.unsure[night.unsure["flags"] != ""]
    return {
        "level": night.unsure["level"].max(),
        "mass": MASS,
        "draws": night.history.alone.draws,
        "many": MANY,
        "rows": bars.to_dict("records"),
        "flagged": flagged[["asset", "flags"]].to_dict("records"),
        "reach": reach,
        "median": night.unsure["relative_width"].median(),
    }


def _lights(night: Night, due: pd.DataFrame) -> dict[str, Any] | None:
    """Of few assets all lights, in their order; of many how many are of each colour, and the worst."""
    record = night.records[MODEL]
    if ZONE_LEVEL not in record.value_at_risk:
        return None
    zone, exceedances, observations = record.zones()
    names = due.index
    rows = [
        {"asset": a, "zone": ZONES[zone[n]], "exceedances": int(exceedances[n]), "observations": int(observations[n])}
        for n, a in enumerate(night.history.panel.assets)
        if a in names and int(observations[n])
    ]
    if not rows:
        return None
    worst = sorted(rows, key=lambda row: -row["exceedances"])[:SHOWN_LIGHTS]
    counts = {str(colour): sum(row["zone"] == colour for row in rows) for colour in ZONES[:3]}
    return {"rows": rows if len(rows) <= SHOWN_LIGHTS else worst, "all": len(rows), "counts": counts}


def _comparison(night: Night) -> list[dict[str, Any]]:
    frame = night.backtest[night.backtest["asset"] != PORTFOLIO].assign(rejected=lambda f: f["kupiec_p"] < 0.05)
    rows = []
    for level in sorted(night.config.risk.levels):
        at_level = frame[frame["level"] == level]
        best = at_level.groupby("model")["fz0"].mean().idxmin()
        for model in (name for name in NAMES if name in night.records):
            of = at_level[at_level["model"] == model]
            rows.append(
                {
                    "level": level,
                    "model": NAMES[model],
                    "rate": of["exceedances"].sum() / of["observations"].sum(),
                    "expected": 1 - level,
                    "rejected": int(of["rejected"].sum()),
                    "assets": len(of),
                    "pinball": 100 * of["pinball"].mean(),
                    "fz0": of["fz0"].mean(),
                    "best": model == best,
                    "first": model == MODEL,
                }
            )
    return rows


def _markets(due: pd.DataFrame) -> list[dict[str, Any]]:
    names = (State.OBSERVED, State.CLOSED, State.MISSING)
    table = due.groupby(["exchange", "state"]).size().unstack(fill_value=0)
    return [
        {"exchange": exchange} | {state.name.lower(): int(row.get(state.name, 0)) for state in names}
        for exchange, row in table.iterrows()
    ]


def _findings(night: Night) -> list[dict[Hashable, Any]]:
    """The findings of the last year, the newest first."""
    recent = night.findings[night.findings["date"] > night.date - pd.Timedelta(days=365)]
    return recent.sort_values("date", ascending=False).head(20).to_dict("records")


def _portfolio_figure(night: Night, width: float) -> "Figure":
    from matplotlib.figure import Figure

    assert night.held is not None
    fan, scale = night.held.fan, 100 if night.unit == "weight" else 1
    quantiles = torch.stack([fan.icdf(torch.tensor(p)) for p in PROBABILITIES], dim=-1)[-SHOWN_DAYS:]
    figure = Figure(figsize=(width, 3.6))
    ax = figure.subplots()
    profit = night.held.record.returns[-SHOWN_DAYS:, 0]
    fan_chart(ax, night.held.dates[-SHOWN_DAYS:], scale * quantiles.numpy(), scale * profit.numpy(), PROBABILITIES)
    ax.set_ylabel("profit, % of weights" if night.unit == "weight" else "profit, in the positions' currency")
    columns = 5 if width > 6 else 2
    figure.legend(loc="outside lower center", ncols=columns, fontsize=9)
    date_axis(ax, width)
    return figure


def _asset_fans(night: Night, most: int = 6) -> list[dict[str, Any]]:
    """Small fan charts of the assets with the largest value at risk tonight."""
    from matplotlib.figure import Figure

    chosen = [row["asset"] for row in _largest(night, most)["rows"]]
    history = night.history
    forecast = history.forecast.select(history.backtest)
    record = night.records[MODEL]
    out = []
    for asset in chosen:
        n = history.panel.assets.index(asset)
        there = forecast.mask[:, n] & record.returns[:, n].isfinite()
        there = torch.arange(len(there))[there][-SHOWN_DAYS:]
        if not len(there):
            continue
        marginals = take(forecast.marginals, (there, 0, n))
        quantiles = torch.stack([marginals.icdf(torch.tensor(p, dtype=torch.float64)) for p in PROBABILITIES], dim=-1)
        figure = Figure(figsize=(NARROW, 2.3))
        ax = figure.subplots()
        dates = history.record_dates()[there.numpy()]
        fan_chart(ax, dates, 100 * quantiles.numpy(), 100 * record.returns[there, n].numpy(), PROBABILITIES)
        ax.set_ylabel("return, %")
        date_axis(ax, NARROW)
        beyond = int((record.returns[there, n] < quantiles[:, 0]).sum())
        out.append({"asset": asset, "image": svg(figure), "beyond": beyond, "days": len(there)})
    return out


def _pit_figure(night: Night, width: float) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(min(width, 6.0), 3.0))
    ax = figure.subplots()
    pit_histogram(ax, night.transforms.numpy())
    ax.set_xlabel("where the outcome fell in its forecast (0: worst, 1: best)")
    ax.set_ylabel("frequency, 1 if right")
    figure.legend(loc="outside upper right", fontsize=9)
    return figure


def _percent(value: float, digits: int = 2) -> str:
    return "–" if value is None or not np.isfinite(value) else f"{100 * value:.{digits}f} %"


def _amount(value: float, unit: str) -> str:
    if unit == "weight":
        return _percent(value)
    return "–" if not np.isfinite(value) else f"{value:,.0f}"
