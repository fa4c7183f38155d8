"""Nights of a model that knows how sure it is: columns, flags, the page; and nights of one that does not."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from qtorch.configuration import ModelConfig
from qtorch.deploy import load
from qtorch.distributions import decompose
from qtorch.nightly import run
from qtorch.nightly.gates import read_panel
from qtorch.nightly.uncertainty import COLUMNS, uncertainty_facts, uncertainty_table
from tests.nightly.conftest import quiet

ASSETS = [f"A{k}" for k in range(9)]


@pytest.fixture(scope="module")
def unsure(night, tmp_path_factory):
    """The small night with a head that has draws."""
    config, _ = night
    head = {"class_path": "tests.nightly.unsure.Unsure"}
    model = ModelConfig(encoder=config.model.encoder, head=head, context=16, horizons=[1, 5], allow=["tests"])
    output = str(tmp_path_factory.mktemp("unsure"))
    training = dataclasses.replace(config.training, max_epochs=1)
    risk = dataclasses.replace(config.risk, backtest_sessions=60, scenario_sessions=100)
    config = dataclasses.replace(config, positions=None, model=model, training=training, risk=risk, output=output)
    return config, run(config, say=quiet)


def test_the_table_has_the_parts_of_the_variance_and_the_band(unsure):
    config, result = unsure
    table = pd.read_parquet(result.folder / "forecasts.parquet")
    assert set(COLUMNS) <= set(table)
    squares = table["aleatoric_volatility"] ** 2 + table["epistemic_volatility"] ** 2
    np.testing.assert_allclose(squares, table["volatility"] ** 2, rtol=1e-6)
    np.testing.assert_allclose(table["epistemic_share"], table["epistemic_volatility"] ** 2 / squares, rtol=1e-6)
    assert (table["epistemic_share"] > 0).all()
    assert (table["value_at_risk_low"] < table["value_at_risk"]).all()
    assert (table["value_at_risk"] < table["value_at_risk_high"]).all()
    model, _ = load(result.folder.parent / "models" / "trained=2021-12-31", allow=["tests"])
    panel = read_panel(config.data, None)
    forecast = model.forecast(panel, "2021-12-31")
    n = panel.assets.index("JPM")
    (row,) = table.query("asset == 'JPM' and horizon == 5 and level == 0.975").to_dict("records")
    low, high = forecast.epistemic_interval(0.975)
    assert row["value_at_risk_low"] == pytest.approx(low[0, 1, n].item(), rel=1e-6)
    assert row["value_at_risk_high"] == pytest.approx(high[0, 1, n].item(), rel=1e-6)
    parts = decompose(forecast.distribution)
    assert row["epistemic_volatility"] == pytest.approx(parts.epistemic[0, 1, n].sqrt().item(), rel=1e-5)


def test_the_page_and_the_manifest_tell_how_sure_the_model_is(unsure):
    result = unsure[1]
    page = (result.folder / "report.html").read_text()
    assert "How sure the model is" in page
    assert "5 draws have it: with so few nearly their range" in " ".join(page.replace("&#39;", "'").split())
    assert "90% of the model" not in page
    manifest = json.loads((result.folder / "manifest.json").read_text())
    assert manifest["uncertainty"] == {"mass": 0.9, "draws": 5, "flags": {}}  # the draws disagree everywhere alike


def test_a_night_of_one_model_is_as_it_was(night):
    result = night[1]
    assert not set(COLUMNS) & set(pd.read_parquet(result.folder / "forecasts.parquet"))
    assert "How sure the model is" not in (result.folder / "report.html").read_text()
    assert "uncertainty" not in json.loads((result.folder / "manifest.json").read_text())


def tables_of(share, width, returns=2000, past=None, quiet_sessions=0):
    """The forecast table, past shares and states of nine assets."""
    frame = pd.DataFrame(
        {
            "asset": np.repeat(ASSETS, 2),
            "horizon": 1,
            "level": [0.95, 0.99] * len(ASSETS),
            "value_at_risk": 0.02,
            "aleatoric_volatility": 0.01,
            "epistemic_volatility": 0.001,
            "epistemic_share": np.repeat(share, 2),
            "value_at_risk_low": np.repeat(0.02 * (1 - np.asarray(width) / 2), 2),
            "value_at_risk_high": np.repeat(0.02 * (1 + np.asarray(width) / 2), 2),
        }
    )
    own = np.tile(share, (250, 1)) if past is None else past
    states = pd.DataFrame(
        {"status": "ok", "returns": returns, "sessions_without": quiet_sessions}, index=pd.Index(ASSETS, name="asset")
    )
    return frame, pd.DataFrame(own, columns=ASSETS), states


def flags_of(*tables) -> dict[str, str]:
    return uncertainty_facts(uncertainty_table(*tables), 5)["flags"]


def test_the_universe_flags_what_is_far_out_and_says_why():
    share, width = np.linspace(0.010, 0.018, 9), np.linspace(0.10, 0.18, 9)
    assert flags_of(*tables_of(share, width)) == {}
    width[3] = 0.6
    returns = np.full(9, 2000)
    returns[3] = 180
    assert flags_of(*tables_of(share, width, returns)) == {
        "A3": "the band of its VaR is 60% of it, the universe's median is 15%; "
        "short history: 180 returns, the universe's median is 2000"
    }
    share[3], quiet_sessions = 0.2, np.where(np.arange(9) == 3, 4, 0)
    (text,) = flags_of(*tables_of(share, width, 2000, None, quiet_sessions)).values()
    assert text.endswith("doubt is 20.0% of its variance, the universe's median is 1.5%; 4 sessions without a price")
    first = uncertainty_table(*tables_of(share, width)).iloc[0]
    assert (first["asset"], first["level"]) == ("A3", 0.99)
    assert first["relative_width"] == pytest.approx(0.6)


def test_an_assets_own_past_flags_it():
    share, width = np.full(9, 0.01), np.full(9, 0.1)
    past = np.full((250, 9), 0.01)
    past[:, 4] = 0.004
    assert flags_of(*tables_of(share, width, past=past)) == {
        "A4": "doubt is 1.0% of its variance, above all of its last 250 sessions"
    }
    past[7, 4] = 0.02  # it was as much once
    assert flags_of(*tables_of(share, width, past=past)) == {}
    past[7, 4] = np.nan  # too little past to say
    assert flags_of(*tables_of(share, width, past=past)) == {}


def test_rounding_is_never_far_out():
    share = np.full(9, 0.01)
    share[2] += 1e-9
    assert flags_of(*tables_of(share, np.full(9, 0.1))) == {}
