import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from jsonargparse import ArgumentParser

from qtorch.data import DataError, Panel
from qtorch.deploy import inspect_bundle
from qtorch.nightly import ExitCode, Locked, Refused, job, scheduled
from qtorch.nightly.config import NightlyConfig
from qtorch.nightly.data_gates import jumps, last_of, stale_prices, universe_change
from qtorch.nightly.ended import Ended, attempt
from qtorch.nightly.gate_config import (
    CoverageDrift,
    DriftConfig,
    GatesConfig,
    JumpGate,
    StaleGate,
    UniformityDrift,
    UniverseGate,
    VolatilityDrift,
    check_action,
)
from qtorch.nightly.lock import alone_on
from qtorch.nightly.outcome import worst
from tests.nightly.conftest import quiet
from tests.nightly.rows_of_nights import LAST, make_job, make_market


@pytest.fixture(autouse=True)
def without_page(request, without_pictures, monkeypatch) -> None:
    """Nights whose page is not drawn, which takes half of their time, but where a test asks for `page`."""
    if "page" not in request.fixturenames:
        monkeypatch.setattr(job, "write_report", lambda night, path: path.write_text("", encoding="utf-8"))


@pytest.fixture
def page() -> None:
    """For a test that looks at it."""


def changed(config: NightlyConfig, **parts) -> NightlyConfig:
    return dataclasses.replace(config, **parts)


def seen(output: str) -> list[str]:
    """The nights that a consumer of the output folder takes."""
    return sorted(folder.name for folder in Path(output).glob("as_of=*"))


def test_a_night_of_the_same_inputs_is_made_once(tmp_path):
    own = make_job(tmp_path)
    first = scheduled.night(own, None, say=quiet)
    assert (first.code, first.as_of, first.there_already) == (ExitCode.DONE, LAST, False)
    stamp = (first.folder / "manifest.json").stat().st_mtime_ns
    again = scheduled.night(own, LAST, say=quiet)
    assert again.there_already
    assert (again.code, again.folder) == (first.code, first.folder)
    assert (first.folder / "manifest.json").stat().st_mtime_ns == stamp
    forced = scheduled.night(own, LAST, force=True, say=quiet)
    assert not forced.there_already
    assert (first.folder / "manifest.json").stat().st_mtime_ns > stamp
    other = changed(own, risk=dataclasses.replace(own.risk, levels=[0.9, 0.99]))
    assert not scheduled.night(other, None, say=quiet).there_already
    market = make_market()
    market.loc[market.index[-1], "close"] *= 1.001  # a correction came
    market.to_parquet(own.data.path)
    assert not scheduled.night(other, None, say=quiet).there_already


def test_two_runs_of_a_night_do_not_meet(tmp_path):
    own = make_job(tmp_path)
    with alone_on(own.output, LAST):
        with pytest.raises(Locked, match=f"at work on the night of {LAST}"):
            scheduled.night(own, None, say=quiet)
        ended = attempt(lambda: scheduled.night(own, None, say=quiet), None, quiet)
    assert ended.code == ExitCode.LOCKED
    assert not seen(own.output)


def test_a_row_of_nights_skips_what_is_there_and_stops_where_it_is_told(tmp_path):
    own, told = make_job(tmp_path), []
    scheduled.night(own, "2020-03-24", say=quiet)
    ended = scheduled.backfill(own, "2020-03-21", "2020-03-24", say=told.append)
    assert [each.as_of for each in ended] == ["2020-03-23", "2020-03-24"]
    assert [each.there_already for each in ended] == [False, True]
    assert told == ["2020-03-23  0 done", "2020-03-24  0 done  (there already)"]
    assert seen(own.output) == [f"as_of=2020-03-{day}" for day in (23, 24)]
    stopped = scheduled.backfill(own, "2020-03-27", "2020-03-31", say=quiet)
    assert [each.code for each in stopped] == [ExitCode.DONE, ExitCode.REFUSED]
    on = scheduled.backfill(own, "2020-03-27", "2020-03-31", keep_going=True, say=quiet)
    assert [each.code for each in on] == [ExitCode.DONE, ExitCode.REFUSED, ExitCode.REFUSED]
    assert worst(each.code for each in on) == ExitCode.REFUSED
    with pytest.raises(ValueError, match="the earlier date first"):
        scheduled.backfill(own, "2020-03-27", "2020-03-01")


def test_the_worst_code_is_the_one_that_needs_attention_most():
    assert worst([]) == ExitCode.DONE
    assert worst([ExitCode.SOME_FAILED, ExitCode.NOT_A_SESSION]) == ExitCode.SOME_FAILED
    assert worst([ExitCode.HELD_BY_DRIFT, ExitCode.REFUSED, ExitCode.HELD_BY_DATA]) == ExitCode.REFUSED
    assert worst(ExitCode) == ExitCode.ERROR


def test_unexpected_errors_are_told_with_their_traceback():
    told = []
    ended = attempt(lambda: 1 / 0, "2020-03-23", told.append)
    assert (ended.code, ended.as_of) == (ExitCode.ERROR, "2020-03-23")
    assert "ZeroDivisionError" in ended.error
    assert "Traceback" in told[0]


def jumped() -> pd.DataFrame:
    """The market, two of its four assets with a price that cannot be on the last day."""
    market = make_market()
    market.loc[(market["date"] == LAST) & market["asset"].isin(["AAA", "EEE"]), "close"] *= 3
    return market


@pytest.mark.usefixtures("page")
def test_a_night_held_back_by_its_data_is_seen_by_none_until_it_is_released(tmp_path):
    own = changed(make_job(tmp_path, jumped()), gates=GatesConfig(jumps=JumpGate("hold")))
    before = scheduled.night(own, "2020-03-24", say=quiet)  # so that a model is due on the 27th
    told = []
    held = scheduled.night(own, None, say=told.append)
    assert held.code == ExitCode.HELD_BY_DATA
    assert held.folder == Path(own.output) / "held" / f"as_of={LAST}"
    assert seen(own.output) == ["as_of=2020-03-24"]
    assert any("2 of 4 assets with a price (AAA, EEE) have a move beyond 10 volatilities or 50%" in x for x in told)
    (alarm,) = held.summary()["alarms"]
    assert (alarm["name"], alarm["held_back"], alarm["values"]["share"]) == ("jumps", True, 0.5)
    text = (held.folder / "report.html").read_text()
    assert text.index("<h2>Held back</h2>") < text.index("AAA, EEE") < text.index("Tonight's largest risks")
    trained = {path.name for path in (Path(own.output) / "models").iterdir()}
    assert trained == {"trained=2020-03-24"}  # what was trained on such data is for no other night
    assert scheduled.night(own, None, say=quiet).there_already
    assert scheduled.backfill(own, LAST, LAST, say=quiet)[0].code == ExitCode.HELD_BY_DATA

    held_before = shutil.copytree(held.folder, tmp_path / "before", copy_function=shutil.copy2)
    out = scheduled.released(own, LAST, quiet)
    assert (out.code, out.folder) == (ExitCode.DONE, Path(own.output) / f"as_of={LAST}")
    assert seen(own.output) == ["as_of=2020-03-24", f"as_of={LAST}"]
    assert not list((Path(own.output) / "held").glob("as_of=*"))
    assert inspect_bundle(Path(own.output) / "models" / f"trained={LAST}")["metadata"]["as_of"] == LAST
    assert "Held back, and released" in (out.folder / "report.html").read_text()
    assert out.manifest["released"]
    assert scheduled.night(own, None, say=quiet).there_already
    assert before.manifest["gates"][1]["alarm"] is False
    with pytest.raises(DataError, match="is held back in"):
        scheduled.released(own, LAST, quiet)
    # A process that died between the publication and the removal of what was held.
    shutil.copytree(held_before, held.folder, copy_function=shutil.copy2)
    assert scheduled.night(own, None, say=quiet).folder == out.folder


def test_a_higher_limit_publishes_and_what_was_held_goes(tmp_path):
    own = changed(make_job(tmp_path, jumped()), gates=GatesConfig(jumps=JumpGate("hold")))
    assert scheduled.night(own, None, say=quiet).code == ExitCode.HELD_BY_DATA
    high = changed(own, gates=GatesConfig(jumps=JumpGate("hold", share=0.6)))
    assert scheduled.night(high, None, say=quiet).code == ExitCode.DONE
    assert seen(own.output) == [f"as_of={LAST}"]
    assert not [path for path in (Path(own.output) / "held").rglob("*") if path.is_file()]


def test_drift_holds_a_night_back_with_a_code_of_its_own(tmp_path):
    strict = DriftConfig(sessions=80, uniformity=UniformityDrift("hold", evidence=0.0, distance=0.0))
    held = scheduled.night(changed(make_job(tmp_path), drift=strict), None, say=quiet)
    assert held.code == ExitCode.HELD_BY_DRIFT
    (alarm,) = held.summary()["alarms"]
    assert "fall elsewhere than forecast" in alarm["words"]
    assert (tmp_path / "nights" / "models" / f"trained={LAST}").exists()


def test_the_check_writes_nothing_and_has_the_nights_code(tmp_path):
    own = make_job(tmp_path, jumped())
    code, day, readings = scheduled.check(own, None, None)
    assert (code, day, [each.alarm for each in readings]) == (ExitCode.DONE, LAST, [False, True, False])
    hold = changed(own, gates=GatesConfig(jumps=JumpGate("hold")))
    assert scheduled.check(hold, None, None)[0] == ExitCode.HELD_BY_DATA
    assert scheduled.check(hold, "2020-03-26", None)[0] == ExitCode.DONE
    with pytest.raises(Refused):
        scheduled.check(own, "2020-03-31", None)
    assert not Path(own.output).exists()


def test_late_data_are_as_unknown_as_they_were(tmp_path):
    """A night at an instant equals that of a file which ends with what was known then, whatever came later."""
    market = make_market()
    closes = pd.to_datetime(market["date"]).dt.tz_localize("UTC") + pd.Timedelta(hours=20)
    market["known_at"] = closes
    late = (market["asset"] == "BBB") & (market["date"] == "2020-03-26")
    market.loc[late, "known_at"] = pd.Timestamp("2020-03-27T12:00Z")
    corrected = market[(market["asset"] == "CCC") & (market["date"] == "2020-03-25")].assign(
        close=lambda frame: frame["close"] * 1.2, known_at=pd.Timestamp("2020-03-26T10:00Z")
    )
    market = pd.concat([market, corrected]).sort_values(["asset", "date", "known_at"], ignore_index=True)
    instant = pd.Timestamp("2020-03-26T06:00Z")
    own = make_job(tmp_path / "all", market)
    then = make_job(tmp_path / "then", market[market["known_at"] <= instant])
    model_knows_more = scheduled.night(own, "2020-03-26", say=quiet)
    assert model_knows_more.manifest["model"]["bundle"] == "trained=2020-03-26"
    back = scheduled.night(own, None, knowledge_time=instant, say=quiet)
    real = scheduled.night(then, None, say=quiet)
    assert back.as_of == real.as_of == "2020-03-25"
    pd.testing.assert_frame_equal(*(pd.read_parquet(each.folder / "forecasts.parquet") for each in (back, real)))
    assert back.manifest["knowledge_time"] == "2020-03-26T06:00:00+00:00"
    assert not scheduled.night(own, "2020-03-25", say=quiet).there_already  # of another knowledge
    with pytest.raises(DataError, match="no row was known"):
        scheduled.night(own, "2020-03-25", knowledge_time=pd.Timestamp("2000-01-01T00:00Z"), say=quiet)


def test_the_last_date_is_the_last_with_a_price(tmp_path):
    market = make_market()
    announced = market[market["date"] == LAST].assign(date=pd.Timestamp("2020-03-30"), close=np.nan)
    own = make_job(tmp_path, pd.concat([market, announced]))
    assert scheduled.last_day(own, None) == pd.Timestamp(LAST)
    assert scheduled.night(own, None, say=quiet).as_of == LAST
    assert scheduled.night(own, None, say=quiet).there_already


def test_a_knowledge_time_needs_to_be_told_what_was_known_when(tmp_path):
    with pytest.raises(DataError, match="no column 'known_at'"):
        scheduled.night(make_job(tmp_path), None, knowledge_time=pd.Timestamp("2020-03-26T06:00Z"), say=quiet)


@pytest.fixture(scope="module")
def odd() -> Panel:
    """Four assets on New York's sessions: one stands still, one jumps, one is missing tonight, one is as usual."""
    market = make_market().query("exchange == 'XNYS'")
    market = pd.concat([market, market.query("asset == 'AAA'").assign(asset="DDD")])
    days = np.sort(market["date"].unique())
    still = (market["asset"] == "AAA") & (market["date"] >= days[-6])
    market.loc[still, "close"] = 50.0
    market.loc[(market["asset"] == "BBB") & (market["date"] == days[-1]), "close"] *= 1.6
    market = market[~((market["asset"] == "CCC") & (market["date"] == days[-1]))]
    return Panel.from_frame(market)


def test_data_gates_count_what_they_say(odd):
    for sessions, count in ((5, 1), (6, 0)):
        reading = stale_prices(StaleGate("hold", share=0.3, sessions=sessions), odd)
        assert reading.values["assets"] == count
        assert reading.alarm == (count / 3 > 0.3)
    assert "1 of 3 assets with a price (BBB)" in jumps(JumpGate(), odd).words
    assert jumps(JumpGate(volatilities=None, move=0.7), odd).values["assets"] == 0
    assert jumps(JumpGate(volatilities=5.0, move=None), odd).values["assets"] == 1
    closes = last_of(odd, slice(0, 4), 3)
    assert closes[:, 2].tolist() == odd.close[-4:-1, 2].tolist()  # up to its last one
    early = odd.until(odd.dates[1])
    assert last_of(early, slice(0, 2), 3).isnan().sum(0).tolist() == [1, 1]
    assert not stale_prices(StaleGate(sessions=5), early).alarm


def test_the_universes_change_is_counted_against_the_last_night(tmp_path):
    gate = UniverseGate("hold", share=0.4)
    assert not universe_change(gate, ["A"], None).alarm
    found = universe_change(gate, ["A", "B", "X"], ["A", "B", "C"])
    assert found.alarm
    assert found.words.startswith("1 assets came (X) and 1 left (C), 66.7% of 3")
    assert not universe_change(gate, ["A", "B", "C", "D"], ["A", "B", "C"]).alarm
    own = changed(make_job(tmp_path), gates=GatesConfig(universe=gate))
    scheduled.night(own, "2020-03-26", say=quiet)
    market = make_market()
    market[market["asset"].isin(["AAA", "BBB"])].to_parquet(own.data.path)  # a feed lost half of them
    held = scheduled.night(own, None, say=quiet)
    assert held.code == ExitCode.HELD_BY_DATA
    assert held.manifest["gates"][2]["values"]["left"] == 2


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: GatesConfig(jumps=JumpGate(share=2.0)), "a share in"),
        (lambda: GatesConfig(jumps=JumpGate(move=0.0)), "must be positive, or null"),
        (lambda: GatesConfig(stale=StaleGate(sessions=0)), "at least 1"),
    ],
)
def test_gates_out_of_bounds_are_refused(wrong, says):
    with pytest.raises(ValueError, match=says):
        wrong()


def test_a_summary_is_plain(tmp_path):
    ended = scheduled.night(make_job(tmp_path), None, say=quiet)
    document = json.loads(json.dumps(ended.summary(), allow_nan=False))
    assert document["counts"] == {"ok": 4}
    assert document["outcome"] == "done"
    assert document["folder"] == str(ended.folder)
    assert Ended(ExitCode.LOCKED, "2020-03-23", error="why").summary()["folder"] is None


def test_an_action_is_one_of_three():
    with pytest.raises(ValueError, match="gates.stale.action is off, warn or hold, not 'stop'"):
        check_action("gates.stale", "stop")


def test_the_yaml_of_the_page_about_gates_is_a_configuration():
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "gates.md").read_text()
    given = yaml.safe_load(page.split("```yaml\n")[1].split("```")[0])
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(NightlyConfig, None)
    made = parser.instantiate(parser.parse_object(given | {"data": {"path": "markets.parquet"}}))
    assert made.drift == DriftConfig(volatility=VolatilityDrift("hold"), coverage=CoverageDrift("hold"))
    assert made.gates == GatesConfig(StaleGate("hold"), JumpGate("hold"), UniverseGate("hold"))
