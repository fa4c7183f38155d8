"""Compiles functions of the laws of test_families without a graph break and holds them against eager mode.

A process of its own, because compiled code can't contain the run-time check of annotations that the test suite switches
on. Prints one line of JSON for each function: its name, the seconds of its first call, the largest relative difference.

Usage: python -m tests.distributions.compiled BACKEND NAME...
"""

import json
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from qtorch.distributions import Empirical, JumpStudentT, log_cdf, tail_mean
from tests.distributions.test_families import LAWS, double

MASSES = torch.tensor([0.013, 0.3, 0.93], dtype=torch.float64)
MORE = {
    "empirical": (Empirical, double([0.3, -1.0, 2.0, 0.7, -0.2], [0.1, 0.2, 0.3, 0.2, 0.2]), None),
    "jump": (lambda loc: JumpStudentT(4.0, 0.05, -1.5, 3.0), double(0.0), None),
}


def functions(name: str) -> dict[str, Callable[..., Tensor]]:
    make, parameters, _ = (LAWS | MORE)[name]
    x = make(*parameters).icdf(MASSES).detach()
    if name == "empirical":
        return {
            "mean": lambda *a: make(*a).mean,
            "icdf": lambda *a: make(*a).icdf(MASSES),
            "tail_mean": lambda *a: tail_mean(make(*a), MASSES),
        }
    return {
        "log_prob": lambda *a: make(*a).log_prob(x),
        "cdf": lambda *a: make(*a).cdf(x),
        "log_cdf": lambda *a: log_cdf(make(*a), x),
        "icdf": lambda *a: make(*a).icdf(MASSES),
        "tail_mean": lambda *a: tail_mean(make(*a), MASSES),
    }


def with_gradients(function: Callable[..., Tensor], parameters: list[Tensor]) -> list[Tensor]:
    leaves = [value.clone().requires_grad_() for value in parameters]
    value = function(*leaves)
    if not value.requires_grad:
        return [value]
    return [value.detach(), *torch.autograd.grad(value.sum(), leaves, materialize_grads=True)]


def main() -> None:
    backend, *names = sys.argv[1:]
    for name in names:
        parameters = (LAWS | MORE)[name][1]
        for what, function in functions(name).items():
            torch._dynamo.reset()
            expected = with_gradients(function, parameters)
            start = time.perf_counter()
            got = with_gradients(torch.compile(function, backend=backend, fullgraph=True), parameters)
            seconds = time.perf_counter() - start
            error = max(
                ((a - b).abs() / b.abs().clamp(min=1e-3)).max().item() for a, b in zip(got, expected, strict=True)
            )
            print(json.dumps({"law": name, "function": what, "seconds": round(seconds, 1), "error": error}), flush=True)


if __name__ == "__main__":
    main()
