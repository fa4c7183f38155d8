"""Compiles the masked density of a joint law without a graph break, and holds it and its gradient against eager mode.

A process of its own, because compiled code can't contain the run-time check of annotations that the test suite switches
on.

Usage: python -m tests.distributions.compiled_joint
"""

import torch
from torch import Tensor

from qtorch.distributions import GaussianCopula, JointDistribution, SkewedStudentT, StudentTCopula


def main() -> None:
    torch.manual_seed(0)
    mask = torch.rand(5, 6) > 0.3
    leaves = [0.4 * torch.randn(6, 2).double().tanh(), torch.tensor(4.0).double(), torch.randn(5, 6).double()]

    def density(L: Tensor, df: Tensor, x: Tensor) -> Tensor:
        marginals = SkewedStudentT(5.0, 0.0, torch.ones_like(L[:, 0]), 1.1)
        t = JointDistribution(marginals, StudentTCopula(df, L)).log_prob(x, mask)
        return t + JointDistribution(marginals, GaussianCopula(L)).log_prob(x, mask)

    results = []
    for function in (density, torch.compile(density, backend="eager", fullgraph=True)):
        own = [leaf.clone().requires_grad_() for leaf in leaves]
        value = function(*own)
        results.append([value.detach(), *torch.autograd.grad(value.sum(), own)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


if __name__ == "__main__":
    main()
