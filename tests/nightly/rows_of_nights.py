"""Nights of a very small market, which a process of its own can make."""

from pathlib import Path

import numpy as np
import pandas as pd

from qtorch.configuration import ModelConfig
from qtorch.data import sessions
from qtorch.nightly import NightlyConfig, drawing, report, scheduled
from qtorch.nightly.config import NightlyData, NightlyTraining, RiskConfig

FIRST, LAST = "2020-03-23", "2020-03-27"  # five sessions


def make_market(seed: int = 0) -> pd.DataFrame:
    """Random walks of four assets on two exchanges."""
    rng, frames = np.random.default_rng(seed), []
    for asset, code in {"AAA": "XNYS", "BBB": "XNYS", "CCC": "XNYS", "EEE": "XECB"}.items():
        days = sessions(code, pd.Timestamp("2019-01-02"), pd.Timestamp(LAST)).days
        days = days[days <= LAST]
        close = 100 * np.exp(np.cumsum(0.01 * rng.standard_t(5, len(days))))
        frames.append(pd.DataFrame({"date": days, "asset": asset, "exchange": code, "close": close}))
    return pd.concat(frames, ignore_index=True)


def make_job(folder: Path, market: pd.DataFrame | None = None) -> NightlyConfig:
    """A job that takes half a second, its data in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    prices = folder / "prices.parquet"
    if market is not None or not prices.exists():
        (make_market() if market is None else market).to_parquet(prices)
    encoder = {"class_path": "qtorch.models.Transformer", "init_args": {"width": 8, "depth": 1, "heads": 2}}
    return NightlyConfig(
        data=NightlyData(path=str(prices), min_history=40),
        model=ModelConfig(encoder=encoder, context=8, horizons=[1]),
        training=NightlyTraining(max_epochs=1, batches_per_epoch=2, batch_size=8, refit_after=2),
        risk=RiskConfig(levels=[0.95, 0.99], backtest_sessions=80, scenario_sessions=100),
        output=str(folder / "nights"),
    )


def without_charts(figure: object) -> str:
    """In the place of a chart, which takes longer than the rest of such a night."""
    return "data:,"


def work(folder: str, last: str, told: str | None = None) -> None:
    """Makes the nights up to the last that are not there, in a process of its own; tells in a file that it begins."""
    drawing.svg = report.svg = without_charts
    if told is not None:
        Path(told).touch()
    ended = scheduled.backfill(make_job(Path(folder)), FIRST, last, say=_quiet)
    raise SystemExit(int(max(each.code for each in ended)))


def _quiet(line: str) -> None:
    """Says nothing."""
