"""A folder of models: what is found, loaded, kept and refused."""

import shutil
import threading

import pytest

from qtorch.data import WindowSpec
from qtorch.deploy.server.protocol import RequestError
from qtorch.deploy.server.repository import Repository, State

SPEC = WindowSpec(context=8, horizons=(1,))


@pytest.fixture
def folder(bundle, tmp_path):
    for version in ("1", "2", "10"):
        shutil.copytree(bundle, tmp_path / "models" / "spx" / version)
    return tmp_path / "models"


@pytest.fixture
def repository(folder):
    there = Repository(folder)
    there.refresh()
    return there


def states(repository: Repository) -> dict[tuple[str, str], State]:
    return {(entry.name, entry.version): entry.state for entry in repository.index()}


def spoil(path) -> None:
    weights = path / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])


def test_versions_are_found_loaded_and_ordered_as_numbers(folder):
    repository = Repository(folder)
    assert repository.scan().new == (("spx", "1"), ("spx", "2"), ("spx", "10"))
    assert repository.index() == []
    repository.refresh()
    assert repository.versions("spx") == ["1", "2", "10"]
    assert repository.get("spx").version == "10"
    assert repository.get("spx", "2").version == "2"
    assert repository.get("spx", "").version == "10"
    assert repository.scan() == type(repository.scan())((), (), (), ())


def test_a_version_is_warmed_up_before_it_is_ready(folder, monkeypatch):
    repository, seen = Repository(folder), []

    def warm(model):
        seen.append(repository.ready("spx", model.version))

    monkeypatch.setattr("qtorch.deploy.server.repository.warm_up", warm)
    repository.refresh()
    assert seen == [False] * 3
    assert repository.ready("spx", "10")


def test_a_pinned_version_is_the_default(folder):
    repository = Repository(folder, pinned={"spx": "2"})
    repository.refresh()
    assert repository.get("spx").version == "2"
    assert repository.get("spx", "10").version == "10"


def test_new_changed_and_removed_versions_are_told(folder, repository, bundle):
    shutil.copytree(bundle, folder / "vix" / "1")
    (folder / "spx" / "2" / "model.json").write_text((bundle / "model.json").read_text() + "\n")
    shutil.rmtree(folder / "spx" / "10")
    held = repository.get("spx", "10")
    changes = repository.refresh()
    assert (changes.new, changes.changed, changes.removed) == ((("vix", "1"),), (("spx", "2"),), (("spx", "10"),))
    assert repository.get("spx").version == "2"
    assert held.metadata()["versions"] == ["10"]  # whoever holds it keeps it
    with pytest.raises(RequestError, match="no version 10. There are 1, 2"):
        repository.get("spx", "10")


def test_a_broken_bundle_is_unavailable_and_harms_no_other(folder, bundle):
    spoil(folder / "spx" / "10")
    (folder / "spx" / "11").mkdir()
    repository = Repository(folder)
    repository.refresh()
    assert states(repository) == {
        ("spx", "1"): State.READY,
        ("spx", "2"): State.READY,
        ("spx", "10"): State.UNAVAILABLE,
        ("spx", "11"): State.UNAVAILABLE,
    }
    reasons = [entry.reason for entry in repository.index()]
    assert "SHA-256" in reasons[2]
    assert "not readable" in reasons[3]
    assert repository.get("spx").version == "2"
    with pytest.raises(RequestError, match="version 10 is UNAVAILABLE .*SHA-256") as refused:
        repository.get("spx", "10")
    assert (refused.value.status, refused.value.code) == (503, "UNAVAILABLE")
    with pytest.raises(RequestError, match="SHA-256") as refused:
        repository.load("spx", "10")
    assert refused.value.status == 400
    shutil.copy(bundle / "weights.safetensors", folder / "spx" / "10")
    assert repository.refresh().changed == (("spx", "10"),)
    assert repository.ready("spx", "10")


def test_an_older_state_answers_while_the_new_one_is_broken(folder, repository):
    before = repository.get("spx", "1")
    spoil(folder / "spx" / "1")
    repository.refresh()
    assert repository.get("spx", "1") is before
    assert "older state answers" in repository.index()[0].reason
    assert repository.scan().changed == ()  # not tried again until its files change


def test_unloaded_versions_stay_so_until_they_are_named(folder, repository):
    repository.unload("spx", "10")
    repository.refresh()
    assert states(repository)["spx", "10"] is State.UNAVAILABLE
    assert repository.get("spx").version == "2"
    repository.unload("spx")
    with pytest.raises(RequestError, match=r"model 'spx' is not ready: version 1 is UNAVAILABLE \(unloaded\)"):
        repository.get("spx")
    assert not repository.ready("spx")
    repository.load("spx")
    assert repository.versions("spx") == ["1", "2", "10"]


@pytest.mark.parametrize("method", ["get", "load", "unload"])
def test_what_is_no_model_is_not_found(folder, method):
    for name in ("../models/spx", "spx/1", "spx\0", "/", "..", "", "nothing"):
        with pytest.raises(RequestError) as refused:
            getattr(Repository(folder), method)(name)
        assert refused.value.status == 404


def test_other_paths_are_told_and_left_alone(folder, repository, bundle, tmp_path):
    (folder / "read me").mkdir()
    (folder / "notes.txt").write_text("x")
    (folder / ".cache").mkdir()
    (folder / "spx" / "latest").mkdir()
    (folder / "spx" / "01").mkdir()
    (folder / "outside").symlink_to(tmp_path)
    (folder / "spx" / "3").symlink_to(bundle)
    (folder / "spx" / "4").mkdir()
    (folder / "spx" / "4" / "model.json").symlink_to(bundle / "model.json")
    (folder / "inside").symlink_to(folder / "spx")
    changes = repository.refresh()
    told = {path.removeprefix(f"{folder}/"): why for path, why in changes.ignored}
    assert {path for path in told if not path.startswith("inside/")} == {
        "read me",
        "notes.txt",
        "spx/latest",
        "spx/01",
        "outside",
        "spx/3",
        "spx/4",
    }
    assert "links out of" in told["outside"]
    assert "links out of" in told["spx/3"]
    assert "model.json links out of" in told["spx/4"]
    assert repository.versions("inside") == ["1", "2", "10"]


def test_a_folder_that_is_not_there(tmp_path):
    changes = Repository(tmp_path / "none").refresh()
    assert changes.new == ()
    assert "not readable" in changes.ignored[0][1]


def test_requests_go_on_while_versions_are_loaded_anew(folder, repository):
    stop, failures = threading.Event(), []

    def ask() -> None:
        while not stop.wait(0.002):
            try:
                repository.get("spx").metadata(repository.versions("spx"))
            except RequestError as error:
                failures.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    for _ in range(2):
        repository.load("spx", "10")
    stop.set()
    thread.join()
    assert failures == []
