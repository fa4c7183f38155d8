"""Bars, pools and executors of walks."""

import pickle
import sys
import threading
import types
import weakref
from concurrent.futures import Future
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

from qtorch.backtest import RayExecutor, RefitError, walk_forward
from qtorch.backtest.walk.workers import process_pool
from qtorch.models import RiskMetrics, default_forecaster
from tests.backtest.walk.test_forward import Pickling
from tests.training.runs import small_panel

REFITS = ["2019-07-04", "2019-08-01"]


@pytest.fixture(scope="module")
def panel():
    return small_panel("2019-08-30")


@pytest.mark.parametrize("executor", [None, Pickling()])
def test_a_bar_tells_the_refits(panel, capsys, executor):
    walk = partial(walk_forward, panel, RiskMetrics, REFITS, executor=executor)
    walk(progress=True)
    shown = capsys.readouterr().err
    assert "refits: 100%" in shown
    assert "2/2" in shown
    assert "2019-08-01" in shown
    for progress in (False, "auto"):  # a test is no terminal
        walk(progress=progress)
        assert not capsys.readouterr().err


def test_what_other_processes_can_not_import_is_named(panel, monkeypatch):
    def make_model():
        return RiskMetrics()

    make_model.__module__ = "__main__"
    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))  # as in a notebook
    with pytest.raises(ValueError, match="make_model is defined in this notebook"):
        walk_forward(panel, partial(make_model), REFITS, workers=2)
    process_pool(1, partial(default_forecaster, panel)).shutdown()
    with pytest.raises(ValueError, match="workers=0"):
        process_pool(0, RiskMetrics)
    with pytest.raises(ValueError, match="give one"):
        walk_forward(panel, RiskMetrics, REFITS, workers=2, executor=Pickling())


def test_ray_runs_a_walk(panel):
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}})
    walk = partial(walk_forward, panel, RiskMetrics, REFITS)
    try:
        assert walk(executor=RayExecutor(num_cpus=1)).to_frame().equals(walk().to_frame())
    finally:
        ray.shutdown()


class FakeRay(types.ModuleType):
    """Runs tasks at once, and counts what is put."""

    def __init__(self) -> None:
        super().__init__("ray")
        self.puts: list[object] = []

    def is_initialized(self):
        return True

    def put(self, value):
        self.puts.append(value)
        return value

    def remote(self, function):
        def task(*arguments):
            done = Future()
            done.set_result(function(*arguments))
            return types.SimpleNamespace(future=lambda: done)

        return types.SimpleNamespace(remote=task)


def test_ray_is_sent_a_function_once_and_lets_go_of_it(monkeypatch):
    ray = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", ray)
    with RayExecutor() as executor:
        double = partial(int.__mul__, 2)
        assert [executor.submit(double, n).result() for n in range(5)] == [0, 2, 4, 6, 8]
        assert ray.puts == [double]
        assert executor.submit(int, "3").result() == 3
        assert ray.puts == [double, int]
        ray.puts.clear()
        held = weakref.ref(double)
        assert executor.submit(double, 4).result() == 8
        ray.puts.clear()
        del double
        assert held() is not None
    assert held() is None
    with pytest.raises(RuntimeError, match="has been shut down"):
        executor.submit(int)


def test_ray_waits_for_calls_that_run(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", FakeRay())
    executor, running = RayExecutor(), Future()
    executor._remote = types.SimpleNamespace(remote=lambda *_: types.SimpleNamespace(future=lambda: running))
    assert executor.submit(int) is running
    executor.shutdown(wait=False)
    assert not running.done()
    executor = RayExecutor()
    executor._remote = types.SimpleNamespace(remote=lambda *_: types.SimpleNamespace(future=lambda: running))
    executor.submit(int)
    timer = threading.Timer(0.2, running.set_result, [1])
    timer.start()
    executor.shutdown(cancel_futures=True)
    assert running.done()
    assert not running.cancelled()
    timer.join()


def test_without_ray_it_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"pip install 'qtorch-finance\[ray\]'"):
        RayExecutor()


def test_a_failed_refit_can_be_sent_between_processes():
    error = RefitError("it failed.", pd.Timestamp("2019-07-04"), 3)
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert isinstance(again, RefitError)
    assert (str(again), again.date, again.seed) == ("it failed.", error.date, 3)


def test_the_callers_generator_is_left_alone(panel):
    def make_model():
        torch.manual_seed(5)
        return RiskMetrics()

    before = torch.get_rng_state()
    walk_forward(panel, make_model, REFITS)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_number_of_rows_can_be_numpys(panel):
    walks = [walk_forward(panel, RiskMetrics, every, start="2019-07-04") for every in (20, np.int64(20))]
    assert walks[0].refits.nunique() == 3
    pd.testing.assert_frame_equal(walks[0].to_frame(), walks[1].to_frame())
