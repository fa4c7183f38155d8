"""The benchmark of training on a GPU, compiled too, at a toy's size: in a process of its own, where compiling works."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize(
    "device", [pytest.param("cpu", marks=pytest.mark.slow), pytest.param("cuda", marks=pytest.mark.gpu)]
)
def test_every_way_of_training_gives_a_row(device):
    command = [sys.executable, BENCHMARKS / "gpu.py", "--device", device, "--small"]
    environment = os.environ | {"PYTHONPATH": str(BENCHMARKS.parent)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    for way in ("as it is", "compiled", "CUDA graphs", "fit(compile=False)", "fit(compile=True)"):
        (row,) = (line for line in done.stdout.splitlines() if line.startswith(f"| {way} |"))
        assert float(row.split("|")[3].replace(",", "")) > 0
