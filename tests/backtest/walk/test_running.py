"""Bars, pools and executors of walks."""

import pickle
import sys
import threading
import time
import types
import weakref
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

from qtorch.backtest import RayExecutor, RefitError, walk_forward
from qtorch.backtest.walk import ray_executor
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


@dataclass(frozen=True)
class FakeRef:
    """What `put` gives."""

    value: object

    def hex(self):
        return str(id(self))


class FakeRay(types.ModuleType):
    """Runs tasks when it is told to, or at once, and counts what is put."""

    exceptions = types.SimpleNamespace(RayTaskError=(), RayError=(), OutOfMemoryError=())

    def __init__(self, at_once: bool = True) -> None:
        super().__init__("ray")
        self.puts: list[object] = []
        self.given: list[Future] = []
        self.at_once = at_once
        self.ended = False

    def is_initialized(self):
        return True

    def shutdown(self):
        self.ended = True

    def put(self, value):
        self.puts.append(value)
        return FakeRef(value)

    def get(self, ref):
        return ref.value

    def cluster_resources(self):
        return {"CPU": 3.0}

    def remote(self, **options):
        self.options = options

        def task(function, *arguments):
            future = Future()
            self.given.append(future)
            if self.at_once:
                future.set_result(function(*arguments))
            return types.SimpleNamespace(future=lambda: future)

        return lambda function: types.SimpleNamespace(remote=partial(task, function))


@pytest.fixture
def fake(monkeypatch):
    """A Ray that this process has joined."""
    ray = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(ray_executor, "_latest", None)
    return ray


def until(condition) -> None:
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_ray_is_sent_a_function_once_and_lets_go_of_it(fake):
    with RayExecutor(memory=1e9, retries=2) as executor:
        double = partial(int.__mul__, 2)
        assert [executor.submit(double, n).result() for n in range(5)] == [0, 2, 4, 6, 8]
        assert fake.puts == [double]
        assert executor.submit(int, "3").result() == 3
        assert fake.puts == [double, int]
        fake.puts.clear()
        held = weakref.ref(double)
        assert executor.submit(double, 4).result() == 8
        fake.puts.clear()
        ray_executor._latest = None  # of a process elsewhere
        del double
        assert held() is not None
    assert fake.options == {"max_retries": 2, "memory": 1e9}
    assert held() is None
    with pytest.raises(RuntimeError, match="has been shut down"):
        executor.submit(int)
    assert not fake.ended, "this process had joined it before"


def test_ray_is_given_no_more_than_workers_calls(fake):
    fake.at_once = False
    executor = RayExecutor(workers=2)
    futures = [executor.submit(abs, n) for n in range(5)]
    until(lambda: len(fake.given) == 2)
    fake.given[1].set_result(1)
    assert futures[1].result(5) == 1
    until(lambda: len(fake.given) == 3)
    assert [future.running() for future in futures] == [True, False, True, False, False]
    assert futures[3].cancel()
    executor.shutdown(wait=False, cancel_futures=True)
    until(futures[4].cancelled)
    timer = threading.Timer(0.1, lambda: [future.set_result(7) for future in (fake.given[0], fake.given[2])])
    timer.start()
    executor.shutdown()
    assert [futures[n].result() for n in (0, 2)] == [7, 7]
    assert len(fake.given) == 3
    timer.join()
    assert RayExecutor(num_cpus=2).at_once == 3
    assert RayExecutor(num_cpus=0).at_once == 6


def test_those_who_wait_are_told_when_the_cluster_is_gone(fake):
    executor = RayExecutor()
    fake.cluster_resources = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        executor.submit(int).result(5)
    with pytest.raises(RuntimeError, match="has been shut down"):
        executor.submit(int)
    with pytest.raises(ValueError, match="workers=0"):
        RayExecutor(workers=0)
    with pytest.raises(ValueError, match="retries=-1"):
        RayExecutor(retries=-1)


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
