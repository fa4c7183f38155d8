import json
import shutil

import pandas as pd
import pyarrow.parquet as pq
import pytest

from qtorch.cli import main
from qtorch.nightly import compact, history, publish, retain, sink_urls
from qtorch.nightly.config import NightlyConfig, NightlyData
from qtorch.nightly.places import Place
from qtorch.nightly.schema import SCHEMA_VERSION, STAMP, TABLES, stamped
from tests.nightly.nights import DAYS, write_night, write_nights


class Killed(BaseException):
    """The process dies here."""


def rows(where) -> dict[str, pd.DataFrame]:
    found = history(where)
    return {name: getattr(found, name).to_pandas() for name in TABLES}


def same(one: dict[str, pd.DataFrame], other: dict[str, pd.DataFrame]) -> None:
    for name in TABLES:
        pd.testing.assert_frame_equal(one[name], other[name])


def dying(monkeypatch, operation: int) -> list[int]:
    """Dies at the operation of this number that changes files, or half through it."""
    count = [0]

    def counted(name: str) -> None:
        plain = getattr(Place, name)

        def step(self, *arguments):
            count[0] += 1
            if count[0] == operation:
                raise Killed
            return plain(self, *arguments)

        monkeypatch.setattr(Place, name, step)

    for name in ("output", "write", "remove", "remove_files", "remove_night", "remove_folder", "_flush"):
        counted(name)
    return count


def test_a_real_night_is_of_the_schema(night):
    _, result = night
    found = history(result.folder.parent)
    for name in ("forecasts", "portfolio", "backtest"):
        plain = pd.read_parquet(result.folder / f"{name}.parquet")
        frame = getattr(found, name).to_pandas(columns=list(plain.columns))
        pd.testing.assert_frame_equal(frame, plain, check_dtype=False)
        assert pq.read_schema(result.folder / f"{name}.parquet").metadata[STAMP] == str(SCHEMA_VERSION).encode()
    assert found.nights["schema_version"].tolist() == [SCHEMA_VERSION]
    assert found.nights["exit_code"].tolist() == [result.code]


def test_nights_of_differing_columns_are_one_table(tmp_path):
    found = history(write_nights(tmp_path))
    frame = found.forecasts.to_pandas([("asset", "=", "A"), ("as_of", ">=", "2026-02-02"), ("level", "=", 0.99)])
    assert frame["as_of"].tolist() == [pd.Timestamp(day) for day in DAYS[3:]]
    assert frame["calibrated_value_at_risk"].notna().tolist() == [True, False, True, False]
    assert found.forecasts.dataset.count_rows() == 28
    assert found.portfolio.to_pandas().empty
    assert found.allocation.to_pandas().empty
    assert found.nights.index.equals(pd.DatetimeIndex(DAYS, name="as_of"))
    some = history(tmp_path, since="2026-01-30", until="2026-02-02").nights
    assert len(some) == 2
    with pytest.raises(ValueError, match="no column nothing"):
        found.forecasts.to_pandas(columns=["nothing"])
    with pytest.raises(ValueError, match="no such folder"):
        history(tmp_path / "absent")


def test_what_is_not_a_whole_night_is_not_seen(tmp_path):
    write_nights(tmp_path)
    shutil.copytree(tmp_path / "as_of=2026-03-03", tmp_path / ".as_of=2026-03-04.part")
    shutil.copytree(tmp_path / "as_of=2026-03-03", tmp_path / "as_of=2026-03-05")
    (tmp_path / "as_of=2026-03-05" / "manifest.json").unlink()
    shutil.copytree(tmp_path / "as_of=2026-03-03", tmp_path / "held" / "as_of=2026-03-06")
    assert len(history(tmp_path).nights) == len(DAYS)


def test_a_night_of_a_later_schema_is_refused_and_one_without_a_stamp_is_read(tmp_path):
    write_night(tmp_path, "2026-01-28", schema_version=0)
    assert len(history(tmp_path).forecasts.to_pandas()) == 4
    write_night(tmp_path, "2026-01-29", schema_version=SCHEMA_VERSION + 1)
    with pytest.raises(ValueError, match=r"as_of=2026-01-29 has tables of schema version 2"):
        history(tmp_path).forecasts.to_pandas()
    with pytest.raises(ValueError, match="colour is no column"):
        stamped(
            pq.read_table(tmp_path / "as_of=2026-01-28/forecasts.parquet").append_column("colour", [[1] * 4]),
            "forecasts",
        )


def test_joined_nights_have_the_same_rows(tmp_path):
    before = rows(write_nights(tmp_path))
    assert [(each.month, each.joined) for each in compact(tmp_path)] == [("2026-01", 3), ("2026-02", 2)]
    same(rows(tmp_path), before)
    assert history(tmp_path).nights["joined"].tolist() == [True] * 5 + [False] * 2
    assert sorted(file.name for file in (tmp_path / "as_of=2026-01-28").iterdir()) == ["manifest.json", "report.html"]
    assert compact(tmp_path) == []
    # A night that is run again is read anew, and joined again.
    write_night(tmp_path, "2026-01-29", value=0.5)
    changed = rows(tmp_path)
    assert changed["forecasts"]["value_at_risk"].max() == 1.0
    assert len(changed["forecasts"]) == len(before["forecasts"])
    assert [each.joined for each in compact(tmp_path, before="2026-03-03")] == [1, 1]
    same(rows(tmp_path), changed)
    assert len(list((tmp_path / "compacted").glob("forecasts.*"))) == 3


def test_a_process_that_dies_while_it_joins_leaves_every_row_once(tmp_path, monkeypatch):
    output = tmp_path / "whole"
    for number, day in enumerate(DAYS[1:4]):
        write_night(output, day, value=0.01 * (number + 1), calibrated=number == 1)
    before, steps = rows(output), 0
    for steps in range(1, 200):
        copy = tmp_path / f"at{steps}"
        shutil.copytree(output, copy)
        with monkeypatch.context() as patched:
            count = dying(patched, steps)
            try:
                compact(copy)
            except Killed:
                pass
            else:
                assert count[0] < steps
                break
            finally:
                patched.undo()
        same(rows(copy), before)
        compact(copy)
        same(rows(copy), before)
        assert len(list((copy / "compacted").glob("*.parquet"))) == 2
        assert not list(copy.glob("as_of=2026-01-*/*.parquet"))
        shutil.rmtree(copy)
    assert steps > 10


def test_retention_keeps_whole_nights_and_the_models_that_they_need(tmp_path):
    write_nights(tmp_path)
    compact(tmp_path)
    before = rows(tmp_path)["forecasts"]
    said = retain(tmp_path, keep=4, dry_run=True)
    assert str(said).splitlines() == [
        "3 nights would go: as_of=2026-01-28 to as_of=2026-01-30",
        "2 models would go: trained=2025-12-01 to trained=2026-01-01",
        "4 nights stay",
    ]
    assert len(rows(tmp_path)["forecasts"]) == len(before)
    retain(tmp_path, keep="29 days")
    left = rows(tmp_path)["forecasts"]
    pd.testing.assert_frame_equal(left, before[before["as_of"] >= "2026-02-02"].reset_index(drop=True))
    retain(tmp_path, keep="28 days")  # a part of a month
    pd.testing.assert_frame_equal(
        rows(tmp_path)["forecasts"], left[left["as_of"] >= "2026-02-03"].reset_index(drop=True)
    )
    assert list(json.loads((tmp_path / "compacted" / "2026-02.json").read_text())["nights"]) == ["2026-02-03"]
    assert [each.name for each in sorted((tmp_path / "models").iterdir())] == [
        "trained=2026-02-01",
        "trained=2026-03-01",
    ]
    assert retain(tmp_path, keep="0 days").kept == 1
    with pytest.raises(ValueError, match="at least 1"):
        retain(tmp_path, keep=0)
    with pytest.raises(ValueError, match="neither a number"):
        retain(tmp_path, keep="soon")


def test_a_process_that_dies_while_it_removes_leaves_nights_whole(tmp_path, monkeypatch):
    output = write_nights(tmp_path / "whole")
    compact(output, before="2026-02-03")
    before, steps = rows(output)["forecasts"], 0
    for steps in range(1, 100):
        copy = tmp_path / f"at{steps}"
        shutil.copytree(output, copy)
        with monkeypatch.context() as patched:
            dying(patched, steps)
            try:
                retain(copy, keep=4)
            except Killed:
                pass
            else:
                break
            finally:
                patched.undo()
        frame = rows(copy)["forecasts"]
        pd.testing.assert_frame_equal(frame, before[before["as_of"].isin(frame["as_of"])].reset_index(drop=True))
        retain(copy, keep=4)
        assert sorted(each.name for each in copy.iterdir() if "as_of" in each.name) == [
            f"as_of={day}" for day in DAYS[3:]
        ]
        assert len(rows(copy)["forecasts"]) == 16
        shutil.rmtree(copy)
    assert steps > 5


def test_a_store_has_a_night_once_it_is_whole(tmp_path, monkeypatch):
    output, there = write_nights(tmp_path / "out"), "memory://risk/nights"
    for day in DAYS:
        assert publish(output / f"as_of={day}", there)
    assert not publish(output / "as_of=2026-01-28", there)
    same(rows(there), rows(output))
    compact(there)
    same(rows(there), rows(output))
    assert str(retain(there, keep=4)).startswith("3 nights removed")
    left = {name: frame[frame["as_of"] >= "2026-02-02"].reset_index(drop=True) for name, frame in rows(output).items()}
    same(rows(there), left)
    new = write_night(output, "2026-03-04")
    for steps in range(1, 20):
        with monkeypatch.context() as patched:
            dying(patched, steps)
            try:
                publish(new, there)
            except Killed:
                if "manifest.json" in (Place.of(there) / "as_of=2026-03-04").names():  # its last file
                    assert (Place.of(there) / "as_of=2026-03-04").names().keys() == {
                        each.name for each in new.iterdir()
                    }
                else:
                    assert history(there).nights.index[-1] == pd.Timestamp("2026-03-03")
            else:
                break
            finally:
                patched.undo()
    assert history(there).nights.index[-1] == pd.Timestamp("2026-03-04")
    assert steps > 3


def test_urls_of_sinks(monkeypatch):
    data = NightlyData(path="prices.parquet")
    assert sink_urls.is_database("postgresql+psycopg://risk@db/risk")
    assert sink_urls.is_database("sqlite:///risk.db")
    assert not any(map(sink_urls.is_database, ("s3://b/n", "gs://b", "abfs://c", "memory://m", "file:///x", "/srv/x")))
    with pytest.raises(ValueError, match="has a password"):
        NightlyConfig(data, sinks=["postgresql://risk:secret@db/risk"])
    with pytest.raises(ValueError, match="folder on this machine"):
        NightlyConfig(data, output="s3://bucket/nights")
    url = NightlyConfig(data, sinks=["postgresql://risk:${RISK_PASSWORD}@db/risk"]).sinks[0]
    with pytest.raises(ValueError, match="RISK_PASSWORD"):
        sink_urls.filled(url)
    monkeypatch.setenv("RISK_PASSWORD", "secret")
    assert sink_urls.filled(url) == "postgresql://risk:secret@db/risk"
    with pytest.raises(ValueError, match=r"x:\*\*\*@b"):
        Place.of("nosuch://x:secret@b")


def test_the_command_line(tmp_path, capsys):
    def said(code: int, *arguments: str) -> str:
        with pytest.raises(SystemExit) as end:
            main(["history", str(output), *arguments])
        assert end.value.code == code
        seen = capsys.readouterr()
        return seen.out + seen.err

    output = write_nights(tmp_path / "out")
    assert "trained=2026-01-01" in said(0, "--until", "2026-01-28")
    assert len(said(0, "--table", "forecasts", "--since", "2026-03-01").splitlines()) == 9
    assert "2026-01: 3 nights joined" in said(0, "--compact")
    assert said(0, "--compact") == "nothing to join\n"
    assert "3 nights would go" in said(0, "--retain", "4", "--dry_run")
    assert "6 nights removed" in said(0, "--retain", "0 days")
    assert "1 nights were new" in said(0, "--send", "memory://risk/sent")
    assert "neither a number" in said(2, "--retain", "soon")
    output = tmp_path / "absent"
    assert "no such folder" in said(2)
