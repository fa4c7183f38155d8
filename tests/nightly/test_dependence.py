"""Portfolios whose assets are joined by a copula: fitted, or the model's own."""

import dataclasses
import json

import pandas as pd
import pytest
import torch
import yaml

from qtorch.configuration import ModelConfig, make_forecaster
from qtorch.data import DataError, WindowSource
from qtorch.distributions import JointDistribution, take
from qtorch.nightly import run
from qtorch.nightly.config import RiskConfig
from qtorch.nightly.dependence import factors_of, fitted
from qtorch.nightly.facts import dependence_facts
from qtorch.nightly.forecast_history import History
from qtorch.nightly.gates import read_panel
from qtorch.nightly.tables import no_portfolio
from qtorch.risk import anomaly, fit_copula, quasi_random_scenarios, value_at_risk
from tests.nightly.conftest import quiet, small_config

JOINT = {
    "class_path": "qtorch.heads.JointHead",
    "init_args": {
        "marginals": {"class_path": "qtorch.heads.SkewedStudentT"},
        "copula": {"class_path": "qtorch.heads.CopulaHead", "init_args": {"factors": 2}},
    },
}
PANEL = {"class_path": "qtorch.models.PanelTransformer", "init_args": {"width": 8, "depth": 1, "heads": 2}}
ASSETS = ["AAPL", "EURJPY", "EURUSD", "JPM", "SP500"]  # the last ended before
HELD = torch.tensor([0.4, -0.1, 0.4, 0.3, 0.0]).double()


def history(folder, market, sessions=(70, 100), **model) -> History:
    """Of a model that is not trained."""
    folder.mkdir()
    market[market["asset"].isin(ASSETS)].to_parquet(folder / "prices.parquet")
    config = small_config(folder)
    config.risk = RiskConfig(backtest_sessions=sessions[0], scenario_sessions=sessions[1], dependence="copula")
    if model:
        config.model = ModelConfig(context=16, horizons=[1, 5], **model)
    panel = read_panel(config.data, None)
    assert list(panel.assets) == ASSETS
    source = WindowSource(panel, config.model.windows(panel))
    torch.manual_seed(0)
    return History.of(config, source, make_forecaster(config.model, config.training, source.spec))


@pytest.fixture(scope="module")
def past(market, tmp_path_factory):
    return history(tmp_path_factory.mktemp("dependence") / "fitted", market)


@pytest.fixture(scope="module")
def own(market, tmp_path_factory):
    return history(tmp_path_factory.mktemp("dependence") / "own", market, encoder=PANEL, head=JOINT)


def test_the_record_is_that_of_copulas_fitted_to_the_days_before(past):
    record = past.portfolio(HELD)
    start = past.backtest.start
    weights = 0.5 ** (torch.arange(99, -1, -1).double() / 250)
    pit = past.transforms[start - 100 : start, 0]
    copula = fit_copula(pit, 2, weights)
    marginals = past.forecast.select(slice(start, start + 40)).with_copula(copula)
    held = torch.where(past.returns[start : start + 40].isfinite(), HELD, 0.0)
    law = marginals.portfolio(held, 2048, seed=past.config.training.seed + 1)
    assert (held.abs().sum(1) > 0).all()
    torch.testing.assert_close(record.fan.values[:40], law.values[:, 0])
    torch.testing.assert_close(record.record.value_at_risk[0.99][:40, 0], value_at_risk(law, 0.99)[:, 0])


def test_the_same_inputs_give_the_same_and_the_future_changes_nothing_before_it(past, market, tmp_path):
    cut = past.panel.dates[-40]
    later = market["date"] > cut
    changed = market.assign(close=market["close"].where(~later, market["close"] ** 1.1))
    ours = past.portfolio(HELD)
    for other, equal in ((history(tmp_path / "same", market), True), (history(tmp_path / "other", changed), False)):
        theirs = other.portfolio(HELD)
        assert theirs.dates.equals(ours.dates)
        known = torch.from_numpy(ours.dates <= cut)
        for level in (0.95, 0.975, 0.99):
            a, b = (r.record.value_at_risk[level] for r in (ours, theirs))
            assert torch.equal(a[known], b[known])
            assert torch.equal(a[~known], b[~known]) == equal
        assert (other.oddness() == past.oddness()) == equal


def test_tonights_scenarios_and_todays_oddness_are_those_of_the_joint_laws(past):
    tonight = past.tonight.distribution
    assert isinstance(tonight, JointDistribution)
    copula = fitted(past.transforms[-100:, 1])
    law = JointDistribution(past.forecast.select(slice(-1, None)).marginals, copula)
    x = quasi_random_scenarios(law, 1024, seed=past.config.training.seed)[:, :, 0, 1]
    torch.testing.assert_close(past.scenarios(1), x)
    day = past.backtest.stop - 1
    days, last = past._joint_laws[-1]
    assert days[-1] == day
    copula = last.copula
    before = JointDistribution(take(past.forecast.marginals, (day, 0)), copula)
    expected = anomaly(before, past.returns[-1], past.forecast.mask[day], draws=4000, seed=9)
    assert past.oddness() == pytest.approx(expected.item(), abs=0.05)
    facts = dependence_facts(past, no_portfolio())
    assert facts["of"] == "fitted"
    assert facts["p_value"] == pytest.approx(past.oddness(), abs=1e-6)
    assert facts["value_at_risk_error"] is None
    assert list(facts["degrees_of_freedom"].values()) == pytest.approx(tonight.copula.df.tolist(), abs=1e-3)


def test_a_joint_model_is_joined_by_its_own_copula(own):
    copula = own.forecast.distribution.copula
    assert own.tonight.distribution.copula.df.shape == (1, 2)
    record = own.portfolio(HELD)
    days = torch.arange(own.backtest.start, own.backtest.stop)
    held = torch.where(own.returns[days].isfinite() & own.forecast.mask[days], HELD, 0.0)
    traded = (held != 0).any(1).nonzero().flatten()
    law = own.forecast.select(own.backtest).distribution
    for k in (0, len(traded) - 1):
        d = int(traded[k])
        part = take(law, (d, 0))
        torch.testing.assert_close(part.copula.loadings, copula.loadings[days[d], 0])
        x = quasi_random_scenarios(part, 2048, randomisations=1, seed=own.config.training.seed + 1)[0]
        torch.testing.assert_close(record.fan.values[k], (x @ held[d]).sort().values, rtol=2e-3, atol=1e-5)
    assert 0 < own.oddness() <= 1
    own.config.risk.dependence = "past"
    assert len(own.scenarios(0)) == 1
    assert own.scenarios(0).isfinite().all()
    assert dependence_facts(own, no_portfolio()) == {"of": "past"}
    own.config.risk.dependence = "copula"


@pytest.mark.parametrize("kind", ["attentional", "coupling"])
def test_the_portfolio_of_a_neural_joint_model_is_of_its_draws(market, tmp_path, kind):
    settings = {"width": 8, "heads": 2, "bins": 4}
    if kind == "coupling":
        head = {"class_path": "qtorch.heads.CouplingFlowHead", "init_args": settings | {"layers": 2}}
    else:
        copula = {"class_path": "qtorch.heads.AttentionalCopulaHead", "init_args": settings | {"depth": 1}}
        head = {**JOINT, "init_args": {**JOINT["init_args"], "copula": copula}}
    night = history(tmp_path / kind, market, encoder=PANEL, head=head, sessions=(6, 60))
    assert night.own_copula
    x = night.scenarios(1)
    theirs = night.tonight.scenarios(night.tonight.dates[0], 5, x.shape[1], night.config.training.seed)
    torch.testing.assert_close(x[0], theirs, rtol=0, atol=0, equal_nan=True)
    assert (x[0] != x[1])[:, night.tonight.mask[0]].any()
    record = night.portfolio(HELD)
    assert record.fan.values.isfinite().all()
    assert 0 < night.oddness() <= 1
    facts = dependence_facts(night, no_portfolio())
    assert (facts["of"], facts["degrees_of_freedom"]) == ("model", {})


def test_a_night_of_a_joint_model_with_a_closed_market(job):
    config = job()
    config.model = ModelConfig(encoder=PANEL, head=JOINT, context=16, horizons=[1, 5])
    config.risk = RiskConfig(backtest_sessions=30, scenario_sessions=100, dependence="copula")
    config.training.max_epochs = config.training.batches_per_epoch = 1
    result = run(config, as_of="2021-11-25", say=quiet)  # Thanksgiving
    assert result.states.loc["AAPL", "state"] == "CLOSED"
    manifest = json.loads((result.folder / "manifest.json").read_text())
    told = manifest["dependence"]
    assert told["of"] == "model"
    assert all(2.1 < df < 60 for df in told["degrees_of_freedom"].values())
    assert 0 < told["p_value"] <= 1
    assert manifest["model"]["head"]["class_path"].endswith(".JointHead")
    portfolio = pd.read_parquet(result.folder / "portfolio.parquet")
    whole = portfolio[portfolio["asset"] == "PORTFOLIO"].set_index(["horizon", "level"])
    for (horizon, level), row in whole.iterrows():
        assert row["value_at_risk_error"] == told["value_at_risk_error"][str(horizon)][str(level)]
        assert 0 < row["value_at_risk_error"] < 0.1 * row["value_at_risk"]
        assert 0 < row["expected_shortfall_error"] < 0.1 * row["expected_shortfall"]
    assert portfolio.loc[portfolio["asset"] != "PORTFOLIO", "value_at_risk_error"].isna().all()
    page = (result.folder / "report.html").read_text()
    for words in ("of the model's own", "Monte Carlo standard errors", "How odd today was", "degrees of freedom over"):
        assert words in page
    assert "nan" not in page.replace("finance", "").lower().split("base64")[0]


def test_a_joint_head_comes_from_yaml_as_it_stands(tmp_path):
    from qtorch.command_parsers import nightly_parser

    text = {"data": {"path": "prices"}, "model": {"encoder": PANEL, "head": JOINT}, "risk": {"dependence": "copula"}}
    (tmp_path / "night.yaml").write_text(yaml.safe_dump(text))
    parser = nightly_parser()
    config = parser.instantiate(parser.parse_args(["--config", str(tmp_path / "night.yaml")]))
    assert (config.model.encoder, config.model.head) == (PANEL, JOINT)
    assert config.risk.dependence == "copula"


def test_factors_are_as_many_as_correlations_determine():
    assert [factors_of(n) for n in (1, 2, 3, 4, 5, 6, 7, 10, 100)] == [1, 1, 1, 1, 2, 3, 3, 5, 5]
    for n in range(5, 9):  # the model has no more parameters than there are correlations
        r = factors_of(n)
        assert n * r - r * (r - 1) / 2 <= n * (n - 1) / 2 < n * (r + 1) - (r + 1) * r / 2


def test_what_cannot_be_is_said(past, job):
    alone = past.transforms[:, 0].clone()
    alone[:, 1:] = torch.nan
    for pit in (alone, past.transforms[:10, 0]):
        with pytest.raises(DataError, match="days on which two assets have both.*risk.dependence to past"):
            fitted(pit)
    assert (fitted(alone[:, :1]).loadings == 0).all()
    config = job()
    config.risk.dependence = "normal"
    with pytest.raises(ValueError, match="risk.dependence is past or copula, not 'normal'"):
        dataclasses.replace(config)
