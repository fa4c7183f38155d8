"""Compiles a joint head without a graph break, under autocast too, and holds it against eager mode.

A process of its own, because compiled code can't contain the run-time check of annotations that the test suite switches
on.

Usage: python -m tests.heads.compiled_joint NAME [densities]
"""

import sys

import torch
from torch import Tensor

from qtorch import heads
from qtorch.training.network import Network
from tests.training.runs import Across


def main() -> None:
    torch.manual_seed(0)
    marginals = getattr(heads, sys.argv[1])(8, (1, 5))
    head = heads.JointHead(marginals, heads.CopulaHead(8, 2))
    for layer in (marginals.project, head.copula.project, head.copula.tails):
        torch.nn.init.normal_(layer.weight, std=0.3)
    network = Network(Across(3), head).eval()
    inputs, mask, x = torch.randn(5, 6, 4, 3), torch.rand(5, 6, 4) < 0.8, torch.randn(5, 2, 4)
    there = torch.rand(5, 2, 4) < 0.8

    def functions(inputs: Tensor) -> tuple[Tensor, ...]:
        parameters = network(inputs, mask)
        if "densities" not in sys.argv:
            return parameters
        law = head.distribution(*(p.movedim(2, 1) for p in parameters))
        return law.log_prob(x, there), law.marginals.icdf(torch.tensor(0.01)), *parameters

    for mixed in (False, True):
        torch.compiler.reset()
        compiled = torch.compile(functions, backend="eager", fullgraph=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            for one, other in zip(functions(inputs), compiled(inputs), strict=True):
                torch.testing.assert_close(one, other)
                assert one.dtype == torch.float32


if __name__ == "__main__":
    main()
