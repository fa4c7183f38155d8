"""Windows of the last rows from an earlier run's state against those of the whole panel, bit for bit."""

import datetime
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from qtorch.data import DataError, Features, Panel, PanelWindowSource, WindowSource, WindowSpec
from qtorch.data.features import (
    Absolute,
    DownsideRatio,
    Drift,
    Ewma,
    Feature,
    LaterCloses,
    Rank,
    Return,
    Rolling,
    Scaled,
    TailHistory,
    Volatility,
    WithIndicator,
    YangZhang,
    ZScore,
    default_features,
)
from qtorch.data.recent import SessionState, recent_source
from qtorch.errors import ArgumentError
from qtorch.models.defaults import default_windows
from tests.data.markets import make_ohlc
from tests.data.test_windows_properties import ASSETS, CALENDARS, EARLY, LATE, calendar, prices

PARTS = (
    *default_features(),
    Drift(0.9),
    DownsideRatio(0.9),
    TailHistory(0.9, min_sessions=0),
    Rolling(Scaled(0.8, min_sessions=0), 3, "mean"),
    Ewma(Rolling(TailHistory(0.8, min_sessions=0), 4, "std", 0.5), 0.7, min_sessions=0),
    Rolling(Ewma(Absolute(Return()), 0.5, min_sessions=0), 3, "skew"),
    LaterCloses(),
    Rank(Rolling(Return(), 3, "mean")),
    ZScore(Volatility(0.8, min_sessions=0)),
)
CLOSED = [datetime.date(2021, 4, day) for day in (4, 6, 11, 12, 18)]
SPARSE = {"weekdays": {"Mon", "Tue", "Sun"}, "zone": "UTC", "holidays": CLOSED, "close": "09:30"}
SPEC = WindowSpec(5, (1, 3), Features(PARTS, warm_up=4))


def check(panel, spec, source, first):
    """All that is asked of windows, at all rows from the first."""
    full = WindowSource(panel, spec)
    rows = np.arange(first, len(panel.dates))
    (whole, valid), (recent, can) = (each.at(rows, 1, 9) for each in (full, source))
    assert torch.equal(valid, can)
    pairs = [(full.entries(first), source.entries(first))]
    if valid.any():
        pairs.append((whole[valid], recent[can]))
    for a, b in pairs:
        assert len(a) == len(b)
        assert all(map(torch.equal, full.places(a), source.places(b)))
        assert all(map(torch.equal, full.targets(a), source.targets(b)))
        for options in ({}, {"every_position": True}, {"known_by": len(panel.dates) - 1, "embargo": 1}):
            expected, got = full.gather(a, **options), source.gather(b, **options)
            for each in fields(expected):
                assert torch.equal(getattr(expected, each.name), getattr(got, each.name)), each.name


def same_past(before, panel):
    """Whether the rows of an earlier panel hold the same prices in a later one."""
    rows, codes = len(before.dates), before.exchange_codes == panel.exchange_codes
    if not codes or list(before.as_of) != list(panel.as_of[:rows]):
        return False
    later = panel.select(before.assets)
    return bool(panel.mask[:rows].sum() == before.mask.sum()) and all(
        torch.equal(getattr(before, name).nan_to_num(), getattr(later, name)[:rows].nan_to_num())
        for name in ("values", "session_day", "exchange_is_session", "exchange_next_day", "exchange_close")
    )


@settings(max_examples=8, deadline=None)
@given(CALENDARS, ASSETS, st.integers(0, 2**31), st.lists(st.integers(1, 80), min_size=2, max_size=4, unique=True))
@example([SPARSE], [(0, 28, 25, 0.0), (0, 23, 0, 0.0), (0, 23, 0, 0.0)], 0, [1, 36])  # no usable window at the end
@example([LATE, EARLY], [(0, 0, 0, 0.0), (1, 30, 0, 0.05), (0, 0, 20, 0.4)], 0, [30, 50, 51, 74])
def test_nights_in_a_row_see_what_one_run_sees(markets, assets, seed, ends):
    known = [calendar(n, **of) for n, of in enumerate(markets)]
    frame = prices(known, assets, seed)
    state = before = None
    for end in sorted(ends):
        until = frame[frame["date"] <= frame["date"].min() + pd.Timedelta(days=end)]
        if until.empty:
            continue
        panel = Panel.from_frame(until, calendars=known)
        first = len(panel.dates) - 1
        if state is not None and state.rows <= first:
            first = state.rows
        try:
            WindowSource(panel, SPEC)
        except DataError:
            continue
        found = recent_source(panel, SPEC, first, state)
        if before is not None:
            same = state.rows <= first and same_past(before, panel)
            assert found.note.startswith("gone on from" if same else "computed anew")
        check(panel, SPEC, found.source, first)
        state, before = found.state, panel
    assume(state is not None)


def ohlc(end="2020-05-29"):
    return make_ohlc({"AAA": "XNYS", "BBB": "XNYS", "CCC": "XTKS", "DDD": "XLON"}, "2020-01-02", end)


def test_default_windows_with_ranges_go_on_through_a_saved_state(tmp_path):
    frame = ohlc()
    frame.loc[::7, "open"] = np.nan
    frame = frame[~((frame["asset"] == "DDD") & (frame["date"] > "2020-04-20"))]  # it falls silent
    dates = frame["date"].sort_values().unique()
    state = None
    for night in (-30, -9, -8, -1):
        panel = Panel.from_frame(frame[frame["date"] <= dates[night]])
        spec = default_windows(panel, horizons=(1, 5), context=12)
        spec = WindowSpec(12, (1, 5), Features((*spec.features.parts, WithIndicator(YangZhang(5)))))
        first = len(panel.dates) - 1 if state is None else state.rows
        found = recent_source(panel, spec, first, state)
        assert found.note.startswith("computed anew" if state is None else "gone on from")
        check(panel, spec, found.source, first)
        found.state.save(tmp_path / "state")
        state = SessionState.load(tmp_path / "state")


def test_what_does_not_fit_is_computed_anew_and_says_why():
    frame = ohlc()
    last = frame["date"].max()
    spec = WindowSpec(6, (1, 2), Features((Scaled(), LaterCloses())))
    yesterday = Panel.from_frame(frame[frame["date"] < last])
    state = recent_source(yesterday, spec, len(yesterday.dates) - 1).state
    tonight = Panel.from_frame(frame)
    row = len(tonight.dates) - 1

    def note(panel, state=state, spec=spec, first=row):
        found = recent_source(panel, spec, first, state)
        check(panel, spec, found.source, first)
        return found.note

    assert note(tonight) == f"gone on from {yesterday.dates[-1]:%Y-%m-%d}"
    assert "after the first row" in note(tonight, first=row - 1)
    assert "are not what they were" in note(tonight, spec=WindowSpec(7, (1, 2), spec.features))
    revised = frame.copy()
    revised.loc[frame["date"] == "2020-03-03", "close"] *= 1.0001
    assert "are not what they were" in note(Panel.from_frame(revised))
    assert "AAA has left" in note(Panel.from_frame(frame[frame["asset"] != "AAA"]))
    added = pd.concat([frame, frame[frame["asset"] == "AAA"].assign(asset="ABA")])
    assert "ABA had prices before" in note(Panel.from_frame(added))
    listed = added[~((added["asset"] == "ABA") & (added["date"] < last))]
    assert "gone on from" in note(Panel.from_frame(listed))
    assert "rows, the panel has" in note(tonight.until("2020-05-01"), first=60)


@dataclass(frozen=True)
class SinceFirst(Feature):
    @property
    def names(self):
        return ("since_first",)

    def own(self, sessions):
        return np.nancumsum(sessions.returns, axis=1)[:, :, None]


@dataclass(frozen=True)
class Summed(Scaled):
    def own(self, sessions):
        return np.nancumsum(sessions.returns, axis=1)[:, :, None]


@pytest.mark.parametrize("mine", [SinceFirst(), Absolute(SinceFirst()), Summed(), Rank(SinceFirst())])
def test_a_feature_that_does_not_tell_its_reach_is_computed_whole(mine):
    panel = Panel.from_frame(ohlc())
    spec = WindowSpec(6, (1,), Features((mine,)))
    found = recent_source(panel, spec, 60)
    assert found.state is None
    assert f"{type(mine).__name__} does not tell its reach" in found.note
    check(panel, spec, found.source, 60)


def test_rows_before_the_first_are_refused():
    panel = Panel.from_frame(ohlc())
    spec = WindowSpec(6, (1,), Features((Scaled(),)))
    source = recent_source(panel, spec, 60).source
    for call in (
        lambda: source.entries(59),
        lambda: source.entries(known_by=50),
        lambda: source.at(np.array([59]), 1, 5),
        lambda: PanelWindowSource(panel, spec, source.table),
        lambda: recent_source(panel, spec, len(panel.dates)),
    ):
        with pytest.raises(ArgumentError):
            call()
    assert torch.equal(source.places(source.entries())[0], source.places(source.entries(60))[0])


def test_a_state_is_whole_or_refused(tmp_path, monkeypatch):
    panel = Panel.from_frame(ohlc())
    spec = WindowSpec(6, (1,), Features((Scaled(), Rank(Return()))))
    state = recent_source(panel.until("2020-04-30"), spec, 60).state
    folder = tmp_path / "state"
    with pytest.raises(DataError, match="no readable state"):
        SessionState.load(folder)
    state.save(folder)
    newer = recent_source(panel, spec, 60).state
    save = np.save
    for stop in range(len(state.sums) + 3):
        calls = iter(range(99))

        def fails(*args, stop=stop, calls=calls, **options):
            save(*args, **options)
            if next(calls) == stop:
                raise KeyboardInterrupt

        monkeypatch.setattr(np, "save", fails)
        with pytest.raises(KeyboardInterrupt):
            newer.save(folder)
        assert SessionState.load(folder).digest == state.digest
    monkeypatch.setattr(np, "save", save)
    newer.save(folder)
    assert SessionState.load(folder).digest == newer.digest
    file = folder / "scale.npy"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    with pytest.raises(DataError, match="not what was written"):
        SessionState.load(folder)
