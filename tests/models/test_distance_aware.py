"""Distance-aware encoders: bounded maps, and a variance that rises away from the training data."""

import copy

import pytest
import torch
from torch import nn

from qtorch import Forecaster, heads
from qtorch.deploy import load, save
from qtorch.distributions import decompose
from qtorch.models import Recurrent
from qtorch.models.distance_aware import DistanceAware
from qtorch.training import Laplace, fit
from qtorch.training.last_layer import LastLayer
from tests.heads.linear_gaussian import LinearGaussian
from tests.training.runs import SPEC, Across, small_data, small_model, small_panel


class Points(nn.Module):
    """The inputs themselves."""

    out_features = 1

    def forward(self, inputs, mask):
        return inputs


def test_epistemic_variance_rises_with_distance_up_to_the_priors():
    encoder = DistanceAware(Points(), features=512)

    def features_of(x):
        inputs = x.reshape(1, -1, 1)
        return encoder(inputs, torch.ones(inputs.shape[:2], dtype=torch.bool))[0]

    x = torch.linspace(-1, 1, 200)
    ones = torch.ones(200, 1)
    head = LinearGaussian(512, (1,))
    posterior = Laplace.of(head, LastLayer(features_of(x), torch.zeros(200, 1), ones), "full", 1.0)
    drawn = heads.DrawnWeights(head, 512)
    generator = torch.Generator().manual_seed(0)
    drawn.offsets.copy_(posterior.moved(torch.randn(512, 1, 513, generator=generator, dtype=torch.float64)))
    for side in (-1.0, 1.0):
        variance = decompose(drawn(features_of(side * torch.tensor([0.0, 1.5, 2.5, 3.5])))).epistemic[:, 0]
        assert (variance.diff() > 0).all()
        assert variance[0] < 0.1
        assert variance[-1] > 0.7


@pytest.mark.parametrize("layout", ["asset", "panel"])
def test_it_trains_with_bounded_maps_and_is_saved(layout, tmp_path):
    panel = small_panel()
    inner = Across(len(SPEC.features)) if layout == "panel" else small_model().network.encoder
    encoder = DistanceAware(inner, features=16, bound=0.5)
    model = Forecaster(encoder, heads.SkewedStudentT(16, SPEC.horizons), SPEC)
    data = small_data(panel, layout, batches_per_epoch=1, batch_size=64)
    fit(model, data, max_epochs=1, accelerator="cpu")
    bounded = encoder.bounded()
    linears = [f"{name}.weight" for name, part in encoder.encoder.named_modules() if isinstance(part, nn.Linear)]
    assert linears
    assert set(linears) <= bounded.keys()
    assert all(torch.linalg.matrix_norm(weight, ord=2) <= 0.5 + 1e-5 for weight in bounded.values())
    sure = Laplace.fit(model, data, draws=8)
    save(sure, tmp_path)
    again, _ = load(tmp_path, allow=("tests",))
    one, other = (m.forecast(panel, panel.dates[-3:]) for m in (sure, again))
    assert torch.equal(one.value_at_risk(0.99).nan_to_num(), other.value_at_risk(0.99).nan_to_num())
    assert (one.decompose().epistemic > 0)[one.mask[:, None].expand(3, 2, 4)].all()


class Plain(nn.Module):
    """torch's own GRU."""

    out_features = 4

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(3, 4, 2, batch_first=True)

    def forward(self, inputs, mask):
        return self.gru(inputs)[0]


@pytest.mark.parametrize("inner", [Recurrent(3, 4, 2), Recurrent(3, 4, cell="lstm"), Plain()])
def test_recurrent_matrices_are_bounded_in_a_copy(inner):
    """It gives what an encoder gives whose matrices were shrunk by hand, and leaves the caller's alone."""
    for parameter in inner.parameters():
        nn.init.normal_(parameter)
    before = copy.deepcopy(inner.state_dict())
    encoder = DistanceAware(inner, features=16, bound=0.5).eval()
    by_hand = copy.deepcopy(inner).eval()
    recurrent = 0
    with torch.no_grad():
        for name, weight in by_hand.named_parameters():
            if weight.ndim == 2:
                weight *= min(1.0, 0.5 / torch.linalg.svdvals(weight)[0].item())
                recurrent += "weight_hh" in name
                torch.testing.assert_close(encoder.bounded()[name], weight)
    assert recurrent
    inputs, mask = torch.randn(2, 5, 3), torch.ones(2, 5, dtype=torch.bool)
    inputs.requires_grad_()
    features = encoder(inputs, mask)
    expected = DistanceAware(by_hand, features=16, bound=None).eval()(inputs, mask)
    torch.testing.assert_close(features, expected)
    features.square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for n, p in encoder.named_parameters() if "weight_hh" in n)
    copied = copy.deepcopy(encoder.double())
    torch.testing.assert_close(copied(inputs.double(), mask).float(), features)
    assert all(torch.equal(value, before[name]) for name, value in inner.state_dict().items())
