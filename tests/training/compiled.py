"""Compiled networks, in a process of its own: run-time checks of annotations can't be compiled."""

import torch
from torch import nn

from qtorch import models
from qtorch.data import DataModule, WindowSource
from qtorch.training import fit
from tests.training.runs import SPEC, small_data, small_model, small_panel


def encoders() -> dict[str, nn.Module]:
    """Without dropout and noise, which draw other numbers in compiled code."""
    torch.manual_seed(0)
    quiet = {"dropout": 0.0, "input_noise": 0.0}
    return {
        "transformer": models.Transformer(len(SPEC.features), width=8, depth=1, heads=2, **quiet),
        "recurrent": models.Recurrent(len(SPEC.features), **quiet),
    }


def whole(name: str) -> None:
    """A network compiles without a break, under autocast too, and its head computes in float32."""
    network = small_model(encoder=encoders()[name]).eval().network
    inputs, mask = torch.randn(3, SPEC.context, len(SPEC.features)), torch.rand(3, SPEC.context) < 0.9
    for mixed in (False, True):
        torch.compiler.reset()
        compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            for a, b in zip(compiled(inputs, mask), network(inputs, mask), strict=True):
                torch.testing.assert_close(a, b)
                assert a.dtype == torch.float32


def trained(name: str) -> None:
    """A compiled network trains as one that is not."""
    panel = small_panel()
    losses, made = [], []
    for compile in (False, True):
        torch.compiler.reset()
        model = small_model(encoder=encoders()[name])
        losses.append(fit(model, small_data(panel), max_epochs=2, seed=5, compile=compile, accelerator="cpu"))
        made.append(model)
    plain, compiled = made
    assert compiled.state_dict().keys() == plain.state_dict().keys()
    assert abs(losses[0] - losses[1]) < 1e-3, losses
    a, b = (model.forecast(panel, panel.dates[-20:]).value_at_risk(0.99) for model in made)
    torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-4)


def default() -> None:
    """The default forecaster's network compiles whole, says what it does uncompiled, and trains in compiled form."""
    torch.compiler.reset()
    panel = small_panel()
    model = models.default_forecaster(panel, horizons=(1, 3))
    nn.init.normal_(model.network.head.project.weight, std=0.3)
    source = WindowSource(panel, model.spec)
    data = DataModule(panel, source=source, validation_start=None, batches_per_epoch=2, batch_size=8)
    window = next(iter(data.train_dataloader()))
    encoder = model.network.eval().encoder
    hidden = torch.compile(encoder, fullgraph=True)(window.inputs, window.mask)
    torch.testing.assert_close(hidden, encoder(window.inputs, window.mask), rtol=0, atol=1e-6)
    law = model(window)
    model.network.compile(fullgraph=True)
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    compiled = model(window)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > before
    p = torch.tensor(0.01)
    torch.testing.assert_close(compiled.icdf(p), law.icdf(p), rtol=0, atol=1e-6)
    before = [parameter.clone() for parameter in model.parameters()]
    fit(model, data, max_epochs=1, seed=5, compile=True, accelerator="cpu")
    assert not any(map(torch.equal, model.parameters(), before))


if __name__ == "__main__":
    for encoder in encoders():
        whole(encoder)
        trained(encoder)
    default()
