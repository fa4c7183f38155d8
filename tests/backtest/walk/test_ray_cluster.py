"""Walks on a Ray cluster of two nodes, whose processes and nodes are lost."""

import os
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from qtorch.backtest import RayExecutor, RefitError, TaskLost, walk_forward
from tests.backtest.walk import ray_tasks
from tests.backtest.walk.ray_tasks import Failing, Marked, OursError, marks
from tests.training.runs import SPEC, small_panel
from tests.training.test_refit import OPTIONS, make_model

pytestmark = [pytest.mark.deploy, pytest.mark.slow]
ROOT = Path(__file__).parents[3]
REFITS = ["2019-07-04", "2019-08-01", "2019-08-15", "2019-09-03", "2019-09-17"]


@pytest.fixture(scope="module")
def cluster():
    """A head with one processor, on which this process is, and a node with another."""
    import ray
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        one = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        ray.init(address=one.address, log_to_driver=False)
        yield one
        ray.shutdown()
        one.shutdown()


@pytest.fixture
def node(cluster):
    """The second node, which a test may remove."""
    added = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    yield added
    if added in cluster.list_all_nodes():
        cluster.remove_node(added)


@pytest.fixture(scope="module")
def panel():
    return small_panel("2019-09-30")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def same(a, b) -> bool:
    """Bit for bit."""
    return a.to_frame().equals(b.to_frame())


def test_a_walk_gives_the_local_numbers(panel, node, tmp_path):
    """A trained network from each of two seeds and refits, bit for bit."""
    walk = partial(walk_forward, panel, make_model, REFITS[:3], seeds=(0, 1), warm_start=False, **OPTIONS)
    with RayExecutor() as executor:
        assert same(walk(executor=executor), walk())
        call = partial(ray_tasks.beside, str(tmp_path), 2)
        assert max(future.result() for future in [executor.submit(call) for _ in range(8)]) == 2, "one on each node"


def test_a_process_that_is_killed_costs_its_refit_alone(panel, node, tmp_path, capsys):
    walk = partial(walk_forward, panel, refits=REFITS)
    with RayExecutor(workers=2) as executor:
        make = partial(Marked, SPEC, folder=str(tmp_path), killed=REFITS[1])
        found = walk(make_model=make, executor=executor, progress=True)
    assert "refits: 100%" in capsys.readouterr().err
    assert (tmp_path / "killed").exists()
    assert marks(tmp_path, "done") == REFITS
    assert marks(tmp_path, "begun").count(REFITS[1]) == 2
    assert same(found, walk(make_model=partial(Marked, SPEC, folder=str(tmp_path))))


def test_a_node_that_is_removed_costs_the_refit_it_was_at(panel, cluster, node, tmp_path):
    make = partial(Marked, SPEC, folder=str(tmp_path), doomed=node.node_id)

    def remove() -> None:
        end = time.monotonic() + 120
        while not marks(tmp_path, "held") and time.monotonic() < end:
            time.sleep(0.1)
        cluster.remove_node(node)

    thread = threading.Thread(target=remove)
    thread.start()
    walk = partial(walk_forward, panel, make, REFITS)
    with RayExecutor(workers=2) as executor:
        found = walk(executor=executor)
    thread.join()
    assert len(marks(tmp_path, "held")) == 1, "one refit was on that node"
    assert marks(tmp_path, "done") == REFITS
    assert len(marks(tmp_path, "begun")) == len(REFITS) + 1
    assert same(found, walk())


def test_no_more_calls_than_workers_are_with_the_cluster(node, tmp_path):
    """Four would fit on it; what waits can be cancelled."""
    with RayExecutor(workers=3, num_cpus=0.5) as executor:
        assert executor.at_once == 3
        call = partial(ray_tasks.beside, str(tmp_path), 3)
        counts = [future.result() for future in [executor.submit(call) for _ in range(12)]]
        assert max(counts) == 3
        futures = [executor.submit(time.sleep, 0.5) for _ in range(6)]
        while not futures[0].running():
            time.sleep(0.01)
        executor.shutdown(cancel_futures=True)
    assert [future.cancelled() for future in futures] == 3 * [False] + 3 * [True]
    with RayExecutor(num_cpus=0.5) as executor:
        assert executor.at_once == 8, "twice what runs on two processors"


def test_a_process_reads_what_calls_share_once(node):
    numbers = np.arange(1e6)
    with RayExecutor(workers=2) as executor:
        call = partial(ray_tasks.process_of, numbers)
        places = {future.result() for future in [executor.submit(call) for _ in range(20)]}
        assert len(places) == len({process for process, _ in places}), "one place in each process"
        weighed = partial(ray_tasks.weighed, numbers)
        assert [executor.submit(weighed, scale).result() for scale in (1.0, 2.0)] == [numbers.sum(), 2 * numbers.sum()]


def test_an_exception_is_that_of_a_local_call_and_is_not_tried_again(panel, cluster, tmp_path):
    with RayExecutor(retries=2) as executor:
        error = executor.submit(ray_tasks.fail, 7).exception()
        assert type(error) is OursError
        assert (str(error), error.row) == ("row 7 is wrong.", 7)
        assert "in fail" in str(error.__cause__), "the traceback over there"
        assert isinstance(executor.submit(abs, threading.Lock()).exception(), TypeError), "it can't be sent"
        said = []
        for given in (None, executor):
            with pytest.raises(RefitError) as caught:
                walk_forward(panel, partial(Failing, SPEC, folder=str(tmp_path)), REFITS[:1], executor=given)
            said.append((str(caught.value), caught.value.date, caught.value.seed, type(caught.value.__cause__)))
    assert said[0] == said[1]
    assert len(marks(tmp_path, "begun")) == 2, "one here and one there"


def test_a_call_that_ends_its_process_each_time_is_told(cluster):
    with RayExecutor(retries=1) as executor:
        error = executor.submit(ray_tasks.end_process).exception()
        assert isinstance(error, TaskLost)
        assert "it was tried 2 times" in str(error)
        assert executor.submit(abs, -3).result() == 3, "others go on"


def test_the_cluster_of_others_goes_on(cluster):
    import ray

    with RayExecutor(address=cluster.address) as executor:
        assert executor.submit(abs, -1).result() == 1
    assert ray.is_initialized()
    assert ray.get(ray.put(2)) == 2


LOCAL = """
import os, psutil
from functools import partial
memory = psutil.virtual_memory()
limit = (memory.total - memory.available + 0.8e9) / memory.total
os.environ |= {"RAY_memory_usage_threshold": f"{limit:.4f}", "RAY_memory_monitor_refresh_ms": "50"}
from qtorch.backtest import RayExecutor
from tests.backtest.walk import ray_tasks
if __name__ == "__main__":
    with RayExecutor(workers=1, retries=1, memory=1e8) as executor:
        error = executor.submit(ray_tasks.eat, 4).exception()
        print(type(error).__name__, error)
        import ray
        print("processors", ray.cluster_resources()["CPU"])
        nodes = {node["NodeManagerAddress"] for node in ray.nodes()}
    print("nodes", nodes, "goes on", ray.is_initialized())
"""


def test_a_ray_of_ones_own_ends_with_the_executor_and_tells_of_too_much_memory():
    """In a process of its own, whose Ray stops tasks when this machine has 0.8 GB less than now."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", LOCAL],
        cwd=ROOT,
        env=environment | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "MemoryError Ray has stopped a task because its node ran out of memory; it was tried 2 times" in done.stdout
    assert "processors 1.0" in done.stdout
    assert "nodes {'127.0.0.1'} goes on False" in done.stdout
