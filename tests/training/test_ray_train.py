"""Training in processes of Ray Train, on a cluster of two nodes, against Lightning's own two processes."""

from pathlib import Path

import pytest
import torch

from qtorch.training import fit
from tests.training.runs import small_data, small_panel
from tests.training.test_ddp import OPTIONS, recording, two_in_step

pytestmark = [pytest.mark.deploy, pytest.mark.slow]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def two_nodes(monkeypatch):
    import ray
    from ray.cluster_utils import Cluster

    for name, value in {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}.items():
        monkeypatch.setenv(name, value)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def train(options: dict) -> None:
    """A process of two; it leaves its loss, its weights and its node."""
    import ray.train
    from ray.train.lightning import RayDDPStrategy, RayLightningEnvironment

    folder = Path(options["folder"])
    model = recording(folder)
    joined = {"strategy": RayDDPStrategy(), "plugins": [RayLightningEnvironment()], "devices": "auto"}
    loss = fit(model, small_data(small_panel(), batches_per_epoch=6), **joined, **OPTIONS)
    rank, node = ray.train.get_context().get_world_rank(), ray.get_runtime_context().get_node_id()
    torch.save((loss, model.state_dict(), node), folder / f"{rank}.end")


def test_two_nodes_of_ray_train_end_with_the_weights_of_two_processes(two_nodes, tmp_path):
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    here.mkdir()
    TorchTrainer(
        train,
        train_loop_config={"folder": str(there)},
        scaling_config=ScalingConfig(num_workers=2, placement_strategy="STRICT_SPREAD"),
        run_config=RunConfig(storage_path=str(there)),
    ).fit()
    model = recording(here)
    loss = fit(model, small_data(small_panel(), batches_per_epoch=6), devices=2, strategy="ddp_spawn", **OPTIONS)
    ends = [torch.load(there / f"{rank}.end", weights_only=True) for rank in (0, 1)]
    assert ends[0][2] != ends[1][2], "a node each"
    assert ends[0][0] == ends[1][0] == loss
    for _, weights, _ in ends:
        assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert two_in_step(there) == two_in_step(here)
