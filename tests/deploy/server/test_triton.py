"""Conformance: an unmodified tritonclient, in an environment of its own, over HTTP and gRPC."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.deploy.server.serving import TOKEN, eager, windows

PYTHON = os.environ.get("QTORCH_TRITON_PYTHON")
pytestmark = [
    pytest.mark.deploy,
    pytest.mark.skipif(PYTHON is None, reason="QTORCH_TRITON_PYTHON names no interpreter with tritonclient"),
]


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_tritonclient_gets_what_the_forecaster_says(server, served, tmp_path, kind):
    tensors = windows(3, seed=5)
    np.savez(tmp_path / "arrays.npz", **tensors)
    address = f"127.0.0.1:{server.port if kind == 'http' else server.grpc_port}"
    script = Path(__file__).with_name("triton_client.py")
    arguments = [PYTHON, script, kind, address, TOKEN, tmp_path / "arrays.npz"]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["live"] is found["ready"] is found["model_ready"] is found["version_ready"] is found["loaded"] is True
    assert found["server"]["name"] == "qtorch"
    assert found["metadata"]["versions"] == ["1", "2"]
    assert {each["name"]: each["datatype"] for each in found["metadata"]["inputs"]} == {
        "inputs": "FP32",
        "mask": "BOOL",
        "scale": "FP32",
    }
    config = found["config"] if kind == "http" else found["config"]["config"]
    assert config["name"] == "spx"
    index = found["index"] if kind == "http" else found["index"]["models"]
    assert [each["name"] for each in index] == ["broken", "spx", "spx"]
    for version in ("1", "2", ""):
        expected = eager(served[1][version or "2"], tensors, levels=(0.99,))
        for binary in (True, False):
            for name, value in found[f"infer {binary} {version}"].items():
                np.testing.assert_allclose(value, expected[name], rtol=2e-5, atol=1e-8, err_msg=f"{name} {version}")
    assert found["all"] == ["expected_shortfall", "mean", "value_at_risk", "volatility"]
    for name in ("gzip", "deflate"):
        if kind == "http":
            np.testing.assert_allclose(found[name], eager(served[1]["2"], tensors)["mean"], rtol=2e-5, atol=1e-8)
    codes = {
        "http": {"unknown_model": "404", "unknown_version": "404", "no_token": "401", "unloaded": "503"},
        "grpc": {
            "unknown_model": "StatusCode.NOT_FOUND",
            "unknown_version": "StatusCode.NOT_FOUND",
            "no_token": "StatusCode.UNAUTHENTICATED",
            "unloaded": "StatusCode.UNAVAILABLE",
        },
    }[kind]
    for name, code in codes.items():
        assert found[name]["status"] == code, found[name]
        assert len(found[name]["message"]) > 10
    assert "inputs" in found["missing_input"]["message"]
    assert found["no_model_ready"] is False
