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


def make_job(folder: Path, market: pd.DataFrame | None = None, files: bool = False) -> NightlyConfig:
    """A job that takes half a second, its data in a folder; of several `files`, those before the first night."""
    folder.mkdir(parents=True, exist_ok=True)
    prices = folder / ("prices" if files else "prices.parquet")
    if files:
        prices.mkdir(exist_ok=True)
        add_file(prices / "1-before.parquet", make_market().query("date < @FIRST"))
    elif market is not None or not prices.exists():
        (make_market() if market is None else market).to_parquet(prices)
    encoder = {"class_path": "qtorch.models.Transformer", "init_args": {"width": 8, "depth": 1, "heads": 2}}
    return NightlyConfig(
        data=NightlyData(path=str(prices), min_history=40),
        model=ModelConfig(encoder=encoder, context=8, horizons=[1]),
        training=NightlyTraining(max_epochs=1, batches_per_epoch=2, batch_size=8, refit_after=2),
        risk=RiskConfig(levels=[0.95, 0.99], backtest_sessions=80, scenario_sessions=100),
        output=str(folder / "nights"),
    )


def add_file(path: Path, rows: pd.DataFrame) -> None:
    """Whole or not at all, unless it is there."""
    if not path.exists():
        part = path.with_suffix(".part")
        rows.to_parquet(part)
        part.rename(path)


def without_charts(figure: object) -> str:
    """In the place of a chart, which takes longer than the rest of such a night."""
    return "data:,"


def work(folder: str, last: str, told: str | None = None, files: bool = False) -> None:
    """Makes the nights up to the last that are not there, in a process of its own; tells in a file that it begins.

    With `files`, each session's prices come as a file before its night.
    """
    drawing.svg = report.svg = without_charts
    job = make_job(Path(folder), files=files)
    if told is not None:
        Path(told).touch()
    ends = [last]
    if files:
        market = make_market().query("@FIRST <= date <= @last")
        ends = sorted(market["date"].astype(str).unique())
    code = 0
    for end in ends:
        if files:
            add_file(Path(job.data.path) / f"{end}.parquet", market[market["date"] == end])
        code = max([code, *(each.code for each in scheduled.backfill(job, FIRST, end, say=_quiet))])
    raise SystemExit(int(code))


def _quiet(line: str) -> None:
    """Says nothing."""
