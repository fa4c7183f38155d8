"""Compiled networks: one graph for all sizes."""

import subprocess
import sys

import pytest
import torch

from qtorch import models
from qtorch.errors import ArgumentError
from qtorch.nn.graph import TreeLSTM
from qtorch.training.compiling import compile_whole
from tests.deploy.exported import ENCODERS


@pytest.mark.parametrize(
    "name", [name if name == "gru" else pytest.param(name, marks=pytest.mark.slow) for name in ENCODERS]
)
def test_no_size_is_compiled_anew(name):
    """See `tests/training/compiled_sizes.py`."""
    run = [sys.executable, "-m", "tests.training.compiled_sizes", name]
    end = subprocess.run(run, timeout=600, capture_output=True, text=True)
    assert end.returncode == 0, end.stderr


def test_what_walks_over_trees_is_not_compiled():
    with pytest.raises(ArgumentError, match="OverTree walks over each date's dendrogram"):
        compile_whole(models.OverTree(TreeLSTM(4, 4)))


def test_our_checks_do_not_depend_on_torchs():
    torch.distributions.Distribution.set_default_validate_args(False)  # as the first torch.compile does
    try:
        with pytest.raises(ArgumentError, match="must be 'panel' or 'asset'"):
            models.InvertedTransformer(3, layout="none")
    finally:
        torch.distributions.Distribution.set_default_validate_args(__debug__)
