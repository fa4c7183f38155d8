"""Compiles a head and the log density of what it gives without a graph break, and holds it against eager mode.

A process of its own, because compiled code can't contain the run-time check of annotations that the test suite switches
on.

Usage: python -m tests.heads.compiled NAME
"""

import sys

import torch
from torch import Tensor

from qtorch import heads


def main() -> None:
    torch.manual_seed(0)
    head = getattr(heads, sys.argv[1])(8, (1, 5))
    torch.nn.init.normal_(head.project.weight, std=0.3)
    hidden, x, p = torch.randn(5, 8), torch.randn(5, 2), torch.tensor(0.01)

    def functions(state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        law = head(state)
        return law.log_prob(x), law.cdf(x), law.icdf(p)

    compiled = torch.compile(functions, backend="eager", fullgraph=True)
    for one, other in zip(functions(hidden), compiled(hidden), strict=True):
        torch.testing.assert_close(one, other)


if __name__ == "__main__":
    main()
