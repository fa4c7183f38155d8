"""Compiled networks: one graph for all sizes, and models that do what they do uncompiled."""

import subprocess
import sys

import pytest
import torch

from qtorch import models
from qtorch.errors import ArgumentError
from qtorch.nn.graph import TreeLSTM
from qtorch.training import Ensemble
from qtorch.training.compiling import compile_whole
from tests.deploy.exported import ENCODERS
from tests.training.runs import SPEC, small_model, small_panel


def run(*arguments: str) -> None:
    """A module in a process of its own."""
    end = subprocess.run([sys.executable, "-m", *arguments], timeout=600, capture_output=True, text=True)
    assert end.returncode == 0, end.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ENCODERS)
def test_no_size_is_compiled_anew(name):
    """See `tests/training/compiled_sizes.py`."""
    run("tests.training.compiled_sizes", name)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["forecasts", "allocators"])
def test_compiled_models_do_and_learn_the_same(what):
    """See `tests/training/compiled_models.py`."""
    run("tests.training.compiled_models", what)


def test_compile_is_never_ignored_in_silence():
    panel = small_panel()
    with pytest.warns(UserWarning, match="is faster than a compiled network"):
        small_model(encoder=models.Recurrent(len(SPEC.features))).predict(panel, compile=True)
    with pytest.raises(ArgumentError, match="no member of this ensemble has a network"):
        Ensemble([models.RiskMetrics(SPEC)]).predict(panel, compile=True)


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
