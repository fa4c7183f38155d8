"""Every encoder of the library in one Forecaster: trained, forecast, compiled and exported."""

import subprocess
import sys

import pytest
import torch

from qtorch import Forecaster, heads, models
from qtorch.training import fit
from tests.training.runs import SPEC, small_data, small_model, small_panel

F, C = len(SPEC.features), SPEC.context
ENCODERS = {
    "temporal": lambda: models.TemporalTransformer(F, width=8, depth=1, heads=2),
    "recurrent": lambda: models.Recurrent(F, width=8),
    "patch": lambda: models.PatchTransformer(F, context=C, width=8, depth=1, heads=2, patch=4, stride=2),
    "inverted_asset": lambda: models.InvertedTransformer(F, context=C, layout="asset", width=8, depth=1, heads=2),
    "inverted_panel": lambda: models.InvertedTransformer(F, context=C, width=8, depth=1, heads=2),
    "panel": lambda: models.PanelTransformer(F, width=8, depth=1, heads=2),
    "inducing": lambda: models.PanelTransformer(F, width=8, depth=1, heads=2, inducing=2),
}


@pytest.fixture(scope="module")
def panel():
    return small_panel()


@pytest.mark.parametrize("name", ENCODERS)
def test_every_encoder_trains_and_forecasts(panel, name):
    model = small_model(encoder=ENCODERS[name]())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    data = small_data(panel, model.network.layout, every_position=model.network.causal, batches_per_epoch=2)
    fit(model, data, max_epochs=1, accelerator="cpu")
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())
    forecast = model.forecast(panel, ["2019-07-03", "2019-07-04"])
    assert forecast.mask.all()
    var = forecast.value_at_risk(0.99)
    closed = [panel.assets.index(asset) for asset in ("AAA", "BBB")]
    assert torch.equal(var[0][:, closed], var[1][:, closed])
    assert not torch.equal(var[0], var[1])


@pytest.mark.parametrize("name", ["temporal", pytest.param("panel", marks=pytest.mark.slow)])
def test_a_network_exports_with_a_dynamic_batch(panel, name):
    network = small_model(encoder=ENCODERS[name]()).eval().network
    shape = (3, C, F) if network.layout == "asset" else (3, C, 4, F)
    inputs = torch.randn(shape)
    mask = torch.rand(shape[:-1]) < 0.9
    exported = torch.export.export(network, (inputs, mask), dynamic_shapes=({0: torch.export.Dim("batch", min=2)},) * 2)
    more = torch.cat([inputs, inputs]), torch.cat([mask, mask])
    for a, b in zip(exported.module()(*more), network(*more), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.slow
def test_compiled_networks_do_and_learn_the_same():
    """See `tests/training/compiled.py`."""
    end = subprocess.run([sys.executable, "-m", "tests.training.compiled"], timeout=600, capture_output=True, text=True)
    assert end.returncode == 0, end.stderr


def test_an_encoder_of_another_context_is_refused():
    encoder = models.PatchTransformer(F, context=16, width=8, heads=2)
    with pytest.raises(ValueError, match="encoder's context are 16, but the windows have 8"):
        Forecaster(encoder, heads.SkewedStudentT(encoder.out_features, SPEC.horizons), SPEC)
