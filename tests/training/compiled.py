"""Compiled networks, in a process of its own: run-time checks of annotations can't be compiled."""

import torch

from qtorch import models
from qtorch.training import fit
from tests.training.runs import SPEC, small_data, small_model, small_panel


def whole() -> None:
    """A network compiles without a break, under autocast too, and its head computes in float32."""
    network = small_model().eval().network
    inputs, mask = torch.randn(3, SPEC.context, len(SPEC.features)), torch.rand(3, SPEC.context) < 0.9
    for mixed in (False, True):
        torch.compiler.reset()
        compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            for a, b in zip(compiled(inputs, mask), network(inputs, mask), strict=True):
                torch.testing.assert_close(a, b)
                assert a.dtype == torch.float32


def trained() -> None:
    """A compiled network trains as one that is not: dropout draws other numbers, so that there is none here."""
    panel = small_panel()
    losses, made = [], []
    for compile in (False, True):
        torch.compiler.reset()
        torch.manual_seed(0)
        encoder = models.Transformer(len(SPEC.features), width=8, depth=1, heads=2, dropout=0.0, input_noise=0.0)
        model = small_model(encoder=encoder)
        losses.append(fit(model, small_data(panel), max_epochs=2, seed=5, compile=compile, accelerator="cpu"))
        made.append(model)
    plain, compiled = made
    assert compiled.state_dict().keys() == plain.state_dict().keys()
    assert abs(losses[0] - losses[1]) < 1e-3, losses
    a, b = (model.forecast(panel, panel.dates[-20:]).value_at_risk(0.99) for model in made)
    torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-4)


if __name__ == "__main__":
    whole()
    trained()
