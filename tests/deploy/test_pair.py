"""A file and its description, replaced by processes that are killed once, twice or not at all."""

import hashlib
import itertools
import json

import pytest

from qtorch.deploy import pair


class Killed(BaseException):
    pass


def replace(folder, content: bytes) -> None:
    text = json.dumps({"hash": hashlib.sha256(content).hexdigest()})
    pair.replace(folder / "weights", content, folder / "about.json", text, "hash")


def read(folder) -> bytes | None:
    named = json.loads((folder / "about.json").read_text())["hash"]
    return pair.content_of(folder / "weights", named, folder)


def killed(monkeypatch, folder, content: bytes, moment: int) -> None:
    """A process that ends within the n-th step that changes the folder: a file that it writes then is half there."""
    steps = itertools.count()
    write, move = pair._write, pair.os.replace

    def dying_write(file, content):
        if next(steps) == moment:
            file.write_bytes(content[: len(content) // 2])
            raise Killed
        write(file, content)

    def dying_move(source, target):
        if next(steps) == moment:
            raise Killed
        move(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(pair, "_write", dying_write)
        patched.setattr(pair.os, "replace", dying_move)
        with pytest.raises(Killed):
            replace(folder, content)


@pytest.mark.parametrize(("first", "second", "third"), list(itertools.product(range(4), repeat=3)))
def test_kills_in_a_row_lose_nothing_whole(first, second, third, monkeypatch, tmp_path):
    replace(tmp_path, b"old one")
    expected = b"old one"
    waits = False  # whether what the description names is still aside, so that one step more comes first
    for moment, content in ((first, b"second"), (second, b"third one"), (third, b"the fourth")):
        killed(monkeypatch, tmp_path, content, moment + waits)
        waits = moment == 3
        expected = content if waits else expected
        assert read(tmp_path) == expected
    replace(tmp_path, b"last")
    assert read(tmp_path) == b"last"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["about.json", "weights"]


def test_a_kill_before_the_unfinished_one_is_put_in_its_place(monkeypatch, tmp_path):
    replace(tmp_path, b"old one")
    killed(monkeypatch, tmp_path, b"second", 3)
    killed(monkeypatch, tmp_path, b"third", 0)
    assert read(tmp_path) == b"second"


def test_what_is_aside_and_not_named_is_not_taken(tmp_path):
    replace(tmp_path, b"old one")
    (tmp_path / "weights.new").write_bytes(b"other")
    assert read(tmp_path) == b"old one"
    (tmp_path / "about.json").write_text("{")
    replace(tmp_path, b"next")
    assert read(tmp_path) == b"next"
    assert pair.content_of(tmp_path / "weights", "0" * 64, tmp_path) is None
    (tmp_path / "weights").unlink()
    with pytest.raises(FileNotFoundError):
        pair.content_of(tmp_path / "weights", "0" * 64, tmp_path)
