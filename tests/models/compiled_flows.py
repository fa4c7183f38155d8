"""Compiles and exports the log density of flows, and holds both against eager mode.

A process of its own, because compiled code can't contain the run-time check of annotations that the test suite switches
on. Prints one line of JSON for each flow: its name and the largest difference of values and gradients.

Usage: python -m tests.models.compiled_flows BACKEND NAME...
"""

import json
import sys

import torch
from torch import Tensor, nn

from qtorch.models.flows import (
    AffineFlow,
    BernsteinFlow,
    ContinuousFlow,
    Flow,
    GaussianisationFlow,
    LinearLayer,
    MonotoneFlow,
    NeuralSplineFlow,
    NormalBase,
    StudentTBase,
    TailLayer,
)

C = 2
SMALL = {"transforms": 3, "hidden": [16, 16]}
MAKE = {
    "spline coupling": lambda d: NeuralSplineFlow(d, C, **SMALL),
    "spline autoregressive": lambda d: NeuralSplineFlow(d, C, autoregressive=True, **SMALL),
    "spline, no tails": lambda d: NeuralSplineFlow(d, C, tails=False, **SMALL),
    "spline, t base": lambda d: NeuralSplineFlow(d, C, tails=False, base=StudentTBase(d), **SMALL),
    "spline, one t base": lambda d: NeuralSplineFlow(d, C, tails=False, base=StudentTBase(d, shared=True), **SMALL),
    "spline, tails, normal base": lambda d: NeuralSplineFlow(d, C, base=NormalBase(d), **SMALL),
    "affine coupling": lambda d: AffineFlow(d, C, **SMALL),
    "affine autoregressive": lambda d: AffineFlow(d, C, autoregressive=True, **SMALL),
    "mtaf": lambda d: AffineFlow(d, C, tails=False, base=StudentTBase(d, learned=False), **SMALL),
    "bernstein coupling": lambda d: BernsteinFlow(d, C, degree=8, **SMALL),
    "bernstein autoregressive": lambda d: BernsteinFlow(d, C, degree=8, autoregressive=True, **SMALL),
    "monotone": lambda d: MonotoneFlow(d, C, units=4, transforms=2, hidden=[16], tails=False),
    "gaussianisation": lambda d: GaussianisationFlow(d, C, transforms=2, kernels=4),
    "linear": lambda d: Flow(
        NormalBase(d), [TailLayer(d), LinearLayer(d), *AffineFlow(d, C, tails=False, **SMALL).layers]
    ),
}
# torchdiffeq breaks graphs.
PRECISE = {"method": "dopri8", "steps": None, "tolerance": 1e-11}
ODES = {"continuous": lambda d: ContinuousFlow(d, C, hidden=[16], tails=False, **PRECISE)}


def make(name: str, features: int) -> Flow:
    torch.manual_seed(5)
    return (MAKE | ODES)[name](features)


class LogProb(nn.Module):
    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        return self.flow(context).log_prob(x)


def main() -> None:
    backend, *names = sys.argv[1:]
    for name in names:
        torch._dynamo.reset()
        flow, x, context = make(name, 4), 2 * torch.randn(8, 4), torch.randn(8, C)
        module = LogProb(flow)
        results = []
        for function in (module, torch.compile(module, backend=backend, fullgraph=True)):
            flow.zero_grad(set_to_none=True)
            value = function(x, context)
            value.mean().backward()
            results.append([value.detach(), *(p.grad for p in flow.parameters() if p.requires_grad)])
        error = max((a - b).abs().max().item() for a, b in zip(*results, strict=True))
        with torch.no_grad():
            z = torch.randn(8, 4)
            decode = torch.compile(lambda z, c, flow=flow: flow(c).decode(z), backend=backend, fullgraph=True)
            error = max(error, (decode(z, context) - flow(context).decode(z)).abs().max().item())
            batch = torch.export.Dim("batch", min=2, max=4096)
            program = torch.export.export(module.eval(), (x, context), dynamic_shapes=({0: batch}, {0: batch})).module()
            x, context = torch.randn(21, 4), torch.randn(21, C)
            error = max(error, (program(x, context) - module(x, context)).abs().max().item())
        print(json.dumps({"flow": name, "error": error}), flush=True)


if __name__ == "__main__":
    main()
