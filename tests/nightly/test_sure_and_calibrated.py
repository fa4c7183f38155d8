"""Whole nights of models that know how sure they are, calibrated: an ensemble in one network, a variational head."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch

from qtorch.configuration import make_forecaster
from qtorch.data import WindowSource
from qtorch.nightly import run
from qtorch.nightly.calibration import BAND
from qtorch.nightly.calibration import COLUMNS as CALIBRATED
from qtorch.nightly.calibration_state import PLAIN, TENSORS
from qtorch.nightly.config import RiskConfig
from qtorch.nightly.forecast_history import History
from qtorch.nightly.gates import asset_states, read_panel
from qtorch.nightly.tables import forecast_table
from qtorch.nightly.uncertainty import COLUMNS, past_shares
from tests.nightly.conftest import quiet, read_all

KIND = {"class_path": "qtorch.calibration.AdaptiveConformal", "init_args": {"gamma": 0.02}}


@pytest.fixture(scope="module")
def ensemble(night, tmp_path_factory):
    """A night of an ensemble of two."""
    config, _ = night
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, members=2),
        training=dataclasses.replace(config.training, max_epochs=1),
        risk=RiskConfig(backtest_sessions=30, scenario_sessions=100, calibration=KIND),
        output=str(tmp_path_factory.mktemp("ensemble")),
    )
    return config, run(config, as_of="2021-12-30", say=quiet)


def test_an_ensembles_night_has_the_doubt_of_its_members_and_calibrated_numbers_beside_the_raw(ensemble):
    result = ensemble[1]
    table = pd.read_parquet(result.folder / "forecasts.parquet")
    assert set(COLUMNS + CALIBRATED) <= set(table)
    assert (table["epistemic_share"] > 0).all()
    assert (table["value_at_risk_low"] < table["value_at_risk_high"]).all()
    assert (table[CALIBRATED[1]] > table[CALIBRATED[0]]).all()
    assert (table[BAND[0]] < table[BAND[1]]).all()
    assert ((table[BAND[0]] <= table[CALIBRATED[0]]) & (table[CALIBRATED[0]] <= table[BAND[1]])).all()
    assert (table[CALIBRATED[0]] != table["value_at_risk"]).any()
    portfolio = pd.read_parquet(result.folder / "portfolio.parquet")
    whole = (portfolio["asset"] == "PORTFOLIO") & (portfolio["horizon"] == 1)
    assert portfolio.loc[whole, CALIBRATED].notna().all(axis=None)
    assert portfolio.loc[~whole, CALIBRATED].isna().all(axis=None)
    judged = pd.read_parquet(result.folder / "backtest.parquet").set_index(["model", "asset", "level"])
    assert set(judged.loc["qtorch_calibrated"].index) == set(judged.loc["qtorch"].index)
    assert (judged.loc["qtorch_calibrated"]["observations"] == judged.loc["qtorch"]["observations"]).all()

    page = (result.folder / "report.html").read_text()
    for words in (
        "How sure the model is",
        "Calibrated by what came",
        "the backtest's first session",
        "qtorch, calibrated",
    ):
        assert words in page.replace("&#39;", "'")


@pytest.mark.slow
def test_the_next_night_goes_on_from_the_state_beside_the_last_and_the_page_says_so(ensemble):
    config, first = ensemble
    second = run(config, say=quiet)
    for result, origin in ((first, "backtest"), (second, "as_of=2021-12-30")):
        assert {PLAIN, TENSORS} <= {file.name for file in result.folder.iterdir()}
        manifest = json.loads((result.folder / "manifest.json").read_text())
        assert manifest["calibration"]["origin"] == origin
        assert manifest["config"]["risk"]["calibration"] == KIND
    assert "where as_of=2021-12-30 left off" in (second.folder / "report.html").read_text()
    before = read_all(second.folder)
    assert read_all(run(config, say=quiet).folder) == before


def test_a_night_without_calibration_has_none_of_it(night):
    folder = night[1].folder
    assert not {PLAIN, TENSORS} & {file.name for file in folder.iterdir()}
    assert not set(CALIBRATED) & set(pd.read_parquet(folder / "forecasts.parquet"))
    assert not set(CALIBRATED) & set(pd.read_parquet(folder / "portfolio.parquet"))
    assert "Calibrated by what came" not in (folder / "report.html").read_text()
    assert "calibration" not in json.loads((folder / "manifest.json").read_text())


def test_a_variational_heads_night_has_the_doubt_of_its_posterior(night):
    config, _ = night
    head = {"class_path": "qtorch.heads.Variational", "init_args": {"head": {"class_path": "qtorch.heads.StudentT"}}}
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, head=head),
        risk=RiskConfig(backtest_sessions=10, scenario_sessions=100),
    )
    panel = read_panel(config.data, None)
    source = WindowSource(panel, config.model.windows(panel))
    torch.manual_seed(0)
    history = History.of(config, source, make_forecaster(config.model, config.training, source.spec))
    assert history.tonight.draws == 32
    table = forecast_table(history, asset_states(panel, source, config.data, {}), [0.99])
    squares = table["aleatoric_volatility"] ** 2 + table["epistemic_volatility"] ** 2
    np.testing.assert_allclose(squares, table["volatility"] ** 2, rtol=1e-5)
    assert (table["epistemic_share"] > 0).all()
    shares = past_shares(history.forecast)
    assert shares is not None
    assert set(shares) == set(panel.assets)
