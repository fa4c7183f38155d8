"""Compiles a joint head without a graph break, under autocast too, and holds it against eager mode.

A process of its own, because compiled code can't contain the run-time check of annotations that the test suite switches
on.

Usage: python -m tests.heads.compiled_joint NAME [densities]
"""

import sys
from typing import Any

import torch
from torch import Tensor, nn

from qtorch import heads
from qtorch.training.network import Network
from tests.training.runs import Across


def make(name: str) -> nn.Module:
    """A joint head of the marginals or the copula of a name, or the joint head of that name, far from a fresh one."""
    small = {"width": 8, "heads": 2, "bins": 4}
    if name == "CouplingFlowHead":
        head: Any = heads.CouplingFlowHead(8, (1, 5), layers=2, **small)
        learnt = list(head.parameters())
    elif name == "AttentionalCopulaHead":
        head = heads.JointHead(heads.SkewedStudentT(8, (1, 5)), heads.AttentionalCopulaHead(8, depth=1, **small))
        learnt = list(head.copula.parameters())
    else:
        head = heads.JointHead(getattr(heads, name)(8, (1, 5)), heads.CopulaHead(8, 2))
        learnt = [layer.weight for layer in (head.marginals.project, head.copula.project, head.copula.tails)]
    for value in learnt:
        nn.init.normal_(value, std=0.3)
    return head


def main() -> None:
    torch.manual_seed(0)
    head = make(sys.argv[1])
    network = Network(Across(3), head).eval()
    inputs, mask, x = torch.randn(5, 6, 4, 3), torch.rand(5, 6, 4) < 0.8, torch.randn(5, 2, 4)
    there = torch.rand(5, 2, 4) < 0.8

    def functions(inputs: Tensor) -> tuple[Tensor, ...]:
        parameters = network(inputs, mask)
        if "densities" not in sys.argv:
            return parameters
        law = head.distribution(*(p.movedim(2, 1) for p in parameters))
        quantiles = () if law.marginals is None else (law.marginals.icdf(torch.tensor(0.01)),)
        return law.log_prob(x, there), *quantiles, *parameters

    for mixed in (False, True):
        torch.compiler.reset()
        compiled = torch.compile(functions, backend="eager", fullgraph=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            for one, other in zip(functions(inputs), compiled(inputs), strict=True):
                torch.testing.assert_close(one, other)
                assert one.dtype in (torch.float32, torch.bool)


if __name__ == "__main__":
    main()
