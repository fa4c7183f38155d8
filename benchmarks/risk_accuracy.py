"""One-day value at risk and expected shortfall out of sample: the default forecaster beside what desks run.

The protocol: the last 1,500 sessions of each asset, returns in per cent, levels 95, 97.5 and 99 %. The default
forecaster is trained once, on all that is known before them, from each of some seeds; GJR-GARCH filtered
historical simulation is refitted every 21 rows on 2,000 returns. Prints, for each model, the mean FZ0 loss over the
assets (Patton, Ziegel and Chen 2019), the share of exceedances, how many assets Kupiec's test rejects at 5 %, and
the Diebold-Mariano t of the loss's difference to GJR-FHS over all assets, with and without the spring of 2020.

With --until the data end earlier, which is how settings are chosen: on the sessions before those of the test.

Usage: python benchmarks/risk_accuracy.py [--data FILE] [--until 2016-12-30] [--seeds 0 1 2] [--hold-out 2] [--out F]
"""

import argparse
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from qtorch.data import Panel, WindowSource, load_sample
from qtorch.forecast import Forecast
from qtorch.models import (
    FilteredHistoricalSimulation,
    Garch,
    HistoricalSimulation,
    RiskMetrics,
    default_forecaster,
    default_windows,
)
from qtorch.risk import fz0
from qtorch.risk.backtests import acerbi_szekely, diebold_mariano, exceedances, kupiec
from qtorch.training import mixed, refit

SESSIONS, LEVELS = 1500, (0.95, 0.975, 0.99)
SPRING = ("2020-02-20", "2020-05-31")


def market(path: Path | None, until: str | None) -> Panel:
    """The 20 stocks of the sample that trade to its end, or a long frame."""
    if path is None:
        frame = load_sample()
        ends = frame.groupby("asset")["date"].max()
        frame = frame[(frame["exchange"] == "XNYS") & frame["asset"].isin(ends.index[ends == ends.max()])]
    else:
        frame = pd.read_parquet(path)
    panel = Panel.from_frame(frame)
    return panel if until is None else panel.until(until)


def outcomes(panel: Panel) -> tuple[np.ndarray, Tensor]:
    """The rows of the last sessions of all assets, and each asset's returns on its own, in per cent, else NaN."""
    returns = 100 * panel.returns()
    there = returns.isfinite()
    later = there.flip(0).cumsum(0).flip(0)
    tested = there & (later <= SESSIONS)
    first = int(tested.any(1).int().argmax())
    return np.arange(first, len(panel.dates)), torch.where(tested, returns, torch.nan)[first:]


def tails(forecast: Forecast) -> tuple[Tensor, Tensor]:
    """Values at risk and expected shortfalls over one session in per cent, `[levels, D, N]`."""
    var = torch.stack([forecast.value_at_risk(level)[:, 0] for level in LEVELS])
    es = torch.stack([forecast.expected_shortfall(level)[:, 0] for level in LEVELS])
    return 100 * var, 100 * es


def in_pieces(model: FilteredHistoricalSimulation, panel: Panel, rows: np.ndarray, source: WindowSource) -> Tensor:
    """The tails of a model whose forecasts are large, some refits at a time."""
    step = 21 * 6
    parts = [
        tails(model.forecast(panel, panel.dates[rows[n : n + step]], source=source)) for n in range(0, len(rows), step)
    ]
    return torch.stack([torch.cat(part, dim=1) for part in zip(*parts, strict=True)])


def report(name: str, y: Tensor, var: Tensor, es: Tensor, reference: Tensor | None, spring: np.ndarray) -> Tensor:
    """Prints a model's lines and returns its losses `[levels, D, N]`."""
    losses = torch.stack([fz0(y, v, e, level) for v, e, level in zip(var, es, LEVELS, strict=True)])
    losses = torch.where(y.isfinite(), losses, torch.nan)
    for k, level in enumerate(LEVELS):
        hits = exceedances(y, var[k])
        rejected = int((kupiec(hits, level, y.isfinite()).p_value < 0.05).sum())
        z2 = acerbi_szekely(y, var[k], es[k], level).z2.statistic.mean()
        line = f"{name:<16} {level:.1%}  FZ0 {losses[k].nanmean(0).mean():.4f}  "
        line += f"beyond {hits[y.isfinite()].double().mean():.2%}  Kupiec rejects {rejected:>2}  Z2 {z2:+.3f}"
        if reference is not None:
            calm = torch.as_tensor(~spring)
            difference = losses[k] - reference[k]
            t, t_calm = (diebold_mariano(d, panel=True).statistic for d in (difference, difference[calm]))
            better = int((losses[k].nanmean(0) < reference[k].nanmean(0)).sum())
            line += f"  t {t:+.1f} (without spring 2020 {t_calm:+.1f})  better on {better} of {y.shape[1]}"
        print(line, flush=True)
    return losses


def write(path: Path, panel: Panel, rows: np.ndarray, y: Tensor, var: Tensor, es: Tensor) -> None:
    """The forecasts as returns in per cent, losses negative, labelled by the session they are about."""
    label = panel.session_day[rows].numpy().astype("M8[D]")
    there = y.isfinite().numpy()
    assets = np.broadcast_to(np.array(panel.assets), there.shape)
    frames = [
        pd.DataFrame(
            {
                "date": label[there],
                "asset": assets[there],
                "alpha": round(1 - level, 6),
                "var": -var[k].numpy()[there],
                "es": -es[k].numpy()[there],
            }
        )
        for k, level in enumerate(LEVELS)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.concat(frames).to_parquet(path, index=False)


def trained(
    panel: Panel, source: WindowSource, rows: np.ndarray, seeds: Sequence[int], unseen: Sequence[str]
) -> list[Forecast]:
    """The default forecaster's forecasts from each seed, trained without some of the assets."""
    make = partial(default_forecaster, panel)
    learnt_from = source
    if unseen:
        learnt_from = WindowSource(panel.select([asset for asset in panel.assets if asset not in unseen]), source.spec)
    models = [refit(make, learnt_from, int(rows[0]), seed) for seed in seeds]
    return [model.forecast(panel, panel.dates[rows], source=source) for model in models]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--data",
        type=Path,
        help="a Parquet file of date, asset, exchange, close, and open, high, low if there; default: the sample",
    )
    parser.add_argument("--until", help="the last date of the data, to choose settings before the test period")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--hold-out", type=int, default=0, help="train on none of every so many assets; 0 on all")
    parser.add_argument("--out", type=Path, default=Path("out/forecasts.parquet"))
    args = parser.parse_args()
    panel = market(args.data, args.until)
    source = WindowSource(panel, default_windows(panel))
    rows, y = outcomes(panel)
    asked, dates = rows - 1, panel.dates[rows]  # forecasts are made a row before the return
    spring = np.asarray((dates >= SPRING[0]) & (dates <= SPRING[1]))
    print(f"{len(panel.assets)} assets, returns of {dates[0]:%Y-%m-%d} to {dates[-1]:%Y-%m-%d}", flush=True)

    gjr = FilteredHistoricalSimulation(Garch(o=1, errors="skewed_t"))
    reference = report("GJR-GARCH FHS", y, *in_pieces(gjr, panel, asked, source), None, spring)
    for name, baseline in (("RiskMetrics", RiskMetrics()), ("HS 500", HistoricalSimulation(500))):
        report(name, y, *tails(baseline.forecast(panel, panel.dates[asked], source=source)), reference, spring)
    start = time.perf_counter()
    unseen = panel.assets[1 :: args.hold_out] if args.hold_out else ()
    forecasts = trained(panel, source, asked, args.seeds, unseen)
    seconds = time.perf_counter() - start
    for seed, forecast in zip(args.seeds, forecasts, strict=True):
        report(f"qtorch, seed {seed}", y, *tails(forecast), reference, spring)
    var, es = tails(mixed(forecasts))
    report("qtorch, mixture", y, var, es, reference, spring)
    if unseen:
        out = torch.tensor([asset in unseen for asset in panel.assets])
        for name, which in (("qtorch, seen", ~out), ("qtorch, unseen", out)):
            report(name, y[:, which], var[:, :, which], es[:, :, which], reference[:, :, which], spring)
    write(args.out, panel, rows, y, var, es)
    print(f"trained {len(args.seeds)} times in {seconds:.0f} s; forecasts in {args.out}")


if __name__ == "__main__":
    main()
