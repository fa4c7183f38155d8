"""A panel to which the files that a dataset has gained are added, against one built of all files, bit for bit."""

import os
import shutil
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch

from qtorch.data import DataError, Panel
from tests.data.markets import make_ohlc

MARKETS = {"AAA": "XNYS", "BBB": "XNYS", "CCC": "XTKS", "DDD": "XLON"}
TENSORS = ("values", "state", "session_day", "exchange_is_session", "exchange_next_day", "exchange_close")
OPTIONS = {"bad_rows": "quarantine", "jump": 0.1}


@pytest.fixture
def frame():
    """Prices with what builds find: a halt, an end, a late listing, jumps, faults, days off the calendar, silence."""
    frame = make_ohlc(MARKETS, "2020-02-03", "2020-03-20")
    asset, date = frame["asset"], frame["date"]
    gone = ((asset == "DDD") & (date > "2020-03-10")) | ((asset == "BBB") & (date < "2020-02-25"))
    frame = frame[~gone & ~((asset == "AAA") & date.between("2020-02-27", "2020-03-03"))].copy()

    def on(name, *dates):
        return (frame["asset"] == name) & frame["date"].isin(pd.to_datetime(dates))

    frame.loc[on("CCC", "2020-02-05", "2020-03-09", "2020-03-16"), "close"] *= 1.3
    frame.loc[on("AAA", "2020-02-06", "2020-03-10"), "close"] = -1.0
    extra = frame[frame["date"].isin(pd.to_datetime(["2020-02-07", "2020-03-13"]))]
    off = extra[extra["asset"] == "AAA"].assign(date=lambda rows: rows["date"] + pd.Timedelta(days=1))
    twice = extra[extra["asset"] == "CCC"]
    silent = extra.assign(asset="EEE", close=np.nan)
    return pd.concat([frame, off, twice, silent]).sort_values(["date", "asset"], ignore_index=True)


def write(frame, folder, since="2020-01-01", until="2020-12-31"):
    """A file for each week."""
    folder.mkdir(exist_ok=True)
    for week, rows in frame[frame["date"].between(since, until)].groupby(pd.Grouper(key="date", freq="W-SUN")):
        rows.to_parquet(folder / f"{week:%Y-%m-%d}.parquet", index=False)


def check(panel, expected):
    for name in TENSORS:
        np.testing.assert_array_equal(getattr(panel, name).numpy(), getattr(expected, name).numpy(), err_msg=name)
        assert getattr(panel, name).dtype == getattr(expected, name).dtype
    for name in ("assets", "fields", "exchanges", "exchange_codes", "delisted"):
        assert getattr(panel, name) == getattr(expected, name)
    assert panel.dates.equals(expected.dates)
    assert panel.as_of.equals(expected.as_of)
    pd.testing.assert_frame_equal(panel.findings, expected.findings, check_dtype=False)  # Parquet has no objects


class Told(list):
    def __call__(self, line):
        self.append(line)


@pytest.mark.parametrize("options", [OPTIONS, {**OPTIONS, "off_calendar": "drop", "delisted": {"DDD": "2020-03-04"}}])
def test_files_that_come_later_are_added(frame, tmp_path, options):
    told, data = Told(), tmp_path / "data"
    for since, until in pairwise(["2020-02-03", "2020-02-23", "2020-03-01", "2020-03-15", "2020-03-15", "2020-03-22"]):
        write(frame, data, since=pd.Timestamp(since) + pd.Timedelta(days=min(len(told), 1)), until=until)
        check(Panel.update(tmp_path / "kept", data, say=told, **options), Panel.from_parquet(data, **options))
    kinds = {"jump", "refused", "off_calendar", "no_price"} | ({"after_delisting"} if "delisted" in options else set())
    assert kinds <= set(Panel.from_parquet(data, **options).findings["kind"])
    assert "built anew (nothing was kept)" in told[0]
    assert all("new of" in line for line in told[1:3]), told
    # Without the Saturday among the dates, its price was not known at the last of them.
    assert ("not known yet" if "delisted" in options else "new of") in told[4]
    assert "as it was kept" in told[3]


def test_what_changes_the_past_builds_anew(frame, tmp_path):
    told, data, kept = Told(), tmp_path / "data", tmp_path / "kept"

    def update(reason, **options):
        options = {**OPTIONS, **options}
        check(Panel.update(kept, data, say=told, **options), Panel.from_parquet(data, **options))
        assert reason in told[-1], told[-1]

    write(frame, data, until="2020-03-08")
    update("nothing was kept")
    file = data / "2020-02-16.parquet"
    os.utime(file, (1, 1))
    update("as it was kept")
    rows = pd.read_parquet(file)
    rows.assign(close=rows["close"] * 1.001).to_parquet(file, index=False)
    update("2020-02-16.parquet changed")
    update("the options changed", jump=0.2)
    update("the options changed")
    file.unlink()
    update("2020-02-16.parquet is gone")
    rows.to_parquet(file, index=False)
    update("is read before files that were there")
    late = data / "2020-03-09.parquet"
    rows.assign(asset="GGG", exchange="XNYS").drop_duplicates("date").to_parquet(late, index=False)
    update("dates that were there already")
    late.unlink()
    update("is gone")
    new = frame[frame["date"] >= "2020-03-09"]
    pd.concat([new, new.head(1).assign(asset="FFF", exchange="XHKG")]).to_parquet(late, index=False)
    update("the calendars say something else of the past")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda frame: frame.assign(split=1.0), "split"),
        (lambda frame: frame.assign(known_at=(frame["date"] + pd.Timedelta(days=2)).dt.tz_localize("UTC")), "known_at"),
    ],
)
def test_actions_and_revisions_build_anew(frame, tmp_path, change, reason):
    told, data = Told(), tmp_path / "data"
    frame = change(frame)
    for until in ("2020-02-23", "2020-03-01"):
        write(frame, data, until=until)
        check(Panel.update(tmp_path / "kept", data, say=told, **OPTIONS), Panel.from_parquet(data, **OPTIONS))
    assert "built anew" in told[-1]


def test_prices_not_known_yet_build_anew(frame, tmp_path):
    told, data, options = Told(), tmp_path / "data", {**OPTIONS, "as_of": "16:30 Europe/London"}
    for until in ("2020-02-23", "2020-03-01"):
        write(frame, data, until=until)
        check(Panel.update(tmp_path / "kept", data, say=told, **options), Panel.from_parquet(data, **options))
    assert "built anew" in told[-1]


def test_a_stop_at_any_write_leaves_the_panel_that_was_or_the_new(frame, tmp_path, monkeypatch):
    data, kept = tmp_path / "data", tmp_path / "kept"
    write(frame, data, until="2020-02-16")
    before = Panel.update(kept, data, **OPTIONS).to("cpu")
    write(frame, data, since="2020-02-17", until="2020-02-23")
    after = Panel.from_parquet(data, **OPTIONS)
    shutil.copytree(kept, tmp_path / "first")
    found = []
    for owner, name in ((np, "save"), (pd.DataFrame, "to_parquet"), (os, "rename"), (os, "fsync"), (os, "close")):
        original = getattr(owner, name)
        for stop in range(0, 30, 2 if name == "fsync" else 1):
            calls = iter(range(1000))

            def fails(*args, original=original, calls=calls, stop=stop, **options):
                if next(calls) == stop:
                    raise KeyboardInterrupt
                return original(*args, **options)

            with monkeypatch.context() as patched:
                patched.setattr(owner, name, fails)
                try:
                    Panel.update(kept, data, **OPTIONS)
                except KeyboardInterrupt:
                    rows = len(Panel.open(kept / "panel").dates)
                    found.append(rows)
                    check(Panel.open(kept / "panel"), before if rows == len(before.dates) else after)
                else:
                    break
            shutil.rmtree(kept)
            shutil.copytree(tmp_path / "first", kept)
        check(Panel.update(kept, data, **OPTIONS), after)
        shutil.rmtree(kept)
        shutil.copytree(tmp_path / "first", kept)
    assert set(found) == {len(before.dates), len(after.dates)}


def test_a_broken_record_and_a_folder_of_something_else(frame, tmp_path):
    told, data, kept = Told(), tmp_path / "data", tmp_path / "kept"
    write(frame, data, until="2020-02-23")
    Panel.update(kept, data, **OPTIONS)
    (kept / "files.json").write_text("{")
    check(Panel.update(kept, data, say=told, **OPTIONS), Panel.from_parquet(data, **OPTIONS))
    assert "not readable" in told[-1]
    with pytest.raises(DataError, match="no such file"):
        Panel.update(kept, tmp_path / "none")
    assert torch.equal(Panel.open(kept / "panel").state, Panel.from_parquet(data, **OPTIONS).state)


def test_a_kept_panel_that_is_harmed_is_built_anew(frame, tmp_path):
    write(frame, tmp_path / "files", until="2020-03-08")
    Panel.update(tmp_path / "kept", tmp_path / "files", **OPTIONS)
    values = tmp_path / "kept" / "panel" / "values.npy"
    values.write_bytes(values.read_bytes()[: values.stat().st_size // 2])
    told: list[str] = []
    panel = Panel.update(tmp_path / "kept", tmp_path / "files", say=told.append, **OPTIONS)
    assert "built anew (what was kept is harmed" in told[0]
    check(panel, Panel.from_parquet(tmp_path / "files", **OPTIONS))
