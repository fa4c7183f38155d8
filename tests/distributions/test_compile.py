"""Every law compiles without a graph break, to the values and gradients of eager mode."""

import json
import os
import subprocess
import sys

import pytest

from tests.distributions.test_families import LAWS


def compile_laws(backend: str, *names: str) -> list[dict]:
    command = [sys.executable, "-m", "tests.distributions.compiled", backend, *names]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_no_graph_breaks():
    quick = [name for name in LAWS if name not in ("mixture", "student_light", "hansen", "affine")]
    for result in compile_laws("eager", *quick):
        assert result["error"] < 1e-11, result


@pytest.mark.slow
@pytest.mark.parametrize("name", LAWS)
def test_inductors_kernels_are_right(name):
    for result in compile_laws("inductor", name):
        assert result["error"] < 1e-11, result
