"""Coverage of 95 and 99 % VaR over rolling 250 sessions, raw and calibrated, of all assets of the sample.

The daily rebalanced mean of its 20 stocks is one more asset, `MEAN`. A window is inside the band if its number of
exceedances is between the 2.5 and 97.5 (or 0.5 and 99.5) % quantiles of the binomial law of 250 sessions. Losses are
means of returns in per cent. All calibrators start on `--start`, are scored from `--score`, and see nothing of a date's
future. `--choose` prints a grid of settings, on data to the end of 2007 alone.

Usage: python benchmarks/conformal.py [--choose] [--raw riskmetrics garch historical] [--methods PID]
    [--picture docs/conformal.png]
"""

import argparse
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from qtorch.calibration import (
    AdaptiveConformal,
    AggregatedAdaptiveConformal,
    ConformalisedQuantiles,
    ConformalPID,
    OnlineCalibrator,
    backtest,
    fit_recalibration,
    recalibrate,
)
from qtorch.data import Panel, WindowSource, WindowSpec, load_sample
from qtorch.distributions import Empirical
from qtorch.forecast import Forecast
from qtorch.models import Garch, HistoricalSimulation, RiskMetrics
from qtorch.portfolio.groups import numbered
from qtorch.risk import fz0, pinball

LEVELS, WINDOW, MEAN = (0.95, 0.99), 250, "MEAN"
CRISES = {"2008-09": ("2008-01-01", "2009-12-31"), "2020": ("2020-01-01", "2020-12-31")}
SPEC = WindowSpec(context=16, horizons=(1,))


def market(start: str, until: str) -> Panel:
    """The sample's closes, and those of the daily rebalanced mean of its 20 stocks."""
    frame = load_sample()[["date", "asset", "exchange", "close"]]
    frame = frame[(frame["date"] >= pd.Timestamp(start) - pd.Timedelta(days=900)) & (frame["date"] <= until)]
    wide = frame[frame["exchange"] == "XNYS"].pivot(index="date", columns="asset", values="close")
    wide = wide.drop(columns=["NASDAQ", "SP500", "WTI"])
    close = 100 * (1 + wide.pct_change().mean(axis=1).fillna(0)).cumprod()
    mean = pd.DataFrame({"date": close.index, "asset": MEAN, "exchange": "XNYS", "close": close.to_numpy()})
    return Panel.from_frame(pd.concat([frame, mean], ignore_index=True))


def raw(name: str, panel: Panel, source: WindowSource, start: str) -> Forecast:
    dates = panel.dates[panel.dates >= start]
    model = {
        "riskmetrics": RiskMetrics(SPEC),
        "historical": HistoricalSimulation(250, SPEC),
        "garch": Garch(errors="student_t", window=1000, refit_every=250, spec=SPEC),
    }[name]
    return model.forecast(panel, dates, source=source)


def methods(groups: dict[str, str | None]) -> dict[str, OnlineCalibrator]:
    """With settings chosen before 2008."""
    return {
        "ACI": AdaptiveConformal(LEVELS),
        "ACI, relative": AdaptiveConformal(LEVELS, relative=True),
        "ACI, by exchange": AdaptiveConformal(LEVELS, groups=groups),
        "ACI, relative, by exchange": AdaptiveConformal(LEVELS, relative=True, groups=groups),
        "DtACI": AggregatedAdaptiveConformal(LEVELS),
        "PID": ConformalPID(LEVELS),
        "CQR, 500": ConformalisedQuantiles(LEVELS),
        "CQR, grouped": ConformalisedQuantiles(LEVELS, 250, half_life=60.0, groups=groups),
    }


def grid(groups: dict[str, str | None]) -> dict[str, OnlineCalibrator]:
    made: dict[str, OnlineCalibrator] = {}
    for k in (0.1, 0.2, 0.5):
        made[f"ACI {k} p"] = AdaptiveConformal(LEVELS, [k * 0.05, k * 0.01])
    for k in (0.1, 0.2, 0.4, 0.8):
        made[f"ACI relative {k}"] = AdaptiveConformal(LEVELS, k, relative=True)
    for eta, saturation in ((0.05, 1.0), (0.1, 1.0), (0.1, 0.3), (0.1, 0.1), (0.2, 0.3)):
        made[f"PID {eta} {saturation}"] = ConformalPID(LEVELS, eta, saturation=saturation)
    for half_life in (60.0, 250.0):
        made[f"CQR grouped {half_life}"] = ConformalisedQuantiles(LEVELS, 250, half_life=half_life, groups=groups)
    return made


def recalibrated(forecast: Forecast, returns: Tensor, groups: Tensor, every: int = 21) -> tuple[list[Tensor], ...]:
    """VaR and ES by a map of the transforms known at each refit, those of the dates at least one row before it."""
    pits = forecast.pit(returns)
    var, es = [[] for _ in LEVELS], [[] for _ in LEVELS]
    for first in range(0, len(forecast.dates), every):
        part = forecast.select(slice(first, first + every))
        if first:
            # The outcome of the row before the last may be known later, where a market was closed: three rows are left.
            past = pits[max(0, first - 1000) : max(1, first - 3)]
            part = recalibrate(part, fit_recalibration(past, groups=groups, half_life=250.0))
        for k, level in enumerate(LEVELS):
            var[k].append(part.value_at_risk(level))
            es[k].append(part.expected_shortfall(level))
    return [torch.cat(x) for x in var], [torch.cat(x) for x in es]


def counts(hit: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Exceedances of the window that ends on each date, NaN where the asset has no return or fewer than 250."""
    result = np.full(hit.shape, np.nan)
    for n in range(hit.shape[1]):
        at = np.flatnonzero(there[:, n])
        total = np.concatenate([[0], hit[at, n].cumsum()])
        result[at[WINDOW - 1 :], n] = total[WINDOW:] - total[:-WINDOW]
    return result


def row(
    name: str, forecast: Forecast, returns: Tensor, var: list[Tensor], es: list[Tensor], score: str
) -> tuple[list[dict], list[np.ndarray]]:
    dates, lines, rolled = forecast.dates, [], []
    scored = np.asarray(dates >= score)
    for k, level in enumerate(LEVELS):
        y, v, e = returns[:, 0].double(), var[k][:, 0], es[k][:, 0]
        there = (y.isfinite() & v.isfinite()).numpy()
        hit = (y < -v).numpy() & there
        x = counts(hit[scored], there[scored])
        law, full = stats.binom(WINDOW, 1 - level), np.isfinite(x)
        inside = {c: (x >= law.ppf((1 - c) / 2)) & (x <= law.ppf((1 + c) / 2)) for c in (0.95, 0.99)}
        where = torch.from_numpy(there & scored[:, None])
        y, v, e = (100 * torch.where(where, z, torch.nan) for z in (y, v, e))
        losses = [loss.nanmean(0).nanmean().item() for loss in (pinball(y, v, level), fz0(y, v, e, level))]
        line = {"model": name, "level": level, "beyond": hit[scored][there[scored]].mean()}
        line |= {f"in {c:.0%}": inside[c][full].mean() for c in inside}
        line |= {"above 99%": (x > law.ppf(0.995))[full].mean()}
        m = forecast.assets.index(MEAN)
        line |= {f"mean in {c:.0%}": inside[c][:, m][full[:, m]].mean() for c in inside}
        for crisis, (a, b) in CRISES.items():
            when = np.asarray((dates[scored] >= a) & (dates[scored] <= b))
            if when.any():
                ever = np.where(full[when].any(0), np.nan_to_num(x[when], nan=-1).max(0), np.nan)
                line |= {f"worst {crisis}": ever[np.isfinite(ever)].max(), f"mean {crisis}": ever[m]}
                line |= {f"above 99% {crisis}": (ever[np.isfinite(ever)] > law.ppf(0.995)).mean()}
        line |= {"pinball": losses[0], "FZ0": losses[1], "VaR": v.nanmean(0).nanmean().item()}
        lines.append(line)
        rolled.append(x)
    return lines, rolled


def picture(path: Path, dates: pd.DatetimeIndex, rolled: dict[str, list[np.ndarray]], assets: tuple[str, ...]) -> None:
    """Rolling share of exceedances of the mean of the stocks, and of the assets the share above the band."""
    m = assets.index(MEAN)
    figure, axes = plt.subplots(2, 2, figsize=(11, 6.5), sharex=True, constrained_layout=True)
    for k, level in enumerate(LEVELS):
        law = stats.binom(WINDOW, 1 - level)
        axes[0, k].axhspan(law.ppf(0.005) / WINDOW, law.ppf(0.995) / WINDOW, color="0.9", label="binomial 99 % band")
        axes[0, k].axhline(1 - level, color="0.5", linewidth=0.8)
        for name, parts in rolled.items():
            x = parts[k]
            ok = np.isfinite(x[:, m])
            axes[0, k].plot(dates[ok], x[ok, m] / WINDOW, label=name, linewidth=1.1)
            some = np.isfinite(x).any(1)
            share = (x > law.ppf(0.995)).sum(1)[some] / np.isfinite(x).sum(1)[some]
            axes[1, k].plot(dates[some], pd.Series(share).rolling(5).median(), label=name, linewidth=1.1)
        axes[0, k].set_title(f"{level:.0%} VaR: mean of 20 stocks, exceedances of 250 sessions")
        axes[1, k].set_title("share of assets above the band")
        axes[1, k].set_ylim(0, 1)
    axes[0, 0].legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", default="2003-01-01")
    parser.add_argument("--score", default="2005-01-01")
    parser.add_argument("--until", default="2022-12-31")
    parser.add_argument("--raw", nargs="+", default=["riskmetrics"])
    parser.add_argument("--methods", nargs="+", help="names of rows, all by default")
    parser.add_argument("--choose", action="store_true")
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    panel = market(args.start, "2007-12-31" if args.choose else args.until)
    source = WindowSource(panel, SPEC)
    groups: dict[str, str | None] = dict(zip(panel.assets, panel.exchanges, strict=True))
    labels = numbered({"exchange": groups}, panel.assets)["exchange"]
    every = panel.returns().float()
    for name in args.raw:
        forecast = raw(name, panel, source, args.start)
        first = panel.row(forecast.dates[0])
        # Row t's forecast is of the next own session: outcomes of rows on which the asset is not observed are left out.
        returns = next_returns(panel, every, first)
        levels = ([forecast.value_at_risk(x) for x in LEVELS], [forecast.expected_shortfall(x) for x in LEVELS])
        lines, rolled = row(f"{name}, raw", forecast, returns, *levels, args.score)
        curves = {"raw": rolled}
        for label, calibrator in (grid(groups) if args.choose else methods(groups)).items():
            if args.methods is not None and label not in args.methods:
                continue
            begin = time.process_time()
            made = backtest(calibrator, forecast, returns)
            seconds = time.process_time() - begin
            levels = ([made.value_at_risk(x) for x in LEVELS], [made.expected_shortfall(x) for x in LEVELS])
            more, curves[label] = row(label, forecast, returns, *levels, args.score)
            lines += more
            print(f"{name}: {label} took {seconds:.0f} s of processor time", flush=True)
        fits = not args.choose and not isinstance(forecast.distribution, Empirical)
        if fits and (args.methods is None or "recalibrated" in args.methods):
            more, curves["recalibrated"] = row(
                "recalibrated", forecast, returns, *recalibrated(forecast, returns, labels), args.score
            )
            lines += more
        with pd.option_context("display.width", 250, "display.max_columns", 30):
            print(pd.DataFrame(lines).round(4).sort_values("level", kind="stable").to_string(index=False), flush=True)
        if args.picture is not None and name == args.raw[0]:
            shown = {label: curves[label] for label in ("raw", "ACI, relative", "PID") if label in curves}
            picture(args.picture, forecast.dates[np.asarray(forecast.dates >= args.score)], shown, forecast.assets)


def next_returns(panel: Panel, returns: Tensor, first: int) -> Tensor:
    """The return of each asset's next own session after each row from `first` on, NaN where it is not observed then."""
    there = returns.isfinite()
    T, N = returns.shape
    result = torch.full((T, N), torch.nan)
    for n in range(N):
        at = there[:, n].nonzero()[:, 0]
        result[at[:-1], n] = returns[at[1:], n]
    return result[first:, None]


if __name__ == "__main__":
    main()
