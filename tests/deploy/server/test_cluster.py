"""A server on a Ray cluster that others run: its workers come and go, and all else stays."""

from pathlib import Path

import pytest

from tests.deploy.server.serving import Server, save_version, windows

pytestmark = [pytest.mark.deploy, pytest.mark.slow]


@pytest.fixture
def cluster(monkeypatch):
    """A cluster of this test, whose own process is connected to it."""
    import ray
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    one = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "include_dashboard": False})
    ray.init(address=one.address, log_to_driver=False)
    yield one
    ray.shutdown()
    one.shutdown()


def actors() -> list[dict[str, str]]:
    """Those with a name, as Ray Serve's have."""
    from ray.util import list_named_actors

    return sorted(list_named_actors(all_namespaces=True), key=lambda actor: (actor["namespace"], actor["name"]))


def served(folder: Path, cluster) -> None:
    """A server starts, answers and ends."""
    server = Server(folder, f"--address={cluster.address}")
    assert server.infer(windows(2))[0] == 200
    assert [each for each in actors() if each["name"].startswith("SERVE_REPLICA::qtorch-")]
    assert server.stop() == 0
    assert "stopped" in server.lines


def test_a_server_leaves_a_cluster_as_it_was(tmp_path, cluster):
    import ray
    from ray import serve

    save_version(tmp_path, "spx", 1, seed=1)

    @ray.remote
    class Other:
        def number(self):
            return 7

    other = Other.options(name="other", lifetime="detached", namespace="others").remote()
    assert ray.get(other.number.remote()) == 7
    before = actors()
    served(tmp_path, cluster)
    assert actors() == before, "Ray Serve ended too, since it was started for the server"
    assert ray.get(other.number.remote()) == 7

    @serve.deployment
    def answer():
        return 8

    serve.start(proxy_location="Disabled")
    handle = serve.run(answer.bind(), name="answers", route_prefix=None)
    before = actors()
    served(tmp_path, cluster)
    assert actors() == before
    assert handle.remote().result() == 8, "who served before goes on"
