"""One-day value at risk and expected shortfall of 20 US stocks, out of sample, from one fit on the data before.

The protocol: the last 1,500 sessions; the model is trained, and its stopping decided, on data before them; returns in
per cent; levels 95, 97.5 and 99 %. Writes the forecasts (date of the return, asset, alpha, var and es as returns,
losses negative) and prints the mean FZ0 loss over the stocks beside two baselines.

Usage: python benchmarks/risk_accuracy.py [--out out/forecasts.parquet] [--seed 0] [--until 2013-03-28]
"""

import argparse
import time
from pathlib import Path

import lightning
import numpy as np
import pandas as pd

import qtorch
from qtorch.data import DataModule, Panel, WindowSource, load_sample
from qtorch.models import HistoricalSimulation, RiskMetrics
from qtorch.training import fit

SESSIONS, VALIDATION, LEVELS = 1500, 750, (0.95, 0.975, 0.99)


def stocks() -> Panel:
    frame = load_sample()
    ends = frame.groupby("asset")["date"].max()
    return Panel.from_frame(frame[(frame["exchange"] == "XNYS") & frame["asset"].isin(ends.index[ends == ends.max()])])


def default_model(source: WindowSource, first: int, seed: int) -> qtorch.Forecaster:
    """The library's defaults, fitted on the rows before `first`."""
    lightning.seed_everything(seed, verbose=False)
    spec = source.spec
    encoder = qtorch.models.Transformer(len(spec.features))
    model = qtorch.Forecaster(encoder, qtorch.heads.SkewedStudentT(encoder.out_features, spec.horizons), spec)
    dates = source.panel.dates
    data = DataModule(
        source.panel,
        spec,
        source=source,
        validation_start=dates[first - 1 - VALIDATION],
        test_start=dates[first - 1],
        seed=seed,
    )
    fit(model, data)
    return model


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("out/forecasts.parquet"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--until", help="the last date of the data, to choose settings before the test period")
    args = parser.parse_args()
    panel = stocks() if args.until is None else stocks().until(args.until)
    source = WindowSource(panel, qtorch.data.WindowSpec())
    rows = np.arange(len(panel.dates) - SESSIONS, len(panel.dates))  # of the returns; forecasts are made a row before
    start = time.perf_counter()
    model = default_model(source, int(rows[0]), args.seed)
    seconds = time.perf_counter() - start
    y = 100 * panel.returns()[rows]
    frames = []
    for name, forecaster in (("qtorch", model), ("RiskMetrics", RiskMetrics()), ("HS 500", HistoricalSimulation(500))):
        forecast = forecaster.forecast(panel, panel.dates[rows - 1], source=source)
        line = []
        for level in LEVELS:
            v, e = 100 * forecast.value_at_risk(level)[:, 0], 100 * forecast.expected_shortfall(level)[:, 0]
            loss, rate = qtorch.risk.fz0(y, v, e, level).mean(), (y <= -v).double().mean()
            line.append(f"{level:.1%} FZ0 {loss:.4f}, exceedances {rate:.2%}")
            if name == "qtorch":
                columns = {
                    "date": np.repeat(panel.dates[rows], len(panel.assets)),
                    "asset": np.tile(panel.assets, len(rows)),
                    "alpha": round(1 - level, 6),
                    "var": -v.flatten().numpy(),
                    "es": -e.flatten().numpy(),
                }
                frames.append(pd.DataFrame(columns))
        print(f"{name:<12}" + " | ".join(line))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    pd.concat(frames).to_parquet(args.out, index=False)
    span = f"{panel.dates[rows[0]]:%Y-%m-%d} to {panel.dates[-1]:%Y-%m-%d}"
    print(f"{span}, seed {args.seed}, fitted in {seconds:.0f} s; forecasts in {args.out}")


if __name__ == "__main__":
    main()
