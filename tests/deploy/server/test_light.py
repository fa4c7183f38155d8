"""What the process that listens needs: neither torch nor pandas."""

import subprocess
import sys

CHECK = """
import sys, types
import qtorch
# The package itself is stood in for, since its own imports are its own matter.
room = types.ModuleType("qtorch.deploy")
room.__path__ = [f"{qtorch.__path__[0]}/deploy"]
sys.modules["qtorch.deploy"] = room
from qtorch.deploy.server import risk_request, tensor_options
from qtorch.deploy.server.protocol import Limits, parse_infer
heavy = {"torch", "pandas", "scipy", "lightning", "ray"} & set(sys.modules)
assert not heavy, heavy
"""


def test_requests_are_parsed_without_torch():
    done = subprocess.run([sys.executable, "-c", CHECK], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
