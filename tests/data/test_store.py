import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from qtorch.data import DataError, Panel, WindowSource, WindowSpec
from qtorch.data.rows import ParquetRows
from qtorch.data.store import TensorFolder
from qtorch.data.table import SessionTable
from tests.data.markets import make_ohlc

SPEC = WindowSpec(context=8, horizons=(1, 3))


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    assets = {f"A{i}": code for i, code in enumerate(["XNYS", "XTKS", "XECB", "XNYS", "XTKS"])}
    frame = make_ohlc(assets, "2018-01-04", "2018-12-28")
    return frame.drop(frame.sample(frac=0.05, random_state=1).index).reset_index(drop=True)


def same(a: Panel, b: Panel) -> None:
    for field in dataclasses.fields(Panel):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if isinstance(x, torch.Tensor):
            torch.testing.assert_close(x, y, rtol=0, atol=0, equal_nan=True)
        elif isinstance(x, pd.DataFrame):
            pd.testing.assert_frame_equal(x, y, check_dtype=False)
        elif isinstance(x, pd.DatetimeIndex):
            assert x.equals(y)
        else:
            assert x == y


def test_a_panel_survives_its_folder(frame, tmp_path):
    panel = Panel.from_frame(frame, delisted={"A1": "2018-06-29"})
    panel.save(tmp_path / "store")
    same(panel, Panel.open(tmp_path / "store"))
    assert {path.suffix for path in (tmp_path / "store").iterdir()} == {".npy", ".parquet", ".json"}


@pytest.mark.parametrize(
    ("partition", "as_of"), [(None, None), ("asset", "16:30 Europe/London"), ("year", "16:30 Europe/London")]
)
def test_parquet_in_any_pieces_gives_the_panel_of_the_frame(frame, tmp_path, monkeypatch, partition, as_of):
    monkeypatch.setattr("qtorch.data.rows.CHUNK", 37)
    data = frame.assign(year=frame["date"].dt.month)  # the order of the folders is not that of time: 10 before 2
    if partition is None:
        data.to_parquet(tmp_path / "prices.parquet", row_group_size=100)
        path = tmp_path / "prices.parquet"
    else:
        path = tmp_path / "set"
        data.to_parquet(path, partition_cols=[partition])
    expected = Panel.from_frame(frame, as_of=as_of)
    for store in (None, tmp_path / "store"):
        panel = Panel.from_parquet(path, as_of=as_of, store=store)
        keys = ["kind", "asset", "date", "detail"]
        a, b = (p.findings.sort_values(keys)[keys].reset_index(drop=True) for p in (panel, expected))
        pd.testing.assert_frame_equal(a, b, check_dtype=False)
        same(dataclasses.replace(panel, findings=expected.findings), expected)


def test_duplicates_are_found_across_chunks(frame, tmp_path, monkeypatch):
    monkeypatch.setattr("qtorch.data.rows.CHUNK", 50)
    doubled = pd.concat([frame, frame.iloc[[7, 7, 300]]], ignore_index=True)
    doubled.to_parquet(tmp_path / "p.parquet", row_group_size=50)
    where = rf"{frame['asset'][300]} {frame['date'][300]:%Y-%m-%d} \(row 300\)"
    ordered = doubled.sort_values(["asset", "date"], kind="stable")
    with pytest.raises(DataError, match="more than one row for a date and asset: A0"):
        Panel.from_frame(ordered)
    with pytest.raises(DataError, match=f"out of order|{where}"):
        Panel.from_parquet(tmp_path / "p.parquet")
    panel = Panel.from_parquet(tmp_path / "p.parquet", bad_rows="quarantine")
    refused = panel.findings[panel.findings["kind"] == "refused"]
    assert sorted(refused["row"]) == [7, 300, len(frame), len(frame) + 1, len(frame) + 2]
    assert panel.mask.sum() == len(frame) - 2
    expected = Panel.from_frame(frame.drop(index=[7, 300]))
    torch.testing.assert_close(panel.close, expected.close, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("order", [["asset", "date"], ["date", "known_at"]])
def test_actions_are_counted_once_across_chunks(frame, tmp_path, monkeypatch, order):
    monkeypatch.setattr("qtorch.data.rows.CHUNK", 150)
    rng = np.random.default_rng(4)
    acting = rng.random(len(frame)) < 0.1
    known_at = frame["date"].dt.tz_localize("UTC")
    frame = frame.assign(split=np.where(acting, 2.0, 1.0), dividend=np.where(acting, 0.3, 0.0), known_at=known_at)
    revised = frame.assign(known_at=known_at + pd.Timedelta(days=2)).sample(frac=0.5, random_state=2)
    both = pd.concat([frame, revised]).sort_values(order, kind="stable")
    both.to_parquet(tmp_path / "p.parquet", row_group_size=150)
    expected = Panel.from_frame(frame)
    for store in (None, tmp_path / "store"):
        panel = Panel.from_parquet(tmp_path / "p.parquet", store=store)
        torch.testing.assert_close(panel.values, expected.values, rtol=0, atol=0, equal_nan=True)


def test_windows_from_disk_are_those_from_memory(frame, tmp_path, monkeypatch):
    monkeypatch.setattr("qtorch.data.windows.MAPPED", 1)
    monkeypatch.setattr("qtorch.data.windows._PIECE", 7)
    panel = Panel.from_frame(frame)
    memory, disk = WindowSource(panel, SPEC), WindowSource(panel, SPEC, store=tmp_path / "sessions")
    again = WindowSource(panel, SPEC, store=tmp_path / "sessions")
    entries = memory.entries()
    for source in (disk, again):
        for name in ("inputs", "mask", "target", "target_mask", "scale", "asset_index", "row_index"):
            for every in (False, True):
                a, b = (s.gather(entries, every_position=every) for s in (memory, source))
                assert torch.equal(getattr(a, name), getattr(b, name))
    assert disk.table.folder is not None
    for other in (frame[frame["asset"] != "A0"], frame.assign(volume=frame["volume"] + 1)):
        with pytest.raises(DataError, match=r"another panel or other windows \(panel differ\)"):
            WindowSource(Panel.from_frame(other), SPEC, store=tmp_path / "sessions")


def test_of_two_processes_that_build_a_store_the_first_wins(frame, tmp_path):
    source = WindowSource(Panel.from_frame(frame), SPEC)
    slow = TensorFolder.create(tmp_path / "sessions")
    WindowSource(source.panel, SPEC, store=tmp_path / "sessions")
    slow.describe({"kind": "sessions"}, or_there=True)
    assert slow.description("sessions")["pad"] == source.table.pad
    other = TensorFolder.create(tmp_path / "panel")
    source.panel.save(tmp_path / "panel")
    with pytest.raises(DataError, match="exists already"):
        other.describe({"kind": "panel"})
    assert {path.name for path in tmp_path.iterdir()} == {"sessions", "panel"}


def test_a_store_is_never_overwritten_and_never_half_there(frame, tmp_path):
    panel = Panel.from_frame(frame)
    panel.save(tmp_path / "store")
    with pytest.raises(DataError, match="exists already"):
        panel.save(tmp_path / "store")
    (tmp_path / "store" / "store.json").unlink()
    with pytest.raises(DataError, match="no finished store"):
        Panel.open(tmp_path / "store")
    frame.assign(close=-1.0).to_parquet(tmp_path / "bad.parquet")
    with pytest.raises(DataError, match="not positive"):
        Panel.from_parquet(tmp_path / "bad.parquet", store=tmp_path / "bad")
    assert not (tmp_path / "bad").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "store.json").write_text('{"kind": "sessions"}')
    with pytest.raises(DataError, match="holds 'sessions', not 'panel'"):
        Panel.open(tmp_path / "other")
    (tmp_path / "other" / "store.json").write_text('{"format": 1, "kind": "panel"}')
    with pytest.raises(DataError, match=r"another version of qtorch\. Build it again"):
        Panel.open(tmp_path / "other")


def test_only_the_rows_and_columns_needed_are_read(frame, tmp_path):
    frame.assign(note="x").to_parquet(tmp_path / "p.parquet")
    rows = ParquetRows(tmp_path / "p.parquet", start="2018-03-01", end="2018-03-30")
    inside = frame["date"].between("2018-03-01", "2018-03-30")
    assert len(rows) == inside.sum()
    (chunk,) = [chunk for _, chunk in rows.chunks(("date", "asset", "close", "bid"))]
    assert list(chunk.columns) == ["date", "asset", "close", "row"]
    np.testing.assert_array_equal(chunk["close"], frame["close"][inside])


def test_a_span_keeps_rows_without_a_date_or_an_instant_to_be_named(tmp_path):
    days = pd.to_datetime(["2020-01-02", "2020-01-03", "2020-01-06", None])
    known = pd.to_datetime(["2020-01-02T20:00Z", "2020-01-06T09:00Z", None, "2020-01-06T22:00Z"])
    rows = pd.DataFrame({"date": days, "asset": "A", "exchange": "XNYS", "close": 1.0, "known_at": known})
    path = tmp_path / "p.parquet"
    rows.to_parquet(path)
    assert ParquetRows(path).span() == (days[0], days[2])
    assert ParquetRows(path, known_by=known[0]).span() == (days[0], days[2])
    assert len(ParquetRows(path, known_by=known[0])) == 2, "one is without an instant"
    assert len(ParquetRows(path, end="2020-01-02")) == 2, "one is without a date"
    with pytest.raises(DataError, match="date missing or unreadable: A NaT"):
        Panel.from_parquet(path, end="2020-01-02")
    rows.dropna().to_parquet(path)
    panel = Panel.from_parquet(path, known_by=known[0])
    assert list(panel.dates) == [days[0]]
    with pytest.raises(DataError, match="without a time zone"):
        Panel.from_parquet(path, known_by=pd.Timestamp("2020-01-02"))
    with pytest.raises(DataError, match="no row was known at 2000-01-01"):
        ParquetRows(path, known_by=pd.Timestamp("2000-01-01", tz="UTC")).span()
    rows.drop(columns="known_at").to_parquet(path)
    with pytest.raises(DataError, match="no column 'known_at'"):
        Panel.from_parquet(path, known_by=known[0])


def test_a_table_spends_no_position_on_days_without_a_price(frame):
    panel = Panel.from_frame(frame)
    table = WindowSource(panel, SPEC).table
    assert isinstance(table, SessionTable)
    N = len(panel.assets)
    assert len(table.row) == int(panel.mask.sum()) - N + (N + 1) * table.pad
