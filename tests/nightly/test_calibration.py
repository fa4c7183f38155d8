"""Nights whose values at risk are calibrated: from the backtest, from stored state, and not at all."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from qtorch.calibration import AdaptiveConformal, backtest
from qtorch.command_parsers import nightly_parser
from qtorch.configuration import make_forecaster
from qtorch.data import WindowSource
from qtorch.nightly import run
from qtorch.nightly.calibration import COLUMNS, calibrate, calibrate_portfolio, changed_much, make_calibrator
from qtorch.nightly.calibration_state import PLAIN, TENSORS, StateError, load_state, save_state
from qtorch.nightly.config import RiskConfig
from qtorch.nightly.forecast_history import History
from qtorch.nightly.gates import read_panel
from tests.calibration.markets import draws, normal_forecast
from tests.nightly.conftest import quiet, read_all, small_config

ADAPTIVE = {"class_path": "qtorch.calibration.AdaptiveConformal", "init_args": {"gamma": 0.02}}
GROUPS = {"AAPL": "XNYS", "JPM": "XNYS", "EURJPY": "XECB", "EURUSD": None}
GROUPED = {**ADAPTIVE, "init_args": {"gamma": 0.02, "groups": GROUPS}}
PID = {"class_path": "qtorch.calibration.ConformalPID"}
ASSETS = ["AAPL", "EURJPY", "EURUSD", "JPM"]
NIGHTS = ["2021-11-24", "2021-11-25", "2021-12-01"]  # Thanksgiving among them
HELD = torch.tensor([0.4, -0.1, 0.4, 0.3]).double()
KNOWN = {"weights_sha256": "a", "settings_sha256": "b", "trained_through": "2021-06-01", "validated_through": None}


@pytest.fixture(scope="module")
def histories(market, tmp_path_factory) -> dict[str, History]:
    """Nights of a model that is not trained."""
    folder = tmp_path_factory.mktemp("calibration")
    market[market["asset"].isin(ASSETS)].to_parquet(folder / "prices.parquet")
    config = small_config(folder)
    config.risk = RiskConfig(backtest_sessions=30, scenario_sessions=100, calibration=ADAPTIVE)
    model, made = None, {}
    for date in NIGHTS:
        panel = read_panel(config.data, date)
        source = WindowSource(panel, config.model.windows(panel))
        if model is None:
            torch.manual_seed(0)
            model = make_forecaster(config.model, config.training, source.spec)
        made[date] = History.of(config, source, model)
    return made


@pytest.fixture
def nights(histories, tmp_path):
    """Calibrates a night, and keeps its state as the job does."""
    spoken: list[str] = []

    def night(date: str, model=KNOWN, kind=ADAPTIVE, folder=tmp_path):
        history = histories[date]
        risk = dataclasses.replace(history.config.risk, calibration=kind)
        history.config = dataclasses.replace(history.config, risk=risk, output=str(folder))
        made = calibrate(history, model, spoken.append)
        target = folder / f"as_of={date}"
        target.mkdir(exist_ok=True)
        save_state(made.calibrator, target, made.settings)
        return made

    return SimpleNamespace(night=night, folder=tmp_path, said=spoken)


def risk_of(made) -> torch.Tensor:
    return torch.stack([made.tonight.value_at_risk(level) for level in (0.95, 0.975, 0.99)])


@pytest.mark.parametrize("kind", [ADAPTIVE, GROUPED, PID], ids=["adaptive", "grouped", "pid"])
def test_nights_that_go_on_from_stored_state_are_one_walk_from_the_first_nights_backtest(histories, nights, kind):
    first, *later = (nights.night(date, kind=kind) for date in NIGHTS)
    assert (first.origin, first.note) == ("backtest", "no earlier night")
    assert [made.origin for made in later] == [f"as_of={date}" for date in NIGHTS[:-1]]
    last = histories[NIGHTS[-1]]
    begin = histories[NIGHTS[0]].rows[histories[NIGHTS[0]].backtest.start]
    seen = slice(int(np.flatnonzero(last.rows == begin)[0]), None)
    returns, known = last.outcomes
    walked = make_calibrator(last.config, last.forecast.assets)
    walked.update(last.forecast.select(seen), returns[seen], known[seen] - seen.start)
    expected = walked.apply(last.tonight)
    for level, got in zip((0.95, 0.975, 0.99), risk_of(later[-1]), strict=True):
        torch.testing.assert_close(got, expected.value_at_risk(level), rtol=1e-9, atol=0, equal_nan=True)
    assert (risk_of(later[-1]) != torch.stack([last.tonight.value_at_risk(x) for x in (0.95, 0.975, 0.99)])).any()


def test_the_record_is_that_of_a_walk_and_knows_nothing_of_the_future(histories, nights):
    made, history = nights.night(NIGHTS[-1]), histories[NIGHTS[-1]]
    days = history.backtest
    returns, known = history.outcomes
    seen = slice(days.start, None)
    issued = backtest(
        make_calibrator(history.config, history.forecast.assets),
        history.forecast.select(seen),
        returns[seen],
        known[seen] - seen.start,
    )
    raw = history.forecast.select(days).value_at_risk(0.95)[:, 0]
    assert torch.equal(made.record.value_at_risk[0.95], issued.value_at_risk(0.95)[:-1, 0])
    torch.testing.assert_close(made.record.value_at_risk[0.95][0], raw[0])  # nothing is learned yet
    count = made.record.exceeded(0.95) & made.record.mask(0.95)
    mass = issued.mass[0, -1, 0]  # moved by gamma (p - error) for each outcome that is known
    outcomes = made.record.mask(0.95).sum(0).double()
    torch.testing.assert_close(mass, 0.05 + 0.02 * (0.05 * outcomes - count.sum(0)))


def test_a_night_that_is_run_again_comes_to_the_same_whatever_lies_in_its_folder(nights):
    nights.night(NIGHTS[0])
    once = nights.night(NIGHTS[1])
    files = read_all(nights.folder / f"as_of={NIGHTS[1]}")
    again = nights.night(NIGHTS[1])  # beside its own state
    assert torch.equal(risk_of(once).nan_to_num(), risk_of(again).nan_to_num())
    assert read_all(nights.folder / f"as_of={NIGHTS[1]}") == files


HARMS = {
    "no calibration.json": lambda state: (state / PLAIN).unlink(),
    "not usable": lambda state: (state / PLAIN).write_text("{"),
    "is not the one in": lambda state: (state / TENSORS).write_bytes((state / TENSORS).read_bytes()[:-8]),
    "no calibration.safetensors": lambda state: (state / TENSORS).unlink(),
    "of format 9": lambda state: (state / PLAIN).write_text('{"format": 9}'),
}


@pytest.mark.parametrize("words", HARMS)
def test_a_harmed_state_is_not_loaded(words, tmp_path):
    forecast, returns = normal_forecast(30, 3), draws(30, 1, 3)
    calibrator = AdaptiveConformal([0.95])
    calibrator.update(forecast, returns)
    save_state(calibrator, tmp_path, "mine")
    load_state(AdaptiveConformal([0.95]), tmp_path, "mine", forecast.dates)
    HARMS[words](tmp_path)
    fresh = AdaptiveConformal([0.95])
    with pytest.raises(StateError, match=words):
        load_state(fresh, tmp_path, "mine", forecast.dates)
    assert not len(fresh.awaited)


def test_a_state_of_other_settings_or_that_awaits_unknown_dates_is_not_loaded(tmp_path):
    forecast, returns = normal_forecast(30, 3), draws(30, 1, 3)
    calibrator = AdaptiveConformal([0.95])
    calibrator.update(forecast, returns)
    save_state(calibrator, tmp_path, "mine")
    for settings, dates, words in (
        ("other", forecast.dates, "another model or other settings"),
        ("mine", forecast.dates[:-1], f"awaits the outcome of {forecast.dates[-1]:%Y-%m-%d}"),
    ):
        with pytest.raises(StateError, match=words):
            load_state(AdaptiveConformal([0.95]), tmp_path, settings, dates)


def test_a_harmed_state_is_said_and_the_backtest_takes_its_place(nights):
    nights.night(NIGHTS[0])
    (nights.folder / f"as_of={NIGHTS[0]}" / PLAIN).unlink()
    made = nights.night(NIGHTS[1])
    assert made.origin == "backtest"
    assert nights.said[1] == f"calibration: from backtest (as_of={NIGHTS[0]} has no {PLAIN})"


def test_a_state_of_another_model_or_other_settings_is_not_gone_on_with(nights):
    nights.night(NIGHTS[0])
    for changed in ({"model": KNOWN | {"weights_sha256": "c"}}, {"kind": PID}):
        made = nights.night(NIGHTS[1], **changed)
        assert made.origin == "backtest"
        assert "another model or other settings" in made.note


def test_groups_may_gain_assets_but_not_change_them(nights):
    nights.night(NIGHTS[0], kind=GROUPED)
    for changed, goes_on in (({"NEW": "XNYS"}, True), ({"EURUSD": "XECB"}, False)):
        kind = {**ADAPTIVE, "init_args": {"gamma": 0.02, "groups": GROUPS | changed}}
        made = nights.night(NIGHTS[1], kind=kind)
        assert (made.origin != "backtest") == goes_on
        assert goes_on or "EURUSD in the group None, and this calibrator in 'XECB'" in made.note
        first = made.tonight.assets.index("AAPL"), made.tonight.assets.index("JPM")
        assert made.tonight.mass[..., first[0]].equal(made.tonight.mass[..., first[1]])


def test_dates_that_the_model_has_seen_are_refused(nights):
    with pytest.raises(ValueError, match="through which the model was trained"):
        nights.night(NIGHTS[0], model=KNOWN | {"validated_through": "2021-11-10"})


def test_the_portfolios_mass_moves_with_its_own_exceedances(histories, nights):
    nights.night(NIGHTS[-1], kind=GROUPED)  # whose groups are of assets, and none of the portfolio
    history = histories[NIGHTS[-1]]
    held = history.portfolio(HELD)
    record, tonight = calibrate_portfolio(history, held, HELD, KNOWN)
    raw, made = held.record.value_at_risk[0.95], record.value_at_risk[0.95]
    assert made[0] == raw[0]
    assert (made != raw).any()
    beyond = (held.record.returns < -made).sum().double()
    expected = 0.05 + 0.02 * (0.05 * len(made) - beyond)
    torch.testing.assert_close(tonight.mass[0, 0, 0, 0], expected)
    profits = (history.scenarios(0) @ HELD).flatten().sort().values
    at = tonight.mass[0, 0, 0, 0].item() * len(profits)
    torch.testing.assert_close(-tonight.value_at_risk(0.95)[0, 0, 0], profits[int(np.ceil(at - 1e-9)) - 1])


def test_a_calibrator_comes_from_yaml_as_it_stands(tmp_path):
    text = {"data": {"path": "prices"}, "risk": {"calibration": GROUPED}}
    (tmp_path / "night.yaml").write_text(yaml.safe_dump(text))
    parser = nightly_parser()
    config = parser.instantiate(parser.parse_args(["--config", str(tmp_path / "night.yaml")]))
    assert config.risk.calibration == GROUPED


def test_assets_that_are_changed_much_are_named():
    table = pd.DataFrame({"asset": ["A", "A", "B", "C"], "horizon": 1, "level": [0.95, 0.99, 0.99, 0.99]})
    table["value_at_risk"] = [1.0, 1.0, 2.0, np.nan]
    table[COLUMNS[0]] = [9.0, 1.2, 2.6, np.nan]
    assert changed_much(table) == {"B": pytest.approx(0.3)}


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ({"class_path": "os.path.join"}, "outside the allowed packages"),
        ({"class_path": "qtorch.calibration.Adaptive"}, "does not exist"),
        ({**ADAPTIVE, "init_args": {"levels": [0.9]}}, "init_args give levels"),
        ({**ADAPTIVE, "init_args": {"step": 0.1}}, "It takes"),
        ({**ADAPTIVE, "init_args": {"groups": {"AAPL": "XNYS"}}}, "no label for AMD"),
        ({"class_path": "builtins.dict"}, "outside"),
        ({}, "a class_path is needed"),
    ],
)
def test_what_can_be_no_calibrator_is_told_before_the_training(job, kind, words):
    config = job()
    config.risk.calibration = kind
    with pytest.raises(ValueError, match=words):
        run(config, say=quiet)
    assert not Path(config.output).exists()
