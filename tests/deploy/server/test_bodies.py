"""Bodies that are small but would take long: the work to refuse them grows as their size."""

import json

import numpy as np
import pytest

from qtorch.deploy.server.protocol import InferInput, RequestError, bodies
from qtorch.deploy.server.protocol.requests import request_of


class Counted(str):
    """A name that counts how often one is held against another."""

    compared = 0

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def names(count: int) -> list[Counted]:
    """Different names, and the last one once more."""
    return [Counted(f"name-{i}") for i in range(count)] + [Counted(f"name-{count - 1}")]


def keys(count: int) -> None:
    bodies._without_duplicates([(name, 0) for name in names(count)])


def inputs(count: int) -> None:
    data = np.zeros(1, np.float32)
    request_of("spx", None, None, {}, [InferInput(name, "FP32", (1,), data) for name in names(count)], None)


@pytest.mark.parametrize("refuse", [keys, inputs])
def test_a_late_repeated_name_costs_as_much_as_there_are_names(refuse):
    Counted.compared = 0
    with pytest.raises(RequestError, match="twice"):
        refuse(2000)
    assert Counted.compared <= 4 * 2000


@pytest.mark.parametrize("part", [b"[]", b"{}"])
def test_too_many_lists_and_objects_are_refused_unread(part, monkeypatch):
    text = b'{"a": [' + b",".join([part] * 250_001) + b"]}"
    monkeypatch.setattr(json, "loads", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(RequestError, match="brackets") as error:
        bodies.json_object(text)
    assert error.value.status == 400


def test_data_nested_as_a_large_request_are_read():
    windows = json.dumps({"data": [[[0.5]] * 64] * 1024}).encode()
    assert len(bodies.json_object(windows)["data"]) == 1024
