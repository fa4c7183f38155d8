"""Pipelines that know the future are found, by name of what they know; those that do not are left in peace."""

import numpy as np
import pandas as pd
import pytest
import torch

from qtorch.backtest import InverseVolatility, LookaheadError, PipelineError, WalkForward, check_lookahead
from qtorch.backtest.lookahead.markets import changed, since, with_cells
from qtorch.backtest.lookahead.outputs import outputs_of
from qtorch.data import Panel, State
from qtorch.data.calendars import NO_SESSION
from tests.backtest.lookahead.markets import market


def closes(panel: Panel) -> pd.DataFrame:
    return pd.DataFrame(panel.close.numpy(), panel.dates, list(panel.assets))


def returns(panel: Panel) -> pd.DataFrame:
    return pd.DataFrame(panel.returns().numpy(), panel.dates, list(panel.assets))


def full_sample_z_score(panel):
    r = returns(panel)
    return (r - r.mean()) / r.std()


def backward_fill(panel):
    return closes(panel).bfill().pct_change(fill_method=None)


def backward_fill_after_a_forward_fill(panel):
    return np.log(closes(panel).ffill().bfill())


def centred_window(panel):
    return returns(panel).rolling(5, center=True, min_periods=1).mean()


def target_leakage(panel):
    """A regression on the past, of which one input is made of tomorrow's return."""
    r = returns(panel).fillna(0.0)
    tomorrow = np.sign(r.shift(-1)).fillna(0.0)
    return r.rolling(10).mean() + 0.001 * tomorrow


def normalised_before_the_split(panel):
    """A forecast of the last sixty per cent from inputs that were scaled with all rows."""
    r = returns(panel).fillna(0.0)
    scaled = (r - r.mean()) / r.std()
    return (0.1 * scaled).ewm(alpha=0.2).mean().iloc[50:]


def survivors(panel):
    """Weights of what is listed, by a state that knows which prices are the last."""
    listed = (panel.state != State.UNLISTED).double()
    return listed / listed.sum(-1, keepdim=True).clamp(min=1)


def fitted_once(panel):
    """A slope by least squares of all rows, which is used on all rows."""
    r = returns(panel).fillna(0.0)
    slope = (r * r.shift(1)).sum() / (r.shift(1) ** 2).sum()
    return r * slope


def lowest_price_ever(panel):
    """Changes only where a later price is lower than all before."""
    return closes(panel) / closes(panel).min()


LEAKS = [
    full_sample_z_score,
    backward_fill,
    backward_fill_after_a_forward_fill,
    centred_window,
    target_leakage,
    normalised_before_the_split,
    survivors,
    fitted_once,
    lowest_price_ever,
]
NAMED = [full_sample_z_score, backward_fill, centred_window, target_leakage, normalised_before_the_split]


def rolling_mean(panel):
    return returns(panel).rolling(20, min_periods=5).mean()


def ewma(panel):
    return returns(panel).pow(2).ewm(alpha=0.06).mean().pow(0.5)


def expanding_z_score(panel):
    r = returns(panel)
    return (r - r.expanding().mean()) / r.expanding().std()


def forward_fill(panel):
    return closes(panel).ffill().pct_change(5, fill_method=None)


def without_the_ends(panel):
    return returns(panel).rolling(30).mean().dropna(how="all")


def first_rows_of_months(panel):
    """The change since the last month, dated by the row that tells that the month is over."""
    price = closes(panel).ffill()
    month = price.index.to_period("M")
    return price[np.append(False, month[1:] != month[:-1])].pct_change()


def convolved(panel):
    """float32, whose rounding depends on the length of what is summed at once."""
    r = panel.returns().nan_to_num().float()
    return torch.nn.functional.conv1d(r.T.unsqueeze(1), torch.ones(1, 1, 16) / 16, padding=15)[:, 0, : len(r)].T


def equal_and_signs(panel):
    wide = returns(panel)
    return {"mean": wide.mean(axis=1), "signs": np.sign(wide).stack(), "equal": torch.ones(panel.state.shape)}


HONEST = [
    rolling_mean,
    ewma,
    expanding_z_score,
    forward_fill,
    without_the_ends,
    first_rows_of_months,
    convolved,
    equal_and_signs,
]


@pytest.fixture(scope="module")
def small() -> Panel:
    return market()


def refused(pipeline, panel, **options):
    """The report on a pipeline that must be found out, and each part of what it says is right."""
    report = check_lookahead(pipeline, panel, **options)
    assert not report.ok
    found = report.findings
    limit = found["cut"].map(lambda cut: panel.dates[panel.row(cut) + report.lag])
    assert (found["date"] <= limit).all()
    named = found.dropna(subset=["input_date"])
    assert not named.empty
    assert (named["input_date"] > named["cut"]).all()
    with pytest.raises(LookaheadError, match="ahead"):
        report.require()
    return report


@pytest.mark.parametrize("pipeline", NAMED, ids=lambda f: f.__name__)
def test_leaks_are_found_with_the_defaults(small, pipeline):
    assert refused(pipeline, small, starts=0).findings["rows_ahead"].min() >= 1


@pytest.mark.parametrize("pipeline", HONEST, ids=lambda f: f.__name__)
def test_honest_pipelines_are_left_in_peace(small, pipeline):
    report = check_lookahead(pipeline, small, cuts=4, starts=0)
    assert report.require() is report
    assert report.compared > 0
    assert report.notes == ()


def test_a_walk_is_left_in_peace(small):
    walk = WalkForward(20, "2019-05-15")
    report = check_lookahead(
        lambda panel: walk.run(panel, InverseVolatility(30)), small, cuts=4, starts=0, first="2019-06-03"
    )
    assert report.require().notes == ()
    assert report.compared > 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("pipeline", [*LEAKS, *HONEST], ids=lambda f: f.__name__)
def test_on_other_markets_too(pipeline, seed, sample):
    if seed == 4:
        chosen = sample["asset"].isin(["AAPL", "XOM", "EURUSD", "EURJPY", "EURGBP", "WTI"])
        panel = Panel.from_frame(sample[chosen & sample["date"].between("2017-12-01", "2019-12-31")])
    else:
        panel = market(seed, end="2020-04-30")
    if pipeline in LEAKS and not (seed == 4 and pipeline is backward_fill_after_a_forward_fill):  # all begin at once
        refused(pipeline, panel, seed=seed)
    else:
        check_lookahead(pipeline, panel, seed=seed).require()


def planted(panel):
    """Returns of one asset with a trace of another's volume two rows later."""
    r = returns(panel)
    volume = pd.DataFrame(panel.field("volume").numpy(), panel.dates)[2].ffill().shift(-2).fillna(0.0)
    r["XNYS-0000"] += 1e-9 * volume
    return {"other": 0 * r, "mine": r.rolling(2).mean()}


def test_the_input_and_the_output_are_named(small):
    report = refused(planted, small, starts=0, cuts=8)
    found = report.findings
    assert set(found["column"]) == {"mine"}
    assert set(found["asset"]) == {"XNYS-0000"}
    prices = found[found["test"] == "changed prices"].dropna(subset=["input_date"]).iloc[0]
    assert (prices["input_asset"], prices["input_field"]) == (small.assets[2], "volume")
    assert 1 <= prices["rows_ahead"] <= 3
    assert prices["before"] != prices["after"]
    text = repr(report)
    assert text.startswith("LOOK-AHEAD in 1 column(s)")
    assert f"knows the volume of {small.assets[2]} on {prices['input_date']:%Y-%m-%d}" in text
    assert "volume" in report._repr_html_()


def closing_weights(panel):
    """Of the day's returns, known at the close."""
    r = panel.returns().nan_to_num()
    return r / r.abs().sum(-1, keepdim=True).clamp(min=1e-9)


def closing_weights_frame(panel):
    return pd.DataFrame(closing_weights(panel).numpy(), panel.dates, list(panel.assets))


def loaded_a_day_late(panel):
    return torch.cat([torch.zeros(1, panel.state.shape[1]), closing_weights(panel)[:-1]])


def test_a_loader_that_is_not_shifted_is_found_before_the_open(small):
    assert check_lookahead(closing_weights, small, starts=0, cuts=4).ok
    assert check_lookahead(loaded_a_day_late, small, starts=0, cuts=4, lag=1).ok
    report = refused(closing_weights, small, starts=0, cuts=4, lag=1)
    assert (report.findings["rows_ahead"].dropna() == 0).all()  # the row of the output's own date


def test_memory_of_the_start_is_told_from_forgetting(small):
    def verdicts(pipeline):
        report = check_lookahead(pipeline, small, cuts=1)
        return set(report.starts["verdict"]), report

    assert verdicts(forward_fill)[0] <= {"same", "forgets"}
    forgets, report = verdicts(ewma)
    assert forgets == {"forgets"}
    assert report.require(starts=True) is report
    for pipeline in (expanding_z_score, full_sample_z_score):
        kept, report = verdicts(pipeline)
        assert kept == {"does not forget"}
        assert "do not forget where the data begin" in repr(report)
    with pytest.raises(LookaheadError, match="do not forget"):
        verdicts(expanding_z_score)[1].require(starts=True)
    early = check_lookahead(lambda panel: returns(panel).loc[:"2019-03-20"], small, cuts=["2019-03-04"])
    assert set(early.starts["verdict"]) == {"same", "no outputs"}


def test_chance_is_refused(small):
    with pytest.raises(ValueError, match="two runs on the same panel differ.*torch.manual_seed"):
        check_lookahead(lambda panel: torch.randn(panel.state.shape), small)


def test_what_says_nothing_is_told(small):
    report = check_lookahead(lambda panel: torch.ones(panel.state.shape), small, starts=0, cuts=3)
    assert report.ok
    assert not report.moved
    with pytest.warns(UserWarning, match="does the pipeline read the panel"):
        assert report.require() is report
    assert "does the pipeline read the panel" in repr(report)
    with pytest.raises(ValueError, match="nothing to compare"):
        check_lookahead(lambda panel: returns(panel).loc["2019-08-01":], small, starts=0, cuts=["2019-06-03"])


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"lag": -1}, ValueError, "lag=-1"),
        ({"cuts": 0}, ValueError, "cuts=0"),
        ({"rtol": -1.0}, ValueError, "rtol"),
        ({"first": "2019-06-01"}, ValueError, "not a date"),
        ({"cuts": ["2019-08-30"]}, ValueError, "cuts must be dates"),
    ],
)
def test_settings_that_cannot_be_are_refused(small, options, error, words):
    with pytest.raises(error, match=words):
        check_lookahead(rolling_mean, small, **options)


def test_a_pipeline_that_fails_is_said_to_have_failed(small):
    def impatient(panel):
        if len(panel.dates) < 80:
            raise KeyError("too short")
        return returns(panel)

    with pytest.raises(PipelineError, match="failed on the panel cut after 2019-.*KeyError.*first=") as found:
        check_lookahead(impatient, small)
    assert isinstance(found.value.__cause__, KeyError)
    report = check_lookahead(impatient, small, first="2019-06-03", cuts=2, starts=2)
    assert report.ok
    with pytest.raises(PipelineError, match="a str"):
        check_lookahead(lambda panel: "weights", small)


def test_answers_may_have_many_forms(small):
    r = returns(small)
    long = r.stack(future_stack=True).rename("value")
    as_one = [
        r,
        panel_tensor := torch.tensor(r.to_numpy()),
        long,
        long.rename_axis(["date", "asset"]).reset_index().assign(name="x"),
        panel_tensor.unsqueeze(-1),
        r.tz_localize("UTC"),
        pd.concat({"a": r}, axis=1),
        pd.concat({"a": r}, axis=1).swaplevel(axis=1),
    ]
    for answer in as_one:
        (frame,) = outputs_of(answer, small).values()
        pd.testing.assert_frame_equal(
            frame.reindex(columns=list(small.assets)), r, check_names=False, check_freq=False, check_index_type=False
        )
    assert list(outputs_of({"a": r.mean(axis=1), "b": r}, small)) == ["a", "b"]
    assert list(outputs_of(r.rename(columns=str.lower), small)) == [name.lower() for name in small.assets]
    for answer, words in [
        (r.reset_index(drop=True), "not of dates"),
        (panel_tensor[1:], "a tensor of shape"),
        (pd.DataFrame("up", r.index, r.columns), "no numbers"),
        (pd.concat([r, r]), "twice"),
        (pd.concat([long, long]), "twice"),
    ]:
        with pytest.raises(ValueError, match=words):
            outputs_of(answer, small)


def test_what_is_dated_after_the_end_of_its_panel_is_from_elsewhere(small):
    kept = returns(small)
    cut = pd.Timestamp("2019-06-03")
    for pipeline, first in [
        (lambda panel: kept, small.dates[small.row(cut) + 1]),
        (lambda panel: kept.loc["2019-08-01":], pd.Timestamp("2019-08-01")),  # with nothing to compare
    ]:
        report = check_lookahead(pipeline, small, starts=0, cuts=[cut])
        (found,) = report.findings.to_dict("records")
        assert (found["test"], found["kind"], found["cut"]) == ("truncated", "beyond", cut)
        assert found["date"] == first
        assert found["count"] == kept.loc[first:].notna().to_numpy().sum()
        assert found["before"] == found["after"] == kept.loc[first, found["asset"]]
        with (
            pytest.warns(match="read the panel"),
            pytest.raises(LookaheadError, match="its panel ends before"),
        ):
            report.require()

    def tomorrows(panel):
        """Dated by the next weekday, for whose open it is."""
        return closing_weights_frame(panel).shift(1, freq="B")

    assert set(check_lookahead(tomorrows, small, starts=0, cuts=2).findings["kind"]) == {"beyond"}
    assert check_lookahead(tomorrows, small, starts=0, cuts=2, lag=1).ok
    assert check_lookahead(lambda panel: kept.loc[: panel.dates[-1]].reindex(small.dates), small, starts=0, cuts=2).ok


def test_memory_must_be_looked_at_to_be_refused(small):
    def impatient(panel):
        if panel.dates[0] > small.dates[0]:
            raise KeyError("too short")
        return rolling_mean(panel)

    report = check_lookahead(impatient, small, cuts=1, starts=2)
    assert set(report.starts["verdict"]) == {"failed"}
    assert report.require() is report
    with pytest.raises(LookaheadError, match=r"later start \(failed\).*\n.*KeyError"):
        report.require(starts=True)
    with pytest.raises(LookaheadError, match="none was tried"):
        check_lookahead(rolling_mean, small, cuts=1, starts=0).require(starts=True)


@pytest.mark.parametrize(("zone", "hour"), [("America/New_York", 20), ("Asia/Tokyo", 0)])
def test_a_time_is_of_the_date_in_its_own_zone(small, zone, hour):
    """In UTC the first is on the next date, where a leak of a day is none; the second on the date before."""
    honest = rolling_mean(small)
    there = (honest.index + pd.Timedelta(hours=hour)).tz_localize(zone)
    (frame,) = outputs_of(honest.set_axis(there), small).values()
    assert (frame.index.normalize() == small.dates).all()

    def at_that_time(pipeline):
        return lambda panel: pipeline(panel).set_axis((panel.dates + pd.Timedelta(hours=hour)).tz_localize(zone))

    options = {"cuts": 2, "starts": 0, "first": "2019-06-03"}
    assert check_lookahead(at_that_time(rolling_mean), small, **options).ok
    assert not check_lookahead(at_that_time(lambda panel: returns(panel).shift(-1)), small, **options).ok


def test_other_futures_and_starts_are_markets(small):
    row = 60
    for kind in ("prices", "cells", "blank"):
        other = with_cells(small, changed(small, row, kind, seed=3), row)
        past, same = other.until(small.dates[row]), small.until(small.dates[row])
        for name in ("values", "state", "session_day"):
            torch.testing.assert_close(getattr(past, name), getattr(same, name), rtol=0, atol=0, equal_nan=True)
        assert torch.equal(other.values.isfinite().all(-1), other.mask)
        assert torch.equal(other.session_day != NO_SESSION, other.mask)
        assert not torch.equal(other.values.nan_to_num(), small.values.nan_to_num())
        low, high = other.field("low"), other.field("high")
        if kind == "prices":
            assert (other.mask == small.mask).all()
            assert (low <= high + 1e-9)[other.mask].all()
            moves = (other.returns() / small.returns())[row + 1 :]
            assert (moves[moves.isfinite()] != 1).all()
    late = since(small, row)
    frame = small.to_frame()
    built = Panel.from_frame(frame[frame["session" if "session" in frame else "date"] >= small.dates[row]])
    assert late.dates.equals(built.dates)
    for name in ("values", "state", "session_day", "exchange_next_day", "exchange_close"):
        torch.testing.assert_close(getattr(late, name), getattr(built, name), rtol=0, atol=0, equal_nan=True)
