"""Graphs of compiled networks, counted, in a process of its own: run-time checks of annotations can't be compiled.

Usage: python -m tests.training.compiled_sizes NAME...
"""

import copy
import pickle
import sys

import torch
from torch import nn

from qtorch import Forecaster, heads
from qtorch.training.compiling import compile_whole
from tests.deploy.exported import ENCODERS, HORIZONS, SPEC, F, moved
from tests.training.counting import counted

SIZES = ((3, 5, 4), (2, 9, 7), (1, 6, 3), (4, 1, 5), (5, 8, 1), (1, 1, 1), (8, 7, 2))  # B, C, N


def network_of(name: str) -> nn.Module:
    encoder = ENCODERS[name]()
    panel = getattr(encoder, "layout", "asset") == "panel"
    marginals = heads.StudentT(encoder.out_features, HORIZONS)
    head = heads.JointHead(marginals, heads.CopulaHead(encoder.out_features, 2)) if panel else marginals
    return moved(Forecaster(encoder, head, SPEC)).network


def windows(network: nn.Module, B: int, C: int, N: int) -> tuple[torch.Tensor, torch.Tensor]:
    context = getattr(network.encoder, "context", None) if not network.causal else None
    shape = (B, context or C, N) if network.layout == "panel" else (B, context or C)
    usable = torch.rand(shape) < 0.8
    usable[:, -1] = True
    return torch.randn(*shape, F), usable


def main(name: str) -> None:
    """One graph each for training, forecasts and every position of a forecast, over all sizes, with eager's numbers."""
    network = network_of(name)
    plain, names = copy.deepcopy(network), list(network.state_dict())
    with counted() as graphs:
        compile_whole(network)
    every = (False, True) if network.causal else (False,)
    for position in every:
        for training in (False, True):
            network.train(training), plain.train(training)
            for k, sizes in enumerate(SIZES):
                inputs, mask = windows(network, *sizes)
                with (
                    torch.compiler.set_stance("fail_on_recompile" if k else "default"),
                    torch.set_grad_enabled(training),
                ):
                    outputs = network(inputs, mask, position)
                    if training:
                        sum(value.double().sum() for value in outputs).backward()
                if not training:
                    with torch.no_grad():
                        expected = plain(inputs, mask, position)
                    for a, b in zip(outputs, expected, strict=True):
                        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    assert len(graphs) == 2 * len(every), len(graphs)
    assert list(network.state_dict()) == names
    assert copy.deepcopy(network)._compiled_call_impl is None
    assert pickle.loads(pickle.dumps(network))._compiled_call_impl is None  # noqa: S301


if __name__ == "__main__":
    for name in sys.argv[1:]:
        main(name)
        print(name, flush=True)
