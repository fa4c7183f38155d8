"""Models compiled by Inductor beside eager mode, in a process of its own: checks of annotations can't be compiled."""

import sys

import torch

from qtorch.deploy import program_of
from qtorch.deploy.parity import hold, probes
from tests.deploy.artefact_runs import MODELS
from tests.deploy.exported import moved

if __name__ == "__main__":
    torch.manual_seed(0)
    program = program_of(moved(MODELS[sys.argv[1]]()))
    compiled = torch.compile(program, dynamic=True, fullgraph=True, backend="inductor")
    sizes = probes(program)
    assert len(sizes) >= 4
    hold(program, torch.no_grad()(compiled), sizes, 1e-5, "compiled by Inductor")
    from torch._dynamo.utils import counters

    assert counters["inductor"], "nothing was compiled"
