"""Every law compiles without a graph break, to the values and gradients of eager mode."""

import json
import os
import subprocess
import sys

import pytest

from tests.distributions.compiled import MORE
from tests.distributions.test_families import LAWS

NAMES = (*LAWS, *MORE)
# Tracing takes seconds a function; the others are of the same classes, or made of several of these.
QUICK = ("student",)


def assert_compiled_is_eager(backend: str, *names: str) -> None:
    command = [sys.executable, "-m", "tests.distributions.compiled", backend, *names]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-4000:]
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert {result["law"] for result in results} == set(names)
    for result in results:
        assert result["error"] < 1e-11, result


def test_no_graph_breaks():
    assert_compiled_is_eager("eager", *QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(NAMES) - set(QUICK)))
def test_no_graph_breaks_in_other_laws(name):
    assert_compiled_is_eager("eager", name)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_inductors_kernels_are_right(name):
    assert_compiled_is_eager("inductor", name)
