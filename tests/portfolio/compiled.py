"""Compiles the layers and the simulation without graph breaks.

A process of its own, because compiled code can't contain the run-time check of annotations that the test suite switches
on.

Usage: python -m tests.portfolio.compiled
"""

import pytest
import torch

from qtorch.portfolio import Costs, MinimumVariance, Projected, Softmax, simulate
from tests.portfolio.universes import CASES, universe

BACKEND = "eager"


def main() -> None:
    u = universe(6, 20, 7, torch.float32)
    for layer in (Softmax(), Projected(CASES["all"])):
        compiled = torch.compile(layer, fullgraph=True, backend=BACKEND, dynamic=False)
        results = []
        for function in (layer, compiled):
            y = u.scores.clone().requires_grad_()
            w = function(y, u.mask, **u.given)
            results.append((w, *torch.autograd.grad(w.square().sum(), y)))
        for one, two in zip(*results, strict=True):
            torch.testing.assert_close(one, two, rtol=0, atol=1e-6)
        if isinstance(layer, Projected):  # compiled code too refuses what can't be met
            few = torch.zeros_like(u.mask)
            few[:, 0] = True
            with pytest.raises(ValueError, match="row"):
                compiled(u.scores, few, **u.given)

    layer = MinimumVariance(inertia=0.1, reluctance=0.1)
    compiled = torch.compile(layer, fullgraph=True, backend=BACKEND, dynamic=False)
    x = torch.randn(2, 30, 6)
    sigma, held, mask = x.mT @ x, torch.rand(2, 6).softmax(-1), torch.ones(2, 6, dtype=torch.bool)
    torch.testing.assert_close(compiled(sigma, mask, holdings=held), layer(sigma, mask, holdings=held))

    def net(w: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
        return simulate(w, r, costs=Costs(0.001, cash=0.0001, financing=0.0002)).returns

    w, r = torch.rand(2, 3, 4).softmax(-1), 0.01 * torch.randn(2, 3, 4)
    compiled = torch.compile(net, fullgraph=True, backend=BACKEND)
    torch.testing.assert_close(compiled(w, r), net(w, r), rtol=0, atol=1e-7)


if __name__ == "__main__":
    main()
