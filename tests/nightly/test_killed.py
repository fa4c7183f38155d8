"""Rows of nights whose processes are killed at moments of chance."""

import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from qtorch.deploy import load
from qtorch.nightly import Locked
from qtorch.nightly.lock import alone_on
from tests.nightly.rows_of_nights import LAST, make_job, work

FILES = {"forecasts.parquet", "portfolio.parquet", "backtest.parquet", "manifest.json", "report.html"}


@pytest.fixture(scope="module")
def processes():
    """Makes processes that have imported the library already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.nightly.rows_of_nights"])
    return context


def undisturbed(processes, folder: Path, last: str, files: bool) -> tuple[dict[str, dict[str, pd.DataFrame]], float]:
    """The nights of a process that nobody killed, and the seconds that it took from its beginning."""
    make_job(folder, files=files)
    process = processes.Process(target=work, args=(str(folder), last, str(folder / "begun"), files))
    process.start()
    process.join()
    assert process.exitcode == 0
    seconds = time.time() - (folder / "begun").stat().st_mtime
    return {night.name: tables_of(night) for night in nights_of(folder)}, seconds


def nights_of(folder: Path) -> list[Path]:
    return sorted((folder / "nights").glob("as_of=*"))


def tables_of(night: Path) -> dict[str, pd.DataFrame]:
    return {name: pd.read_parquet(night / f"{name}.parquet") for name in ("forecasts", "backtest")}


def all_whole(folder: Path, expected: dict[str, dict[str, pd.DataFrame]]) -> int:
    """Checks whatever can be seen, and counts the nights."""
    for night in nights_of(folder):
        assert {file.name for file in night.iterdir()} == FILES
        assert json.loads((night / "manifest.json").read_text())["exit_code"] == 0
        for name, table in tables_of(night).items():
            wanted = expected[night.name][name]
            pd.testing.assert_frame_equal(table, wanted, check_exact=False, rtol=1e-4, atol=1e-7)
    for bundle in (folder / "nights" / "models").glob("trained=*"):
        load(bundle)
    return len(nights_of(folder))


def killed(processes, folder: Path, last: str, kills: int, seed: int, files: bool = False) -> None:
    expected, seconds = undisturbed(processes, folder / "undisturbed", last, files)
    chance = random.Random(seed)
    row, told, done, partial = 0, folder / "begun", 0, 0
    while done < kills:
        own = folder / f"row{row}"
        make_job(own, files=files)
        told.unlink(missing_ok=True)
        process = processes.Process(target=work, args=(str(own), last, str(told), files))
        process.start()
        while not told.exists():
            time.sleep(0.002)
        process.join(chance.uniform(0.05, 0.6) * seconds)
        process.kill()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)  # 0 where it had ended before
        done += process.exitcode != 0
        partial += any((own / "nights").glob("**/.*.part"))
        if all_whole(own, expected) == len(expected):
            row += 1
    for each in range(row + 1):
        own = folder / f"row{each}"
        make_job(own, files=files)
        process = processes.Process(target=work, args=(str(own), last, None, files))
        process.start()
        process.join()
        assert process.exitcode == 0
        assert all_whole(own, expected) == len(expected)
        assert not [left for left in (own / "nights").rglob(".*") if left.suffix in (".part", ".old")]
        assert (own / "nights" / "state" / "panel").is_dir() == files  # what is kept of a dataset of files
        for night in expected:
            with alone_on(own / "nights", night.removeprefix("as_of=")):
                pass
    print(f"{kills} kills, {partial} of them in the middle of a folder, {row} rows of nights ended in spite of them")


def test_what_kills_leave_is_whole_and_the_next_run_repairs_it(processes, tmp_path):
    killed(processes, tmp_path, "2020-03-24", 3, seed=1, files=True)


@pytest.mark.slow
@pytest.mark.parametrize("files", [False, True], ids=["one file", "a file each session"])
def test_fifty_kills(processes, tmp_path, files):
    killed(processes, tmp_path, LAST, 50, seed=2, files=files)


def hold(output: str, told: str) -> None:
    with alone_on(output, "2020-03-23"):
        (Path(output) / "models").mkdir()
        (Path(output) / "models" / ".trained=2020-03-20.part").mkdir()
        (Path(output) / ".as_of=2020-03-23.part").mkdir()
        (Path(output) / ".windows-abc").mkdir()
        Path(told).touch()
        time.sleep(60)


def test_a_lock_names_who_has_it_and_dies_with_them(processes, tmp_path):
    output = tmp_path / "nights"
    process = processes.Process(target=hold, args=(str(output), str(tmp_path / "told")))
    process.start()
    while not (tmp_path / "told").exists():
        time.sleep(0.005)
    with (
        pytest.raises(Locked, match=f"the night of 2020-03-23 .* process {process.pid} on"),
        alone_on(output, "2020-03-23"),
    ):
        pass
    with alone_on(output, "2020-03-24"):  # another night may be made meanwhile, and leaves alone what is in use
        assert (output / ".as_of=2020-03-23.part").exists()
        assert (output / ".windows-abc").exists()
        assert not (output / "models" / ".trained=2020-03-20.part").exists()
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with alone_on(output, "2020-03-24"):
        assert {path.name for path in output.iterdir()} == {".locks", "models"}
    assert np.all([path.suffix == ".lock" or "23" in path.name for path in (output / ".locks").iterdir()])
