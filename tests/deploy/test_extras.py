"""Each extra installs beside the pinned torch, alone and together, without replacing it."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEPLOY = ("coreml", "executorch", "hub", "onnx", "serve", "ray")
# Each asks for other versions than the pinned, and has an environment of its own in the Makefile.
APART = {
    "bench": "the peers pin older versions of their own",
    "harness": "mlflow asks for pyarrow below 26",
    "harness-zipline": "zipline asks for pandas 2",
    "qlib": "mlflow asks for pyarrow below 26",
    "store": "botocore asks for an older dateutil",
    "vectorbt": "it comes with harness, on versions of its own",
    "zipline": "it asks for pandas 2",
}
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


TOGETHER = tuple(name for name in EXTRAS if name not in APART)


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fresh")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt"]
    subprocess.run([*pip, "torch==2.13.0"], check=True)
    return python


@pytest.mark.deploy
@pytest.mark.slow
@pytest.mark.parametrize("extras", [*((name,) for name in TOGETHER), DEPLOY, TOGETHER], ids=",".join)
def test_extras_leave_torch_as_it_is(python, extras):
    command = [python, "-m", "pip", "install", "--dry-run", "--quiet", "--report", "-", "-c", "constraints.txt"]
    done = subprocess.run([*command, f".[{','.join(extras)}]"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout)
    names = {re.sub(r"[-_.]+", "-", one["metadata"]["name"]).lower() for one in report["install"]}
    assert "qtorch-finance" in names
    assert "torch" not in names
    assert not {name for name in names if name.startswith(("nvidia", "cuda"))}


def test_what_stands_apart_is_an_extra():
    assert set(APART) | set(DEPLOY) <= EXTRAS.keys()
