"""Nights whose slices of assets Ray works on, against nights that work on them here."""

import dataclasses
import os
import shutil
import subprocess
import sys
from concurrent.futures import Executor, Future
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from qtorch.backtest import RayExecutor
from qtorch.configuration import ModelConfig
from qtorch.errors import ArgumentError
from qtorch.nightly import run, slices, universe
from qtorch.nightly.config import NightlyTraining, RiskConfig
from qtorch.nightly.engine import engine_of
from tests.backtest.walk.ray_tasks import lose_once, marks
from tests.nightly.conftest import elsewhere, quiet, small_config

ROOT = Path(__file__).parents[2]


def test_an_engine_says_what_does_not_go_together(monkeypatch):
    with engine_of(None) as executor:
        assert executor is None
    with engine_of("process", 2) as executor:
        assert executor.at_once == 2
    with engine_of(None, 3) as executor:
        assert executor.at_once == 3
    for given, words in (
        ({"name": "local", "workers": 2}, "this process alone"),
        ({"name": "process", "address": "auto"}, "--address is of a Ray cluster"),
        ({"name": None, "memory": 2.0}, "--task-memory is of a Ray cluster"),
        ({"name": "dask"}, "engine 'dask': it is local, process or ray"),
        ({"name": "process", "workers": 0}, "workers=0"),
    ):
        with pytest.raises(ArgumentError, match=words):
            engine_of(**given)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ArgumentError, match=r"pip install 'qtorch-finance\[ray\]'"):
        engine_of("ray")


class Bounded(Executor):
    """Runs calls when their result is asked for, and counts those that are open."""

    at_once = 3

    def __init__(self) -> None:
        self.open = self.most = 0

    def submit(self, fn, /, *args, **kwargs):
        self.open += 1
        self.most = max(self.most, self.open)
        future = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def test_no_more_than_twice_what_runs_is_in_memory():
    executor = Bounded()
    for _ in slices.in_slices(divmod, ((n, 3) for n in range(20)), executor):
        executor.open -= 1
    assert executor.most == 2 * Bounded.at_once


class Losing(Executor):
    """Of a Ray, where the process of the first call of a function ends the first time."""

    def __init__(self, executor: RayExecutor, folder: Path) -> None:
        self.executor, self.folder, self.of, self.at_once = executor, folder, None, executor.at_once
        self.number = 0

    def submit(self, fn, /, *args):
        if fn is not self.of:
            self.of, self.losing = fn, partial(lose_once, str(self.folder), fn)
        self.number += 1
        return self.executor.submit(self.losing, str(self.number), *args)


@pytest.fixture
def job(market, tmp_path, monkeypatch):
    """A job of some slices."""
    for module in (universe, slices):
        monkeypatch.setattr(module, "SLICE", 2)
    market[market["date"] >= "2020-06-01"].to_parquet(tmp_path / "prices.parquet")
    return dataclasses.replace(
        small_config(tmp_path),
        positions=None,
        model=ModelConfig(context=16, horizons=[1, 5]),
        training=NightlyTraining(max_epochs=1, batches_per_epoch=2, batch_size=16, refit_after=250),
        risk=RiskConfig(backtest_sessions=60, scenario_sessions=100),
    )


def tables(folder: Path) -> dict[str, pd.DataFrame]:
    return {path.name: pd.read_parquet(path) for path in sorted(folder.glob("*.parquet"))}


@pytest.mark.deploy
@pytest.mark.slow
def test_a_night_on_ray_is_the_local_one_though_a_process_is_killed(job, tmp_path, monkeypatch):
    """Bit for bit; each slice is asked about once, and judged once."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def night(name: str, executor: Executor | None) -> dict[str, pd.DataFrame]:
        config = elsewhere(job, tmp_path / name)
        if name != "local":
            shutil.copytree(tmp_path / "local" / "models", tmp_path / name / "models")
        return tables(run(config, executor=executor, say=quiet).folder)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        local = night("local", None)
    finally:
        torch.set_num_threads(threads)
    with engine_of("process", 2) as pool:
        pooled = night("pool", pool)
    lost = tmp_path / "marks"
    lost.mkdir()
    with RayExecutor(workers=2) as executor:
        there = night("ray", Losing(executor, lost))
    assert list(local) == ["backtest.parquet", "forecasts.parquet", "portfolio.parquet"]
    for name, table in local.items():
        pd.testing.assert_frame_equal(pooled[name], table, check_exact=True)
        pd.testing.assert_frame_equal(there[name], table, check_exact=True)
    assets = there["forecasts.parquet"]["asset"].nunique()
    assert assets > 4, "three slices or more"
    done = [str(number) for number in range(1, 1 + 2 * -(-assets // 2))]
    assert (lost / "killed").exists()
    assert marks(lost, "done") == done
    assert marks(lost, "begun") == sorted([*done, "1"])


MARKET = """
import numpy as np
import pandas as pd
days = pd.bdate_range("2021-01-04", "2022-06-30")
rng = np.random.default_rng(0)
frames = []
for n in range(300):
    close = 50 * np.exp(np.cumsum(0.01 * rng.standard_normal(len(days))))
    frames.append(pd.DataFrame({"date": days, "asset": f"A{n:03d}", "exchange": "24/5", "close": close}))
pd.concat(frames).to_parquet("prices.parquet")
"""


@pytest.mark.deploy
@pytest.mark.slow
def test_the_command_runs_a_night_on_a_ray_of_its_own(tmp_path):
    """Of 300 assets, in two slices."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", MARKET], cwd=tmp_path, env=environment, check=True)
    text = {
        "data": {"path": "prices.parquet"},
        "model": {"context": 16, "horizons": [1]},
        "training": {"max_epochs": 1, "batches_per_epoch": 2, "batch_size": 16, "validation_sessions": 60},
        "risk": {"backtest_sessions": 60, "scenario_sessions": 100},
    }
    (tmp_path / "nightly.yaml").write_text(yaml.safe_dump(text))

    def command(*options: str) -> dict[str, pd.DataFrame]:
        arguments = [sys.executable, "-m", "qtorch", "nightly", "--config", "nightly.yaml", *options]
        done = subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
        assert "(raylet)" not in done.stdout
        assert "universe: computed anew" in done.stdout
        return tables(next((tmp_path / options[1]).glob("as_of=*")))

    local = command("--output", "local")
    shutil.copytree(tmp_path / "local" / "models", tmp_path / "ray" / "models")
    there = command("--output", "ray", "--engine", "ray", "--workers", "2", "--task-memory", "0.5")
    assert local["forecasts.parquet"]["value_at_risk"].notna().all()
    for name, table in local.items():
        pd.testing.assert_frame_equal(there[name], table, check_exact=True)
