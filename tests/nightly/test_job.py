import dataclasses
import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from qtorch.configuration import ModelConfig
from qtorch.data import DataError, DataModule
from qtorch.data.features import Features, Scaled, VolatilityLevel
from qtorch.deploy import load
from qtorch.models import default_forecaster
from qtorch.nightly import ExitCode, NightlyConfig, NotASession, Refused, run
from qtorch.nightly.config import NightlyTraining
from qtorch.nightly.gates import read_panel
from qtorch.training import CRPS, LogScore, fit
from tests.nightly.conftest import elsewhere, quiet, read_all
from tests.training.runs import same_weights

FILES = {"forecasts.parquet", "portfolio.parquet", "backtest.parquet", "manifest.json", "report.html"}


def table(result, name: str) -> pd.DataFrame:
    return pd.read_parquet(result.folder / f"{name}.parquet")


def test_a_night_writes_its_files(night):
    config, result = night
    assert result.code == ExitCode.DONE
    assert result.folder.name == "as_of=2021-12-31"
    assert {file.name for file in result.folder.iterdir()} == FILES
    assert {file.name for file in Path(config.output).iterdir()} == {"as_of=2021-12-31", "models", "state"}


def test_forecasts_name_every_asset_of_the_universe(night):
    forecasts = table(night[1], "forecasts")
    assert len(forecasts) == 6 * 2 * 3  # the index that ended has left the universe
    assert set(forecasts["status"]) == {"ok"}
    assert (forecasts["expected_shortfall"] > forecasts["value_at_risk"]).all()
    assert (forecasts["value_at_risk"] > 0).all()
    wide = forecasts.pivot(index=["asset", "horizon"], columns="level", values="value_at_risk")
    assert (wide[0.99] > wide[0.975]).all()
    assert (wide[0.975] > wide[0.95]).all()
    assert forecasts["degrees_of_freedom"].between(2.1, 60).all()


def test_the_portfolio_adds_up(night):
    portfolio = table(night[1], "portfolio")
    for _, group in portfolio.groupby(["horizon", "level"]):
        whole = group[group["asset"] == "PORTFOLIO"].iloc[0]
        parts = group[group["asset"] != "PORTFOLIO"]
        assert len(parts) == 4
        for measure in ("value_at_risk", "expected_shortfall"):
            assert parts[f"component_{measure}"].sum() == pytest.approx(whole[measure])
            assert (parts[f"component_{measure}"] <= parts[measure] * 1.2).all()
            assert whole[measure] < parts[measure].sum()
        assert whole["exposure"] == pytest.approx(1.0)
    forecasts = table(night[1], "forecasts").set_index(["asset", "horizon", "level"])
    alone = portfolio[portfolio["asset"] == "AAPL"].set_index(["horizon", "level"])
    for key, row in alone.iterrows():
        assert row["value_at_risk"] == pytest.approx(0.4 * forecasts.loc[("AAPL", *key), "value_at_risk"], rel=1e-6)


def test_a_short_position_loses_in_the_right_tail(night):
    config, result = night
    model, _ = load(Path(config.output) / "models" / "trained=2021-12-31")
    panel = read_panel(config.data, None)
    forecast = model.forecast(panel, "2021-12-31")
    upper = forecast.distribution.icdf(torch.tensor(0.99).double())[0, 0, panel.assets.index("EURJPY")]
    short = table(result, "portfolio").query("asset == 'EURJPY' and horizon == 1 and level == 0.99").iloc[0]
    assert short["value_at_risk"] == pytest.approx(0.1 * upper.item(), rel=1e-5)
    assert short["expected_shortfall"] > short["value_at_risk"]


def test_the_backtest_counts_exceedances_out_of_sample(night):
    config, result = night
    backtest = table(result, "backtest")
    assert set(backtest["model"]) == {"qtorch", "riskmetrics", "historical_simulation"}
    assert "PORTFOLIO" in set(backtest["asset"])
    assets = backtest[backtest["asset"] != "PORTFOLIO"]
    assert assets["observations"].between(110, 120).all()
    prices = pd.read_parquet(config.data.path).query("asset == 'AAPL'").set_index("date")["close"].pct_change()
    sigma = np.sqrt((prices.dropna() ** 2).ewm(alpha=0.06).mean()).shift(1)
    from scipy import stats

    dates = pd.read_parquet(config.data.path)["date"].drop_duplicates().sort_values()
    last = prices[prices.index >= dates.iloc[-120]]
    expected = (last < -stats.norm.ppf(0.99) * sigma[last.index]).sum()
    row = backtest.query("asset == 'AAPL' and model == 'riskmetrics' and level == 0.99").iloc[0]
    assert row["exceedances"] == expected
    manifest = json.loads((result.folder / "manifest.json").read_text())
    assert manifest["model"]["validated_through"] < f"{dates.iloc[-120]:%Y-%m-%d}"


def test_the_manifest_says_what_made_the_night(night):
    result = night[1]
    manifest = json.loads((result.folder / "manifest.json").read_text())
    assert manifest["config"]["training"]["seed"] == 0
    assert manifest["exit_code"] == 0
    assert set(manifest["seconds"]) == {"read and check", "train or load", "forecast", "backtest", "portfolio", "write"}
    assert len(manifest["data_sha256"]) == 64
    assert manifest["versions"]["torch"]


def test_the_same_inputs_and_seed_give_the_same_bytes(night, tmp_path):
    config, result = night
    fresh = run(elsewhere(config, tmp_path / "again"), say=quiet)
    assert read_all(fresh.folder) == read_all(result.folder)
    said = []
    loaded = run(elsewhere(config, tmp_path / "again"), say=said.append)
    assert read_all(loaded.folder) == read_all(result.folder)
    other = dataclasses.replace(elsewhere(config, tmp_path / "other"))
    other.training = dataclasses.replace(config.training, seed=1)
    assert read_all(run(other, say=quiet).folder) != read_all(result.folder)


def test_an_earlier_night_knows_nothing_of_later_prices(night, job, market, tmp_path):
    config, _ = night
    past = run(elsewhere(config, tmp_path / "past"), as_of="2021-11-30", say=quiet)
    truncated = run(job(market[market["date"] <= "2021-11-30"]), say=quiet)
    assert past.folder.name == truncated.folder.name == "as_of=2021-11-30"
    assert read_all(past.folder) == read_all(truncated.folder)


@pytest.mark.usefixtures("without_pictures")
def test_a_model_of_a_later_night_is_not_used_and_a_young_one_is(job, market):
    config = job()
    run(config, as_of="2021-12-15", say=quiet)
    models = Path(config.output) / "models"
    run(config, as_of="2021-12-10", say=quiet)  # a model of the 15th would know too much
    assert {m.name for m in models.iterdir()} == {"trained=2021-12-15", "trained=2021-12-10"}
    run(config, as_of="2021-12-22", say=quiet)
    assert len(list(models.iterdir())) == 2
    config.training.refit_after = 3
    run(config, as_of="2021-12-22", say=quiet)
    assert len(list(models.iterdir())) == 3


def unnamed(config: NightlyConfig) -> NightlyConfig:
    """The same job, small, without an encoder or validation."""
    return dataclasses.replace(
        config,
        model=ModelConfig(context=16, horizons=[1, 5]),
        training=NightlyTraining(max_epochs=2, batches_per_epoch=4, batch_size=16),
    )


@pytest.mark.usefixtures("without_pictures")
def test_a_night_that_names_no_model_trains_the_default_forecaster_on_all_before_the_backtest(job):
    config = unnamed(job())
    result = run(config, say=quiet)
    bundle = Path(config.output) / "models" / "trained=2021-12-31"
    model, about = load(bundle)
    panel = read_panel(config.data, None)
    test = panel.dates[-1 - config.risk.backtest_sessions]
    assert about["trained_through"] == f"{panel.dates[panel.row(test) - 1]:%Y-%m-%d}"
    assert about["validated_through"] is about["validation_loss"] is None
    torch.manual_seed(0)
    mine = default_forecaster(panel, horizons=(1, 5), context=16)
    data = DataModule(panel, mine.spec, validation_start=None, test_start=test, batches_per_epoch=4, batch_size=16)
    fit(mine, data, max_epochs=2, seed=0)
    assert model.spec == mine.spec
    assert same_weights(model, mine)
    ours, theirs = (m.forecast(panel, panel.dates[-5:]).value_at_risk(0.99).nan_to_num() for m in (mine, model))
    assert ours.any()
    assert torch.equal(ours, theirs)
    assert "Recurrent with a" in (result.folder / "report.html").read_text()
    manifest = json.loads((result.folder / "manifest.json").read_text())
    assert manifest["config"]["model"]["encoder"] is None
    assert manifest["model"]["encoder"]["class_path"].endswith(".Recurrent")
    assert manifest["config"]["training"]["augmentation"] == {"class_path": "qtorch.training.HideInputs.by_kind"}
    before = read_all(result.folder)
    assert read_all(run(config, say=quiet).folder) == before


@pytest.mark.usefixtures("without_pictures")
def test_a_model_of_other_settings_or_inputs_is_not_used(job):
    config, said = unnamed(job()), []
    config.training.objective = LogScore()
    run(config, say=quiet)
    config.training.objective = CRPS()
    run(config, say=said.append)
    assert "model of 2021-12-31: made with other settings" in said
    prices = pd.read_parquet(config.data.path)
    prices.assign(open=prices["close"], high=prices["close"] * 1.01, low=prices["close"] * 0.99).to_parquet(
        config.data.path
    )
    said.clear()
    result = run(config, say=said.append)  # the default forecaster sees ranges where there are any
    assert "model of 2021-12-31: made with other settings" in said
    manifest = json.loads((result.folder / "manifest.json").read_text())
    assert manifest["config"]["training"]["objective"] == "CRPS()"


@pytest.mark.usefixtures("without_pictures")
def test_a_night_with_an_encoder_of_its_own_may_name_its_inputs(job):
    config = job()
    inputs = Features((Scaled(), VolatilityLevel()))
    config.model = dataclasses.replace(config.model, features=inputs.to_dict())
    run(config, say=quiet)
    model, _ = load(Path(config.output) / "models" / "trained=2021-12-31")
    assert model.spec.features == inputs


@pytest.mark.usefixtures("without_pictures")
def test_a_harmed_model_is_said_and_replaced(job):
    config, said = job(), []
    run(config, say=quiet)
    weights = Path(config.output) / "models" / "trained=2021-12-31" / "weights.safetensors"
    before = weights.read_bytes()
    weights.write_bytes(before[:-4])
    run(config, say=said.append)
    assert any("trained=2021-12-31 is not usable" in line and "SHA-256" in line for line in said)
    assert weights.read_bytes() == before


KILL = """
import os, sys
import qtorch.nightly.tables as tables, qtorch.nightly.job as job, qtorch.data.whole_folder as store
from tests.nightly.conftest import small_config
from pathlib import Path
point, nth = sys.argv[2], int(sys.argv[3])
module, name = {"table": (tables, "write_table"), "report": (job, "write_report"), "flush": (store, "_flush"),
                "place": (store, "_put_in_place"), "exchange": (store, "_exchange")}[point]
original, calls = getattr(module, name), []
def dying(*arguments):
    calls.append(1)
    if point == "exchange":  # as on a system that cannot swap: die between the two renames
        rename = os.rename
        def second(a, b):
            if calls[-1] == 2: os._exit(9)
            calls[-1] += 1
            rename(a, b)
        os.rename = second
        return False
    if len(calls) == nth: os._exit(9)
    return original(*arguments)
setattr(module, name, dying)
job.run(small_config(Path(sys.argv[1])), say=lambda line: None)
"""


POINTS = [("table", 1), ("table", 3), ("report", 1), ("flush", 2), ("place", 1), ("exchange", 1)]


@pytest.mark.parametrize(
    "points",
    [
        pytest.param([POINTS[-1]], id="the exchange"),
        pytest.param(POINTS, id="all", marks=pytest.mark.slow),
    ],
)
def test_a_kill_at_any_point_leaves_the_previous_night_whole(job, points):
    config = job()
    result = run(config, say=quiet)
    before = read_all(result.folder)
    folder = Path(config.data.path).parent
    root = Path(__file__).parents[2]
    for point, nth in points:
        assert read_all(result.folder) == before
        assert subprocess.run([sys.executable, "-c", KILL, str(folder), point, str(nth)], cwd=root).returncode == 9
    again = run(config, say=quiet)  # repairs what the last kill moved aside
    assert read_all(again.folder) == before
    assert {file.name for file in Path(config.output).iterdir()} == {"as_of=2021-12-31", "models", "state"}


@pytest.mark.usefixtures("without_pictures")
def test_an_asset_with_little_history_is_refused_and_the_others_go_on(job, market):
    young = market[(market["asset"] != "AMD") | (market["date"] > "2021-11-30")]
    result = run(job(young), say=quiet)
    assert result.code == ExitCode.SOME_FAILED
    assert result.failed.to_dict() == {"AMD": "too little history: 21 returns, needs 60"}
    forecasts = table(result, "forecasts").set_index("asset")
    assert set(forecasts.loc["AMD", "status"]) == {"refused"}
    assert forecasts.loc["AMD", "value_at_risk"].isna().all()
    assert forecasts.loc["AAPL", "value_at_risk"].notna().all()
    assert "too little history: 21 returns" in (result.folder / "report.html").read_text()
    manifest = json.loads((result.folder / "manifest.json").read_text())
    assert list(manifest["failed_assets"]) == ["AMD"]


@pytest.mark.usefixtures("without_pictures")
def test_stale_closed_and_dropped_assets_are_told_apart(job, market):
    gone = {"AMD": "2021-12-29", "XOM": "2021-12-10"}
    kept = market[
        ~market["date"].gt(market["asset"].map(gone).astype("datetime64[ms]").fillna(pd.Timestamp("2100-01-01")))
    ]
    result = run(job(kept, {"AAPL": 0.5, "XOM": 0.3, "EURUSD": 0.2}), as_of="2021-12-31", say=quiet)
    states = result.states
    assert states.loc["AMD", ["state", "status"]].tolist() == ["MISSING", "stale"]
    assert states.loc["XOM", ["state", "status"]].tolist() == ["MISSING", "refused"]
    assert states.loc["SP500", ["state", "status"]].tolist() == ["UNLISTED", "retired"]
    portfolio = table(result, "portfolio")
    assert set(portfolio.loc[portfolio["asset"] == "PORTFOLIO", "status"]) == {"without XOM"}
    assert "without XOM" in (result.folder / "report.html").read_text()


@pytest.mark.usefixtures("without_pictures")
def test_a_closed_market_is_forecast_from_its_last_session(job):
    result = run(job(), as_of="2021-11-25", say=quiet)  # Thanksgiving
    assert result.code == ExitCode.DONE
    assert result.states.loc["AAPL", "state"] == "CLOSED"
    forecasts = table(result, "forecasts")
    us = forecasts[forecasts["asset"] == "AAPL"]
    assert set(us["state"]) == {"CLOSED"}
    assert us["value_at_risk"].notna().all()
    assert "last session, 2021-11-24" in (result.folder / "report.html").read_text()


@pytest.mark.usefixtures("without_pictures")
def test_a_held_asset_that_has_left_the_data_fails_by_name(job):
    result = run(job(positions={"AAPL": 0.5, "SP500": 0.5}), say=quiet)
    assert result.code == ExitCode.SOME_FAILED
    assert "held, but without a price since 2018-12-31" in result.failed["SP500"]


def test_dates_that_cannot_be_are_told_apart(job):
    config = job()
    with pytest.raises(DataError, match="as-of 2017-01-03 is before the data begin, on 2018-10-01"):
        run(config, as_of="2017-01-03", say=quiet)
    with pytest.raises(NotASession, match=r"2021-12-18 \(Saturday\) is a session of none of XECB, XNYS"):
        run(config, as_of="2021-12-18", say=quiet)
    with pytest.raises(Refused, match="the data end on 2021-12-31.*2 of XECB, 2 of XNYS"):
        run(config, as_of="2022-01-04", say=quiet)
    assert not Path(config.output).exists()


def test_a_night_on_which_most_prices_are_missing_is_refused(job, market):
    half = market[(market["date"] < "2021-12-31") | (market["asset"] == "EURUSD")]
    with pytest.raises(Refused, match="5 of 6 assets whose market was open on 2021-12-31 have no price"):
        run(job(half), say=quiet)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("asset,weight\nAAPL,0.5\nNOPE,0.5\n", r"not in the data: NOPE \(row 1\)"),
        ("asset,weight\nAAPL,inf\n", r"weight is not a finite number for AAPL \(row 0: inf\)"),
        ("asset,weight\nAAPL,lots\n", r"AAPL \(row 0: lots\)"),
        ("asset,weight\nAAPL,\n", r"AAPL \(row 0: nan\)"),
        ("asset,weight\nAAPL,1\nAAPL,1\n", "more than one row for AAPL"),
        ("name,weight\nAAPL,1\n", "needs a column 'asset'"),
        ("asset,weight,market_value\nAAPL,1,1\n", "either 'weight' or 'market_value'"),
        ("", "not readable"),
    ],
)
def test_positions_that_cannot_be_used_are_named(job, text, words):
    config = job()
    Path(config.positions).write_text(text)
    with pytest.raises(DataError, match=words):
        run(config, say=quiet)


@pytest.mark.usefixtures("without_pictures")
def test_market_values_scale_the_portfolio(night, job):
    by_weight = table(night[1], "portfolio")
    config = job()
    positions = pd.read_csv(config.positions)
    positions.assign(market_value=2e6 * positions["weight"]).drop(columns="weight").to_csv(
        config.positions, index=False
    )
    by_value = table(run(config, say=quiet), "portfolio")
    assert set(by_value["unit"]) == {"market_value"}
    np.testing.assert_allclose(by_value["value_at_risk"], 2e6 * by_weight["value_at_risk"], rtol=1e-9)


@pytest.mark.usefixtures("without_pictures")
def test_without_positions_there_are_forecasts_alone(job):
    config = dataclasses.replace(job(), positions=None)
    result = run(config, say=quiet)
    assert result.code == ExitCode.DONE
    assert table(result, "portfolio").empty
    assert "PORTFOLIO" not in set(table(result, "backtest")["asset"])


def test_too_short_a_history_is_refused_with_the_remedy(job, market):
    with pytest.raises(DataError, match="too few to train on.*lower"):
        run(job(market[market["date"] >= "2021-06-01"]), say=quiet)


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open, self.links = [], []

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "img", "br", "source", "link"):
            self.open.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "srcset")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_report_is_one_well_formed_page(night):
    text = (night[1].folder / "report.html").read_text()
    page = Page()
    page.feed(text)
    assert page.open == []
    assert page.links
    assert all(link.startswith("data:image/svg+xml;base64,") for link in page.links)
    assert "http" not in text.replace("http://www.w3.org", "")
    for words in ("Friday, 31 December 2021", "Who carries", "largest risks", "Traffic lights", "Markets tonight"):
        assert words in text
    assert "nan" not in text.replace("finance", "").lower().split("base64")[0]
