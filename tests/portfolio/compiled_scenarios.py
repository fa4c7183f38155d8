"""Compiles the scenario program without graph breaks, in a process of its own as `tests.portfolio.compiled`.

Usage: python -m tests.portfolio.compiled_scenarios tail|growth
"""

import sys

import torch

from qtorch.portfolio import Growth, ScenarioProgram, TailRisk
from tests.portfolio.universes import CASES, universe


def main() -> None:
    u = universe(3, 10, 7, torch.float32)
    draws = 0.01 * torch.randn(64, 3, 10, generator=torch.Generator().manual_seed(0))
    utility = {"tail": TailRisk(0.9), "growth": Growth()}[sys.argv[1]]
    program = ScenarioProgram(utility, CASES["all"], 0.001, 1e-4)
    compiled = torch.compile(program, fullgraph=True, backend="eager", dynamic=False)
    results = []
    for function in (program, compiled):
        X = draws.clone().requires_grad_()
        w = function(X, u.mask, **u.given)
        results.append((w, *torch.autograd.grad(w.square().sum(), X)))
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


if __name__ == "__main__":
    main()
