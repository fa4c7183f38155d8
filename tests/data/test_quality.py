import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qtorch.data import DataError, Panel, load_sample
from qtorch.data import quality as module
from qtorch.data.quality import quality
from tests.conftest import make_prices

EXCHANGES = {"AAA": "XNYS", "BBB": "XNYS", "TTT": "XTKS"}
PRICES = ["open", "high", "low", "close"]
KINDS = {"stale_runs": "stale", "jumps": "jump", "spikes": "spike", "splits_suspected": "split"}


def make_market(exchanges=EXCHANGES, start="2018-01-04", end="2019-06-28") -> pd.DataFrame:
    """Random walks with open, high, low and volume, without a fault."""
    frame = make_prices(exchanges, start, end)
    rng = np.random.default_rng(1)
    before = frame.groupby("asset")["close"].shift().fillna(frame["close"])
    frame["open"] = before * np.exp(0.003 * rng.standard_normal(len(frame)))
    frame["high"] = frame[["open", "close"]].max(axis=1) * 1.002
    frame["low"] = frame[["open", "close"]].min(axis=1) * 0.998
    frame["volume"] = np.round(1e6 * np.exp(0.3 * rng.standard_normal(len(frame))))
    return frame


@pytest.fixture(scope="module")
def clean() -> pd.DataFrame:
    return make_market()


@pytest.fixture
def market(clean) -> pd.DataFrame:
    return clean.copy()


def rows(frame: pd.DataFrame, asset: str, start: str, end: str | None = None) -> pd.Series:
    return (frame["asset"] == asset) & frame["date"].between(start, end or start)


def events(report: module.Quality, kind: str) -> list[tuple[str, str, str, int]]:
    found = report.events[report.events["kind"] == kind]
    return [(a, f"{d:%Y-%m-%d}", f"{e:%Y-%m-%d}", n) for a, d, e, n in found[["asset", "date", "end", "length"]].values]


def counts(report: module.Quality, *columns: str) -> dict[str, object]:
    """The counts that are not zero, by asset, of some columns or of all."""
    table = report.table[list(columns or module.COUNTED)].astype("Int64")
    return {(a, c): n for (a, c), n in table.stack().items() if n != 0}


def test_a_clean_market_has_no_fault(market):
    report = quality(Panel.from_frame(market))
    assert counts(report) == {}
    assert report.events.empty
    assert list(report.table.columns) == module.COLUMNS
    days = market.groupby("asset")["date"].agg(["min", "max", "size"])
    assert report.table["exchange"].to_dict() == EXCHANGES
    assert report.table["first"].tolist() == days["min"].tolist()
    assert report.table["last"].tolist() == days["max"].tolist()
    assert report.table["sessions"].tolist() == report.table["observed"].tolist() == days["size"].tolist()


def test_a_halt_is_one_run_over_weekends_and_holidays(market):
    halt = rows(market, "AAA", "2018-07-03", "2018-07-06")  # 4 July is closed
    report = quality(Panel.from_frame(market[~halt & ~rows(market, "AAA", "2018-09-04")]))
    assert counts(report) == {("AAA", "missing"): 4}
    assert report.table.loc["AAA", ["longest_missing_run", "sessions", "observed"]].tolist() == [3, 373, 369]
    assert events(report, "missing") == [
        ("AAA", "2018-07-03", "2018-07-06", 3),
        ("AAA", "2018-09-04", "2018-09-04", 1),
    ]


def test_a_day_without_any_price_of_an_exchange_is_told_from_one_asset_s_gap(market):
    lost = (market["exchange"] == "XNYS") & (market["date"] == "2018-12-12")  # a day of mourning, say
    report = quality(Panel.from_frame(market[~lost & ~rows(market, "BBB", "2018-12-13")]))
    assert report.table["missing"].tolist() == [1, 2, 0]
    assert report.table["missing_shared"].tolist() == [1, 1, 0]
    assert report.events.loc[report.events["asset"] == "BBB", "detail"].tolist() == [
        "2 sessions, 1 of them missing in the exchange's other assets too"
    ]


@pytest.mark.parametrize("policy", ["keep", "drop"])
def test_prices_on_closed_days_are_counted_kept_or_dropped(market, policy):
    holiday = market[rows(market, "AAA", "2018-07-03")].assign(date=pd.Timestamp("2018-07-04"))
    frame = pd.concat([market, holiday]).sort_values(["asset", "date"], ignore_index=True)
    gap = rows(frame, "AAA", "2018-07-10")
    report = quality(Panel.from_frame(frame[~gap], off_calendar=policy))
    assert counts(report, "off_calendar", "missing") == {("AAA", "off_calendar"): 1, ("AAA", "missing"): 1}
    kept = int(policy == "keep")
    assert report.table.loc["AAA", "observed"] == report.table.loc["AAA", "sessions"] - 1 + kept
    assert events(report, "off_calendar") == [("AAA", "2018-07-04", "2018-07-04", 1)]
    place = int(np.flatnonzero(rows(frame[~gap], "AAA", "2018-07-04"))[0])
    assert report.events["detail"].str.contains(f"row {place}").any()


def test_prices_on_closed_days_are_counted_without_the_constructor_s_findings(market):
    holiday = market[rows(market, "AAA", "2018-07-03")].assign(date=pd.Timestamp("2018-07-04"))
    panel = Panel.from_frame(pd.concat([market, holiday]).sort_values(["asset", "date"]))
    bare = replace(panel, findings=panel.findings.iloc[:0])
    assert counts(quality(bare), "off_calendar") == {("AAA", "off_calendar"): 1}


def test_a_stale_run_counts_sessions_and_not_the_days_between(market):
    frozen = rows(market, "AAA", "2018-06-28", "2018-07-09")  # 29 Jun, 2, 3, 5, 6, 9 Jul are unchanged
    market.loc[frozen, PRICES] = market.loc[frozen, "close"].iloc[0]
    short = rows(market, "BBB", "2018-10-01", "2018-10-05")
    market.loc[short, PRICES] = market.loc[short, "close"].iloc[0]
    panel = Panel.from_frame(market)
    report = quality(panel)
    assert counts(report, "stale_runs") == {("AAA", "stale_runs"): 1}
    assert report.table["longest_stale_run"].tolist() == [6, 4, 0]
    assert events(report, "stale") == [("AAA", "2018-06-29", "2018-07-09", 6)]
    assert quality(panel, stale=4).table["stale_runs"].tolist() == [1, 1, 0]
    assert quality(panel, stale=7).table["stale_runs"].sum() == 0
    holed = quality(Panel.from_frame(market[~rows(market, "AAA", "2018-07-03")]))
    assert events(holed, "stale") == [("AAA", "2018-06-29", "2018-07-09", 5)]


def test_a_jump_is_found_and_a_crisis_is_none(market):
    market.loc[rows(market, "TTT", "2018-05-21", "2019-12-31"), PRICES] *= 0.75  # stays: a jump
    aaa = (market["asset"] == "AAA").to_numpy()
    crisis = market["date"].between("2018-09-01", "2018-12-31").to_numpy()[aaa]
    move = np.log(market.loc[aaa, "close"]).diff().fillna(0) * np.where(crisis, 5, 1)
    market.loc[aaa, "close"] = 100 * np.exp(move.cumsum())
    panel = Panel.from_frame(market.drop(columns=["open", "high", "low"]))
    assert (panel.returns()[:, 0].nan_to_num().abs() > 0.1).sum() > 3
    report = quality(panel)
    assert counts(report) == {("TTT", "jumps"): 1}
    assert events(report, "jump") == [("TTT", "2018-05-21", "2018-05-21", 1)]
    assert quality(panel, jump=0.6).table["jumps"].sum() == 0
    assert quality(panel, jump_scales=3.0).table.loc["AAA", "jumps"] > 0


def test_a_move_over_a_long_halt_is_measured_by_the_sessions_it_spans(market):
    market.loc[rows(market, "AAA", "2018-09-04", "2019-12-31"), PRICES] *= 1.3
    assert quality(Panel.from_frame(market)).table.loc["AAA", "jumps"] == 1
    halted = market[~rows(market, "AAA", "2018-05-01", "2018-09-03")]
    assert quality(Panel.from_frame(halted)).table.loc["AAA", "jumps"] == 0


def test_a_price_that_is_taken_back_is_a_spike_and_no_split(market):
    for asset, factor in {"AAA": 0.5, "BBB": 1.5, "TTT": 100.0}.items():
        market.loc[rows(market, asset, "2018-08-01"), PRICES] *= factor
    report = quality(Panel.from_frame(market))
    assert report.table[["jumps", "spikes", "splits_suspected"]].to_numpy().tolist() == [[2, 1, 0]] * 3
    assert events(report, "spike") == [(asset, "2018-08-01", "2018-08-01", 1) for asset in EXCHANGES]


@pytest.mark.parametrize("fields", [["close"], ["close", "volume"], [*PRICES, "volume"]])
def test_splits_are_suspected_and_named(market, fields):
    ratios = [(3, 2), (2, 1), (5, 2), (3, 1), (4, 1), (7, 1), (10, 1), (20, 1), (1, 2), (1, 10), (2, 3)]
    names = [f"{many}-for-{one}" for many, one in ratios] + ["none"]
    market = pd.concat([market[market["asset"] == "AAA"].assign(asset=name) for name in names], ignore_index=True)
    for many, one in ratios:
        after = rows(market, f"{many}-for-{one}", "2018-08-01", "2019-12-31")
        market.loc[after, PRICES] *= one / many
        market.loc[after, "volume"] *= many / one
    report = quality(Panel.from_frame(market[["date", "asset", "exchange", *fields]]))
    found = report.events[report.events["kind"] == "split"]
    assert set(found["asset"]) == {f"{many}-for-{one}" for many, one in ratios}
    assert (report.table["splits_suspected"] == (report.table.index != "none")).all()
    assert set(found["date"]) == {pd.Timestamp("2018-08-01")}
    for asset, detail in found[["asset", "detail"]].values:
        assert detail.startswith(f"{asset} split suspected: close x ")
    assert report.table["spikes"].sum() == 0


def test_a_split_during_a_halt_is_suspected(market):
    market.loc[rows(market, "BBB", "2018-08-01", "2019-12-31"), PRICES] /= 2
    report = quality(Panel.from_frame(market[~rows(market, "BBB", "2018-07-30", "2018-08-02")]))
    assert events(report, "split") == [("BBB", "2018-08-03", "2018-08-03", 1)]


def test_bad_news_and_a_fall_within_the_day_are_no_splits(market):
    market.loc[rows(market, "AAA", "2018-08-01", "2019-12-31"), PRICES] /= 2
    market.loc[rows(market, "AAA", "2018-08-01"), "volume"] *= 10
    market.loc[rows(market, "BBB", "2018-08-01", "2019-12-31"), PRICES] /= 2
    fall = rows(market, "BBB", "2018-08-01")
    market.loc[fall, ["open", "high"]] *= 2
    report = quality(Panel.from_frame(market))
    assert counts(report) == {("AAA", "jumps"): 1, ("BBB", "jumps"): 1}


def test_opens_that_are_yesterdays_closes_are_counted_where_they_last(market):
    def copy_opens(asset, first, last):
        before = market.groupby("asset")["close"].shift()
        market.loc[rows(market, asset, first, last), "open"] = before
        market["high"] = market[["high", "open"]].max(axis=1)
        market["low"] = market[["low", "open"]].min(axis=1)

    copy_opens("AAA", "2018-08-01", "2018-08-08")
    copy_opens("BBB", "2018-08-01", "2018-08-06")  # four: chance, where prices are round
    report = quality(Panel.from_frame(market))
    assert counts(report) == {("AAA", "stale_opens"): 6}
    assert events(report, "stale_open") == [("AAA", "2018-08-01", "2018-08-08", 6)]
    assert report.events["detail"].tolist() == ["the open is the close before on 6 sessions"]
    assert counts(quality(Panel.from_frame(market), stale=4)) == {("AAA", "stale_opens"): 6, ("BBB", "stale_opens"): 4}
    flat = rows(market, "AAA", "2018-08-03")  # a price that does not move within its day says nothing of its open
    market.loc[flat, PRICES] = market.loc[flat, "open"].item()
    assert counts(quality(Panel.from_frame(market)), "stale_opens") == {}
    assert quality(Panel.from_frame(market[["date", "asset", "exchange", "close"]])).table["stale_opens"].sum() == 0


def test_the_samples_index_has_stale_opens():
    sample = load_sample().query("'2000' <= date < '2006' and asset in ['NASDAQ', 'SP500']")
    table = quality(Panel.from_frame(sample)).table
    assert table.loc["SP500", "stale_opens"] > 0.9 * table.loc["SP500", "observed"]
    assert table.loc["NASDAQ", "stale_opens"] == 0


def test_zero_volume_and_padded_holidays(market):
    dry = rows(market, "AAA", "2018-08-01", "2018-08-08")
    market.loc[dry, "volume"] = 0
    holiday = rows(market, "BBB", "2018-09-04")  # a session that the vendor took for a holiday
    before = market.loc[rows(market, "BBB", "2018-08-31"), "close"].item()
    market.loc[holiday, [*PRICES, "volume"]] = [before] * 4 + [0.0]
    last = market[rows(market, "AAA", "2018-11-21")]
    padding = last.assign(date=pd.Timestamp("2018-11-22"), volume=0.0, **dict.fromkeys(PRICES, last["close"].item()))
    report = quality(Panel.from_frame(pd.concat([market, padding]).sort_values(["asset", "date"])))
    assert counts(report) == {
        ("AAA", "zero_volume"): 7,
        ("AAA", "padded"): 1,
        ("AAA", "off_calendar"): 1,
        ("BBB", "zero_volume"): 1,
        ("BBB", "padded"): 1,
    }
    assert events(report, "zero_volume") == [("AAA", "2018-08-01", "2018-08-08", 6)]
    assert events(report, "padded") == [("AAA", "2018-11-22", "2018-11-22", 1), ("BBB", "2018-09-04", "2018-09-04", 1)]


def test_without_volume_nothing_is_said_of_it(market):
    report = quality(Panel.from_frame(market.drop(columns="volume")))
    assert report.table[["zero_volume", "padded"]].isna().all(axis=None)
    assert "zero_volume" not in report.summary().index


def test_fields_that_do_not_fit_together_or_are_empty(market):
    market.loc[rows(market, "AAA", "2018-08-01"), "low"] = 1e4
    market.loc[rows(market, "AAA", "2018-08-02"), "high"] = 1.0
    market.loc[rows(market, "BBB", "2018-08-03"), ["open", "volume"]] = np.nan
    report = quality(Panel.from_frame(market))
    assert counts(report) == {("AAA", "ohlc_inconsistent"): 2, ("BBB", "incomplete"): 1}
    assert events(report, "ohlc_inconsistent") == [("AAA", "2018-08-01", "2018-08-02", 2)]
    assert events(report, "incomplete") == [("BBB", "2018-08-03", "2018-08-03", 1)]


def test_refused_rows_are_counted_and_located(market):
    market.loc[rows(market, "TTT", "2018-08-01"), "close"] = -1.0
    place = int(np.flatnonzero(rows(market, "TTT", "2018-08-01"))[0])
    report = quality(Panel.from_frame(market, bad_rows="quarantine"))
    assert counts(report) == {("TTT", "refused"): 1, ("TTT", "missing"): 1}
    (detail,) = report.events.loc[report.events["kind"] == "refused", "detail"]
    assert detail.endswith(f"(row {place})")


def test_an_asset_that_stopped_is_behind_and_one_without_prices_is_empty(market):
    stopped = market[
        ~rows(market, "BBB", "2019-06-20", "2019-12-31") & ~rows(market, "TTT", "2018-01-01", "2019-03-31")
    ]
    panel = Panel.from_frame(stopped)
    assert quality(panel).table["behind"].tolist() == [0, 7, 0]
    early = quality(panel.until("2018-12-31"))
    assert early.table.loc["TTT", ["first", "last"]].isna().all()
    assert (early.table.loc["TTT", ["behind", "sessions", "observed", "missing"]] == 0).all()
    assert "TTT" not in set(early.events["asset"])


def spoil(market: pd.DataFrame) -> pd.DataFrame:
    """Each fault somewhere."""
    market = market.copy()
    market.loc[rows(market, "AAA", "2018-08-01", "2019-12-31"), PRICES] /= 2
    market.loc[rows(market, "BBB", "2018-08-01"), PRICES] *= 1.4
    market.loc[rows(market, "BBB", "2019-01-08", "2019-01-17"), PRICES] = 50.0
    market.loc[rows(market, "TTT", "2018-03-05", "2018-03-13"), "volume"] = 0
    market.loc[rows(market, "TTT", "2018-03-14"), "low"] = 1e5
    market.loc[rows(market, "TTT", "2018-03-15"), "open"] = np.nan
    market = market[~rows(market, "AAA", "2018-05-01", "2018-05-04") & ~rows(market, "TTT", "2019-02-01")]
    holiday = market[rows(market, "BBB", "2018-07-03")].assign(date=pd.Timestamp("2018-07-04"))
    return pd.concat([market, holiday]).sort_values(["asset", "date"], ignore_index=True)


def test_the_events_are_what_the_table_counts(market):
    report = quality(Panel.from_frame(spoil(market)))
    assert (report.table[module.COUNTED].sum() > 0).sum() >= 9
    listed = report.events.groupby(["asset", "kind"])["length"].agg(["size", "sum"])
    for column in ("missing", "off_calendar", "padded", "ohlc_inconsistent", "incomplete", "refused", *KINDS):
        how = "size" if column in KINDS else "sum"
        found = listed[how].unstack().reindex(report.table.index).get(KINDS.get(column, column))
        expected = report.table[column].astype(int).tolist()
        assert (expected if found is None else found.fillna(0).astype(int).tolist()) == expected
        assert found is not None or not any(expected)
    at = report.events["asset"].map({a: i for i, a in enumerate(report.table.index)})
    assert at.is_monotonic_increasing
    assert report.events.groupby("asset")["date"].is_monotonic_increasing.all()


def test_too_many_runs_are_told_as_one_event(market, monkeypatch):
    panel = Panel.from_frame(spoil(market[~((market["asset"] == "TTT") & (market.index % 3 == 0))]))
    every = quality(panel)
    monkeypatch.setattr(module, "MANY", 10)
    report = quality(panel)
    pd.testing.assert_frame_equal(report.table, every.table)
    missing = every.events[(every.events["asset"] == "TTT") & (every.events["kind"] == "missing")]
    assert len(missing) > 10
    (told,) = report.events[(report.events["asset"] == "TTT") & (report.events["kind"] == "missing")].to_dict("records")
    assert (told["date"], told["end"]) == (missing["date"].iloc[0], missing["end"].iloc[-1])
    assert told["length"] == report.table.loc["TTT", "missing"]
    assert told["detail"].endswith(f"in {len(missing)} runs")
    others = every.events["asset"] != "TTT"
    assert report.events[report.events["asset"] != "TTT"].equals(every.events[others])


def test_the_order_and_the_company_of_assets_change_nothing(market, monkeypatch):
    panel = Panel.from_frame(spoil(market))
    report = quality(panel)
    turned = quality(panel.select(["TTT", "AAA", "BBB"]))
    pd.testing.assert_frame_equal(turned.table, report.table.loc[["TTT", "AAA", "BBB"]])
    joined = make_market({"ZZZ": "XTAE"})  # Sundays: rows on which the others are closed
    more = pd.concat([spoil(market), joined], ignore_index=True)
    pd.testing.assert_frame_equal(quality(Panel.from_frame(more)).table.drop("ZZZ"), report.table)
    monkeypatch.setattr(module, "COLUMNS_AT_ONCE", 2)
    blocks = quality(panel)
    pd.testing.assert_frame_equal(blocks.table, report.table)
    pd.testing.assert_frame_equal(blocks.events, report.events)


def test_sessions_are_the_same_at_another_as_of(market):
    here = quality(Panel.from_frame(spoil(market))).table
    columns = ["missing", "longest_missing_run", "off_calendar", "stale_runs", "splits_suspected", "jumps"]
    london = quality(Panel.from_frame(spoil(market), as_of="16:30 Europe/London")).table
    pd.testing.assert_frame_equal(london[columns], here[columns])


@pytest.mark.parametrize("holes", [0.02, 0.9])
def test_missing_sessions_against_a_count_by_hand(market, holes):
    kept = np.random.default_rng(0).random(len(market)) >= holes
    table = quality(Panel.from_frame(market[kept])).table
    for asset in table.index:
        there = np.flatnonzero(kept[market["asset"] == asset])
        gaps = np.diff(there) - 1
        expected = [there[-1] - there[0] + 1, len(there), gaps.sum(), gaps.max()]
        assert table.loc[asset, ["sessions", "observed", "missing", "longest_missing_run"]].tolist() == expected


@settings(deadline=None)
@given(cells=arrays(np.int8, st.tuples(st.integers(1, 3), st.integers(1, 20)), elements=st.integers(0, 2)))
def test_runs_against_text(cells):
    """Bad cells are b, cells that end a run x; others, such as closed days, neither count nor end it."""
    found = [list(map(int, run)) for run in zip(*module._runs(cells == 1, cells == 2), strict=True)]
    expected = [
        [n, at.start() + run.index("b"), at.start() + run.rindex("b"), run.count("b")]
        for n, row in enumerate(cells)
        for at in re.finditer("[^x]+", "".join(".bx"[cell] for cell in row))
        if "b" in (run := at[0])
    ]
    assert found == expected


def test_the_summary_fits_on_a_screen(market):
    report = quality(Panel.from_frame(spoil(market)))
    lines = repr(report).splitlines()
    assert lines[0].startswith("Quality of 3 assets, 2 exchanges, 2018-01-04..2019-06-28; 99.")
    assert len(lines) < 20
    assert max(map(len, lines)) <= 100
    assert report.summary().loc["missing", ["total", "assets", "most"]].tolist() == [5, 2, "AAA 4, TTT 1"]
    assert "<table" in report._repr_html_()


def test_settings_that_make_no_sense_are_named(market):
    panel = Panel.from_frame(market)
    for name, value in {"stale": 0, "jump": -0.1, "jump_scales": float("nan")}.items():
        with pytest.raises(DataError, match=f"{name}={value} must be positive"):
            quality(panel, **{name: value})
