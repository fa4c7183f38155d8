"""A nightly job small enough to run many times."""

import dataclasses
from pathlib import Path

import pandas as pd
import pytest

from qtorch.configuration import ModelConfig
from qtorch.nightly import NightlyConfig, drawing, report, run
from qtorch.nightly.config import NightlyData, NightlyTraining, RiskConfig

ASSETS = ["AAPL", "AMD", "JPM", "XOM", "EURUSD", "EURJPY", "SP500"]


def quiet(line: str) -> None:
    """Swallows the stages' lines."""


@pytest.fixture(scope="session")
def market(sample) -> pd.DataFrame:
    """Three years and a half of six live assets and one that ended."""
    recent = sample[sample["asset"].isin(ASSETS) & (sample["date"] >= "2018-10-01") & (sample["date"] <= "2021-12-31")]
    return recent[["date", "asset", "exchange", "close"]].reset_index(drop=True)


@pytest.fixture
def job(market, tmp_path):
    """Makes a configuration for a market, positions and changed settings."""

    def make(frame: pd.DataFrame | None = None, positions: dict[str, float] | None = None, **data) -> NightlyConfig:
        folder = tmp_path / f"job{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        (market if frame is None else frame).to_parquet(folder / "prices.parquet")
        book = {"AAPL": 0.4, "JPM": 0.3, "EURUSD": 0.4, "EURJPY": -0.1} if positions is None else positions
        pd.Series(book, name="weight").rename_axis("asset").reset_index().to_csv(folder / "positions.csv", index=False)
        return small_config(folder, **data)

    return make


def small_config(folder: Path, **data) -> NightlyConfig:
    encoder = {"class_path": "qtorch.models.Transformer", "init_args": {"width": 16, "depth": 1, "heads": 2}}
    return NightlyConfig(
        data=NightlyData(path=str(folder / "prices.parquet"), **data),
        positions=str(folder / "positions.csv"),
        model=ModelConfig(encoder=encoder, context=16, horizons=[1, 5]),
        training=NightlyTraining(max_epochs=2, batches_per_epoch=4, batch_size=16, validation_sessions=100),
        risk=RiskConfig(backtest_sessions=120, scenario_sessions=200),
        output=str(folder / "out"),
    )


@pytest.fixture(scope="session")
def night(market, tmp_path_factory):
    """One night that went well, and its configuration."""
    folder = tmp_path_factory.mktemp("night")
    market.to_parquet(folder / "prices.parquet")
    positions = pd.DataFrame({"asset": ["AAPL", "JPM", "EURUSD", "EURJPY"], "weight": [0.4, 0.3, 0.4, -0.1]})
    positions.to_csv(folder / "positions.csv", index=False)
    config = small_config(folder)
    return config, run(config, say=quiet)


@pytest.fixture
def without_pictures(monkeypatch):
    """Nights whose report has its text and no charts, which take a third of their time."""
    monkeypatch.setattr(drawing, "svg", lambda figure: "data:,")
    monkeypatch.setattr(report, "svg", lambda figure: "data:,")


def read_all(folder: Path) -> dict[str, bytes]:
    """The bytes of a night's files, without the manifest, which holds timings."""
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name != "manifest.json"}


def elsewhere(config: NightlyConfig, output: Path) -> NightlyConfig:
    """The same job with another output folder."""
    return dataclasses.replace(config, output=str(output))
