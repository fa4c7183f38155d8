"""Every program that can be exported: one graph for all sizes, with eager's numbers, of operations others know."""

import subprocess
import sys

import pytest

from tests.deploy.exported import programs
from tests.deploy.exported_once import check

PROGRAMS = programs()
FAST = ("encoder gru",)


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in PROGRAMS]
)
def test_a_program_is_exported_once_for_all_sizes(name):
    if not name.startswith("density "):
        check(name, PROGRAMS[name]())
        return
    done = subprocess.run([sys.executable, "-m", "tests.deploy.exported_once", name], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
