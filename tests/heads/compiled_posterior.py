"""Compiles heads with posteriors, without a break of their own in the graph, and holds them against eager mode.

A process of its own, because compiled code can't contain the run-time check of annotations that the test suite switches
on.

Usage: python -m tests.heads.compiled_posterior
"""

import torch

from qtorch import heads, models
from qtorch.models.distance_aware import DistanceAware
from tests.heads.linear_gaussian import LinearGaussian

HEADS = (
    heads.Variational(LinearGaussian(8, (1, 5))),
    heads.VariationalNormal(8, (1, 5)),
    heads.VariationalStudentT(8, (1, 5)),
    heads.DrawnWeights(LinearGaussian(8, (1, 5)), 4),
    heads.GaussianProcessStudentT(8, (1, 5), inducing=6),
)


def main() -> None:
    hidden, x = torch.randn(5, 8), torch.randn(5, 2)
    for head in HEADS:
        whole = not isinstance(head, heads.GaussianProcessStudentT)  # GPyTorch breaks the graph
        for training in (True, False):
            head.train(training)

            def score(state, head=head):
                return head(state).log_prob(x), *head.parameters_of(state)

            results = []
            for function in (score, torch.compile(score, backend="eager", fullgraph=whole)):
                torch.manual_seed(0)
                results.append(function(hidden))
            torch.testing.assert_close(*results)
    head = heads.DrawnWeights(LinearGaussian(8, (1, 5)), 4)
    inputs, mask = torch.randn(5, 6, 4), torch.rand(5, 6) < 0.8
    for inner in (models.Transformer(4, width=8, depth=1, heads=2), models.Recurrent(4, width=8)):
        encoder = DistanceAware(inner, features=8).eval()

        def far(inputs, mask, encoder=encoder):
            return head.parameters_of(encoder(inputs, mask)[:, -1])

        compiled = torch.compile(far, backend="eager", fullgraph=True)
        torch.testing.assert_close(far(inputs, mask), compiled(inputs, mask))


if __name__ == "__main__":
    main()
