"""The Hub's format: a round trip through a folder, what would be pushed and fetched, and no other way in."""

import sys
from pathlib import Path

import pytest
import torch

from qtorch.deploy import BundleError, bundle_digest, hub, load
from qtorch.deploy.hub import repository
from qtorch.training import Allocator
from tests.deploy.conftest import edit


@pytest.fixture
def library():
    return pytest.importorskip("huggingface_hub")


@pytest.mark.usefixtures("library")
def test_a_round_trip_gives_the_same_bits(model, tmp_path):
    hub.save_pretrained(model, tmp_path, {"desk": "rates"}, metrics={"test_crps": 0.5}, license="mit")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["README.md", "model.json", "weights.safetensors"]
    again, about = hub.from_pretrained(tmp_path, sha256=bundle_digest(tmp_path))
    assert about == {"desk": "rates"}
    for name, value in model.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[name], value)
    card = (tmp_path / "README.md").read_text()
    assert "license: mit" in card
    assert "| test_crps | 0.5 |" in card
    hub.save_pretrained(model, tmp_path)
    assert "test_crps" not in (tmp_path / "README.md").read_text()


def test_what_is_pushed_is_what_is_fetched(model, library, tmp_path, monkeypatch):
    """As the Hub keeps it: files in blobs, and links to them in the snapshot of a commit."""
    cache, calls = tmp_path / "models--desk--risk", []
    snapshot = cache / "snapshots" / "0a1b"

    class Api:
        def __init__(self, token=None):
            calls.append(token)

        def create_repo(self, repo_id, private, exist_ok):
            return type("Repo", (), {"repo_id": repo_id})

        def upload_folder(self, *, folder_path, repo_id, revision, commit_message, **others):
            (cache / "blobs").mkdir(parents=True)
            snapshot.mkdir(parents=True)
            for number, file in enumerate(Path(folder_path).iterdir()):
                (cache / "blobs" / str(number)).write_bytes(file.read_bytes())
                (snapshot / file.name).symlink_to(f"../../blobs/{number}")
            calls.append((repo_id, revision, commit_message))
            return "https://huggingface.co/desk/risk/commit/0a1b"

    def download(name, *, allow_patterns, revision, **others):
        assert (name, revision) == ("desk/risk", "0a1b")
        assert allow_patterns == ["model.json", "weights.safetensors"]  # no config.json, pickle or code
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Api)
    monkeypatch.setattr(library, "snapshot_download", download)
    address = hub.push(model, "desk/risk", token="secret", revision="draft", message="A model")
    assert address.endswith("commit/0a1b")
    assert calls == ["secret", ("desk/risk", "draft", "A model")]
    assert 'hub.from_pretrained("desk/risk", sha256=' in (snapshot / "README.md").read_text()
    again, _ = hub.from_pretrained("desk/risk", revision="0a1b")
    assert torch.equal(again.network.head.project.weight, model.network.head.project.weight)
    with pytest.raises(BundleError, match="a link to a file outside"):
        load(snapshot)
    (snapshot / "weights.safetensors").unlink()
    (snapshot / "weights.safetensors").symlink_to("/etc/hostname")
    with pytest.raises(BundleError, match="a link to a file outside"):
        hub.from_pretrained("desk/risk", revision="0a1b")


@pytest.mark.usefixtures("library")
def test_a_repository_in_the_librarys_own_cache_is_read(whole, tmp_path):
    cache, commit = tmp_path / "models--desk--risk", "0123456789" * 4
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text(commit)
    (cache / "blobs").mkdir()
    (cache / "snapshots" / commit).mkdir(parents=True)
    for file in whole.iterdir():
        (cache / "blobs" / file.name).write_bytes(file.read_bytes())
        (cache / "snapshots" / commit / file.name).symlink_to(f"../../blobs/{file.name}")
    _, about = hub.from_pretrained("desk/risk", cache_dir=tmp_path, local_files_only=True)
    assert about == {"desk": "rates"}


@pytest.mark.usefixtures("library")
def test_the_checks_are_those_of_load(bundle):
    with pytest.raises(BundleError, match="Allocator is wanted"):
        hub.from_pretrained(bundle, Allocator)
    with pytest.raises(ValueError, match="revision='main'"):
        hub.from_pretrained(bundle, revision="main")
    edit(bundle, "head", "class_path", value="os.system")
    with pytest.raises(BundleError, match="outside the allowed"):
        hub.from_pretrained(bundle)


def test_pickled_weights_are_no_way_in(library, model, tmp_path):
    torch.save(model.network.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text('{"model": "anything"}')
    with pytest.raises(BundleError, match=r"model\.json: not readable"):
        hub.from_pretrained(tmp_path)
    with pytest.raises(TypeError, match="read models by"):
        repository._wrapper().from_pretrained(tmp_path)


def test_a_repository_that_is_not_there_is_told(library, tmp_path):
    with pytest.raises(BundleError, match="neither a folder here nor a repository"):
        hub.from_pretrained("desk/nothing", cache_dir=tmp_path, local_files_only=True)
    with pytest.raises(BundleError, match="neither a folder here nor a repository"):
        hub.from_pretrained("no such name!", cache_dir=tmp_path, local_files_only=True)


def test_a_missing_library_names_the_extra(model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    repository._wrapper.cache_clear()
    with pytest.raises(ImportError, match=r"pip install 'qtorch-finance\[hub\]'"):
        hub.save_pretrained(model, tmp_path)
