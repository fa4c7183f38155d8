"""Compiles the densities of the joint heads without a graph break, held against eager mode, and exports one.

A process of its own, because compiled code can't contain the run-time check of annotations that the test suite switches
on.

Usage: python -m tests.heads.compiled_joint_heads
"""

import torch
from torch import Tensor, nn

from qtorch.heads import AttentionalCopulaHead, CouplingFlowHead


class Density(nn.Module):
    """The log density of a head's law."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, hidden: Tensor, x: Tensor, mask: Tensor) -> Tensor:
        law = self.head(hidden, mask)
        if isinstance(self.head, CouplingFlowHead):
            x, mask = x.unsqueeze(-2), mask.unsqueeze(-2)
        return law.log_prob(x, mask)


def main() -> None:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)  # in float32 sums in another order differ by 2e-5 of a gradient
    hidden, x, mask = torch.randn(5, 6, 4), torch.rand(5, 6), torch.rand(5, 6) > 0.3
    for head in (AttentionalCopulaHead(4, width=8, heads=2), CouplingFlowHead(4, (1, 5), width=8, heads=2)):
        for value in head.parameters():
            nn.init.normal_(value, std=0.3)
        density, results = Density(head).eval(), []
        for function in (density, torch.compile(density, backend="eager", fullgraph=True)):
            value = function(hidden, x, mask)
            results.append(
                [value.detach(), *torch.autograd.grad(value.sum(), list(head.parameters()), allow_unused=True)]
            )
        for one, other in zip(*results, strict=True):
            torch.testing.assert_close(one, other)
    batch = {0: torch.export.Dim("batch", min=2)}
    with torch.no_grad():
        program = torch.export.export(density, (hidden, x, mask), dynamic_shapes=(batch,) * 3).module()
        more = torch.randn(9, 6, 4), torch.rand(9, 6), torch.rand(9, 6) > 0.3
        torch.testing.assert_close(program(*more), density(*more))


if __name__ == "__main__":
    main()
