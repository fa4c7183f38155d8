"""Compiles an ensemble of encoders and heads without a graph break, and holds it against eager mode.

A process of its own, because compiled code can't contain the run-time check of annotations that the test suite switches
on.

Usage: python -m tests.models.compiled_ensembles NAME
"""

import sys
import warnings

import torch

from qtorch import heads, models
from qtorch.training import Network


def main() -> None:
    warnings.simplefilter("error", UserWarning)
    torch.manual_seed(0)
    inputs, mask = torch.randn(4, 12, 5), torch.rand(4, 12) < 0.8
    encoder = {
        "gru": lambda: models.Recurrent(5, width=8),
        "lstm": lambda: models.Recurrent(5, width=8, cell="lstm", depth=2),
        "transformer": lambda: models.Transformer(5, width=8, depth=1, heads=2, drop_weights=False),
        "dropout": lambda: models.MonteCarloDropout(models.Recurrent(5, width=8), 3),
        "rank one": lambda: models.BatchEnsemble(models.Transformer(5, width=8, depth=1, heads=2), 3),
    }[sys.argv[1]]()
    one = heads.SkewedStudentT(8, [1, 5])
    torch.nn.init.normal_(one.project.weight, std=0.3)
    if getattr(encoder, "draws", None):
        network = Network(encoder, heads.EachDraw(one))
    else:
        network = Network(models.EncoderEnsemble(encoder, 3), heads.Ensemble(one, 3))
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    sum(value.sum() for value in compiled(inputs, mask, True)).backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in network.parameters())
    network.eval()
    for one, other in zip(network(inputs, mask), compiled(inputs, mask), strict=True):
        torch.testing.assert_close(one, other)
    with torch.autocast("cpu", torch.bfloat16):
        assert all(value.dtype == torch.float32 for value in network(inputs, mask))


if __name__ == "__main__":
    main()
