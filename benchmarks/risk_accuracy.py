"""One-day value at risk and expected shortfall of 20 US stocks, out of sample, from one fit on the data before.

The protocol: the last 1,500 sessions; the model is trained and its stopping decided on data before them; returns in
per cent; levels 95, 97.5 and 99 %. Writes the forecasts (date of the return, asset, alpha, var, es; returns, not
losses) and prints the mean FZ0 loss over the stocks beside two baselines.

Usage: python benchmarks/risk_accuracy.py [--out forecasts.parquet] [--seed 0] [--epochs 20]
"""

import argparse
import time

import lightning
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

import qtorch
from qtorch.data import DataModule, Panel, WindowSpec, load_sample

SESSIONS, VALIDATION, LEVELS = 1500, 750, (0.95, 0.975, 0.99)


def stocks() -> Panel:
    frame = load_sample()
    alive = frame.groupby("asset")["date"].max()
    frame = frame[(frame["exchange"] == "XNYS") & frame["asset"].isin(alive.index[alive == alive.max()])]
    return Panel.from_frame(frame)


def fit(panel: Panel, test_start: pd.Timestamp, validation_start: pd.Timestamp, args: argparse.Namespace):
    lightning.seed_everything(args.seed, verbose=False)
    spec = WindowSpec(context=args.context, horizons=(1, 10))
    encoder = qtorch.models.Transformer(len(spec.features), width=args.width, depth=args.depth, dropout=args.dropout)
    model = qtorch.Forecaster(
        encoder, qtorch.heads.SkewedStudentT(encoder.out_features, spec.horizons), spec, learning_rate=args.lr
    )
    data = DataModule(
        panel,
        spec,
        validation_start=validation_start,
        test_start=test_start,
        batch_size=args.batch,
        batches_per_epoch=args.batches,
        seed=args.seed,
    )
    best = ModelCheckpoint(monitor="val_loss", save_weights_only=True)
    trainer = lightning.Trainer(
        max_epochs=args.epochs,
        callbacks=[best, EarlyStopping("val_loss", patience=args.patience)],
        logger=False,
        gradient_clip_val=1.0,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, datamodule=data)
    model.load_state_dict(torch.load(best.best_model_path, weights_only=True)["state_dict"])
    return model, data.source, best.best_model_score


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, kind, default in (
        ("seed", int, 0),
        ("epochs", int, 20),
        ("context", int, 64),
        ("width", int, 48),
        ("depth", int, 2),
        ("dropout", float, 0.0),
        ("lr", float, 3e-3),
        ("batch", int, 64),
        ("batches", int, 100),
        ("patience", int, 5),
        ("out", str, "out/forecasts.parquet"),
    ):
        parser.add_argument(f"--{name}", type=kind, default=default)
    args = parser.parse_args()
    panel = stocks()
    first = len(panel.dates) - SESSIONS  # the first return that is forecast; its forecast is made a row before
    start = time.time()
    model, source, score = fit(panel, panel.dates[first - 1], panel.dates[first - 1 - VALIDATION], args)
    fitted = time.time()
    rows = np.arange(first - 1, len(panel.dates) - 1)
    forecast = model.forecast(panel, panel.dates[rows], source=source)
    from qtorch.data.windows import realised

    y = 100 * realised(source, rows)[:, 0].double()
    frames = []
    for level in LEVELS:
        v, e = 100 * forecast.value_at_risk(level)[:, 0], 100 * forecast.expected_shortfall(level)[:, 0]
        loss = qtorch.risk.fz0(y, v, e, level)
        print(f"{level:.1%}: FZ0 {loss.mean():.4f}, exceedances {(y <= -v).double().mean():.2%}", end="  ")
        wide = {"var": -v, "es": -e}
        frames.append(
            pd.DataFrame(
                {
                    "date": np.repeat(panel.dates[rows + 1], len(panel.assets)),
                    "asset": np.tile(panel.assets, len(rows)),
                    "alpha": round(1 - level, 6),
                    **{k: w.flatten().numpy() for k, w in wide.items()},
                }
            )
        )
    from pathlib import Path

    Path(args.out).parent.mkdir(exist_ok=True, parents=True)
    pd.concat(frames).to_parquet(args.out, index=False)
    print(f"\nval {score:.4f} fit {fitted - start:.0f} s, forecasts {time.time() - fitted:.1f} s")


if __name__ == "__main__":
    main()
