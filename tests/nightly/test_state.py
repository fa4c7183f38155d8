"""A night that goes on from the last one's state, and one that works on slices, against one that starts afresh."""

import dataclasses
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jaxtyping
import numpy as np
import pandas as pd
import pytest
import torch

from qtorch.configuration import ModelConfig
from qtorch.data import WindowSource
from qtorch.deploy import load
from qtorch.models import HistoricalSimulation
from qtorch.nightly import NightlyConfig, run, slices, universe
from qtorch.nightly.config import NightlyTraining, RiskConfig
from qtorch.nightly.gates import read_panel
from qtorch.nightly.record import Record
from tests.nightly.conftest import elsewhere, quiet, small_config

ROUNDING = 2e-6  # relative: a batch of other windows adds its sums in another order


@pytest.fixture(autouse=True)
def _without_report(monkeypatch):
    """Nights without their page and their waits for the disk, which take most of the time of small ones."""
    monkeypatch.setattr(sys.modules["qtorch.nightly.job"], "write_report", lambda night, path: path.write_text(""))
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def close_tables(a: Path, b: Path, rtol: float = ROUNDING) -> None:
    for name in ("forecasts", "portfolio", "backtest"):
        left, right = (pd.read_parquet(folder / f"{name}.parquet") for folder in (a, b))
        pd.testing.assert_frame_equal(left, right, rtol=rtol, atol=1e-9)


@pytest.fixture(scope="module")
def market(market) -> pd.DataFrame:
    """Its last year and a half."""
    return market[market["date"] >= "2020-06-01"].reset_index(drop=True)


@pytest.fixture
def config(market, tmp_path) -> NightlyConfig:
    """A job without positions whose model is trained once."""
    market.to_parquet(tmp_path / "prices.parquet")
    config = small_config(tmp_path)
    return dataclasses.replace(
        config,
        positions=None,
        model=ModelConfig(context=16, horizons=[1, 5]),
        training=NightlyTraining(max_epochs=1, batches_per_epoch=2, batch_size=16, refit_after=250),
        risk=RiskConfig(backtest_sessions=60, scenario_sessions=100),
    )


def afresh(config: NightlyConfig, output: Path, date: str | None = None) -> Path:
    """A night with the same model and no state."""
    output.mkdir(exist_ok=True)
    shutil.copytree(Path(config.output) / "models", output / "models", dirs_exist_ok=True)
    return run(elsewhere(config, output), as_of=date, say=quiet).folder


def told(lines: list[str]) -> str:
    return next(line for line in lines if line.startswith("universe:"))


@pytest.mark.parametrize("nights", [8, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_row_of_nights_comes_to_one_run_over_all_dates(config, sample, nights, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", nights > 100)  # types take half of the time
    since = "2020-12-01" if nights < 100 else "2016-06-01"
    chosen = sample["asset"].isin(["AAPL", "EURJPY", "JPM", "AMD"]) & (sample["date"] >= since)
    chosen &= ~((sample["asset"] == "AMD") & (sample["date"] < "2021-12-20"))  # one is listed on the way
    market = sample.loc[chosen & (sample["date"] <= "2022-03-31"), ["date", "asset", "exchange", "close"]]
    market.to_parquet(config.data.path)
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, min_history=61),
        training=dataclasses.replace(config.training, refit_after=2000),
    )
    dates = np.sort(market["date"].unique())[-nights:].astype("M8[D]").astype(str).tolist()
    told_by_night, tables = [], []
    for date in dates:
        lines: list[str] = []
        folder = run(config, as_of=date, say=lines.append).folder
        told_by_night.append(told(lines))
        tables.append(pd.read_parquet(folder / "forecasts.parquet").assign(date=date))
    assert "computed anew" in told_by_night[0]
    assert all("gone on from (60 sessions" in line for line in told_by_night[1:])
    panel = read_panel(config.data, None)
    model, _ = load(next((Path(config.output) / "models").iterdir()))
    whole = model.forecast(panel, dates, min_history=61).to_frame(config.risk.levels)
    ours = pd.concat(tables).dropna(subset="value_at_risk").astype({"date": whole["date"].dtype})
    key = ["date", "asset", "horizon", "level"]
    assert len(ours) == len(whole)
    measures = ["value_at_risk", "expected_shortfall", "volatility"]
    left, right = (frame.set_index(key)[measures].sort_index() for frame in (ours, whole))
    pd.testing.assert_frame_equal(left, right, rtol=ROUNDING)
    # The last night's backtest, of rows that 60 nights have asked about, is that of a night that starts afresh.
    close_tables(folder, afresh(config, Path(config.output).parent / "afresh", dates[-1]))
    kept = sorted(folder.name for folder in (Path(config.output) / "state").iterdir())
    assert kept == [f"as_of={date}" for date in dates[-2:]]


@pytest.mark.parametrize("size", [256, 2])
def test_files_that_come_are_all_that_is_read_and_computed(config, market, tmp_path, monkeypatch, size):
    for module in (slices, universe):
        monkeypatch.setattr(module, "SLICE", size)
    prices = tmp_path / "prices"
    prices.mkdir()
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, path=str(prices)))
    nights = ["2021-12-28", "2021-12-29", "2021-12-31"]  # a session is missed on the way
    begin, told = pd.Timestamp("2000-01-01"), []
    for night in nights:
        market[(market["date"] > begin) & (market["date"] <= night)].to_parquet(prices / f"{night}.parquet")
        begin, lines = pd.Timestamp(night), []
        folder = run(config, say=lines.append).folder
        told.append([line for line in lines if line.startswith(("panel", "sessions", "universe"))])
        if night == nights[0]:
            run(config, say=quiet)  # the same again leaves as much
    assert all("anew" in line for line in told[0])
    assert told[1][0].startswith("panel: 1 new of 2 files added")
    assert told[1][1] == "sessions: gone on from 2021-12-28"
    assert told[2][1:] == [
        "sessions: gone on from 2021-12-29",
        "universe: gone on from (59 sessions of as_of=2021-12-29)",
    ]
    close_tables(folder, afresh(config, tmp_path / "afresh"))


def test_a_listing_beside_a_revision_costs_a_large_night_nothing_but_its_own_forecast(config, market, monkeypatch):
    for module in (slices, universe):
        monkeypatch.setattr(module, "SLICE", 2)
    market[market["date"] <= "2021-12-30"].to_parquet(config.data.path)
    run(config, say=quiet)
    revised = (market["date"] == "2021-12-30") & (market["asset"] == "JPM")
    listed = market[(market["asset"] == "JPM") & (market["date"] > "2021-12-30")].assign(asset="NEW")
    pd.concat([market.assign(close=market["close"].where(~revised, market["close"] * 1.01)), listed]).to_parquet(
        config.data.path
    )
    lines: list[str] = []
    result = run(config, say=lines.append)
    assert any(line.startswith("sessions: computed anew") for line in lines)
    assert "gone on from" in told(lines)
    assert list(result.failed.index) == ["NEW"]


def test_the_same_night_again_gives_the_same_bytes(config):
    config = dataclasses.replace(config, risk=dataclasses.replace(config.risk, backtest_sessions=30))
    tables = [(run(config, say=quiet).folder / "forecasts.parquet").read_bytes() for _ in range(2)]
    assert tables[0] == tables[1]


def test_what_has_changed_is_computed_anew(config, market, tmp_path):
    path = Path(config.data.path)
    run(config, as_of="2021-12-29", say=quiet)

    def night(frame: pd.DataFrame, changed: NightlyConfig = config, compared: bool = False) -> str:
        """The line about the state, of a night that is like one afresh."""
        frame.to_parquet(path)
        lines: list[str] = []
        output = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        shutil.copytree(config.output, output)
        result = run(elsewhere(changed, output), as_of="2021-12-30", say=lines.append)
        if compared:
            close_tables(result.folder, afresh(changed, tmp_path / f"{output.name}-afresh", "2021-12-30"))
        return told(lines)

    revised = market.copy()
    revised.loc[(revised["date"] == "2021-12-20") & (revised["asset"] == "JPM"), "close"] *= 1.01
    assert "gone on" in night(market)
    line = night(revised, compared=True)
    assert "gone on" in line
    assert "the data of 2021-12-20 are not what they were" in line
    early = market.copy()
    early.loc[(early["date"] == "2020-08-03") & (early["asset"] == "JPM"), "close"] *= 1.01
    assert "computed anew (the data up to" in night(early)
    come = market[market["asset"] == "AMD"].assign(asset="NEW")
    assert "gone on" in night(pd.concat([market, come[come["date"] >= "2021-12-30"]]), compared=True)
    assert "computed anew" in night(pd.concat([market, come]))  # of a market that others look at
    assert "AMD has left" in night(market[market["asset"] != "AMD"])
    assert "other settings" in night(
        market, dataclasses.replace(config, data=dataclasses.replace(config.data, min_history=70))
    )
    state = Path(config.output) / "state" / "as_of=2021-12-29" / "universe.safetensors"
    state.write_bytes(state.read_bytes()[:-1] + b"\0")
    assert "SHA-256" in night(market)


@pytest.mark.parametrize("positions", [None, {"AAPL": 0.4, "EURJPY": -0.1, "JPM": 0.3}])
def test_slices_come_to_what_one_does(config, tmp_path, monkeypatch, positions):
    if positions is not None:
        pd.Series(positions, name="weight").rename_axis("asset").reset_index().to_csv(tmp_path / "p.csv", index=False)
        config = dataclasses.replace(config, positions=str(tmp_path / "p.csv"))
    whole = run(config, say=quiet)
    for module in (slices, universe):
        monkeypatch.setattr(module, "SLICE", 2)
    cut = afresh(config, tmp_path / "cut")
    for name in ("forecasts", "backtest"):
        left, right = (pd.read_parquet(folder / f"{name}.parquet") for folder in (whole.folder, cut))
        own = [frame[frame["asset"] != "PORTFOLIO"].reset_index(drop=True) for frame in (left, right)]
        pd.testing.assert_frame_equal(*own, rtol=ROUNDING, atol=1e-9)
    if positions is None:
        return
    left, right = (pd.read_parquet(folder / "portfolio.parquet") for folder in (whole.folder, cut))
    # Of a large market, holes in the past of what is held are filled from what is held, not from all assets: the last
    # sessions' outcomes over longer horizons, which are not known yet.
    near = [frame[(frame["horizon"] == 1) | (frame["asset"] != "PORTFOLIO")] for frame in (left, right)]
    alone = [frame[[c for c in frame if not c.startswith("component")]] for frame in near]
    pd.testing.assert_frame_equal(*alone, rtol=1e-5, atol=1e-9)
    lines: list[str] = []
    again = run(elsewhere(config, tmp_path / "cut"), say=lines.append)
    assert any(line.startswith("portfolio: gone on") for line in lines)
    close_tables(cut, again.folder)


def test_an_executors_results_come_in_order_and_its_errors_are_raised():
    with ThreadPoolExecutor(2) as pool:
        given = list(slices.in_slices(divmod, ((n, 3) for n in range(20)), pool))
    assert given == [divmod(n, 3) for n in range(20)]
    with ThreadPoolExecutor(1) as pool, pytest.raises(ZeroDivisionError):
        list(slices.in_slices(divmod, [(1, 0)], pool))


def test_the_worst_returns_are_those_of_historical_simulation(config):
    panel = read_panel(config.data, None)
    source = WindowSource(panel, config.model.windows(panel))
    for window in (40, 500):
        model = HistoricalSimulation(window, source.spec)
        rows = np.arange(100, len(panel.dates), 7)
        levels = [0.6, 0.95, 0.975, 0.99]
        forecast = model.forecast(panel, panel.dates[rows], source=source)
        expected = Record.of(forecast, torch.zeros(len(rows), len(panel.assets)), levels)
        for level, (var, es) in zip(levels, model.lower_tails(panel, rows, levels), strict=True):
            for got, want in ((var, expected.value_at_risk[level]), (es, expected.expected_shortfall[level])):
                assert torch.equal(torch.where(forecast.mask, got.double(), torch.nan).nan_to_num(), want.nan_to_num())
