"""The Gaussian over snapshots of weights is what its definition says; forecasters of its draws are mixtures."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector

from qtorch import Forecaster, heads
from qtorch.deploy import load, save
from qtorch.training import Schedule, Swag
from qtorch.training.swag import Snapshots
from tests.training.runs import SPEC, Across, small_data, small_model, small_panel

SETTINGS = {"snapshots": 5, "every": 2, "rank": 3, "accelerator": "cpu"}


def test_moments_are_those_of_the_snapshots():
    vectors = 100 + torch.randn(7, 4)
    kept = Snapshots(3)
    for vector in vectors:
        kept.add(vector)
    exact = vectors.double()
    torch.testing.assert_close(kept.mean, exact.mean(0))
    torch.testing.assert_close(kept.square - kept.mean**2, exact.var(0, correction=0), rtol=1e-8, atol=1e-8)
    expected = [exact[i] - exact[: i + 1].mean(0) for i in (4, 5, 6)]
    torch.testing.assert_close(torch.stack(kept.deviations), torch.stack(expected))
    mean, variance, deviations = kept.moments()
    torch.testing.assert_close(mean, exact.mean(0))
    torch.testing.assert_close(variance, exact.var(0, correction=0), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(deviations, torch.stack(expected, 1))


def test_draws_have_the_mean_and_covariance_of_the_definition():
    """To 5 standard errors of 20,000 draws."""
    P, R, count = 4, 3, 20_000
    generator = torch.Generator().manual_seed(0)
    mean, variance, deviations = (
        torch.rand(*shape, generator=generator, dtype=torch.float64) for shape in ((P,), (P,), (P, R))
    )
    draws = Swag(small_model(), mean, variance, deviations).draws(count, seed=1)
    expected = 0.5 * variance.diag() + deviations @ deviations.T / (2 * (R - 1))
    scale = expected.diag()
    assert ((draws.mean(0) - mean).abs() < 5 * (scale / count).sqrt()).all()
    error = ((scale[:, None] * scale + expected**2) / count).sqrt()
    assert ((torch.cov(draws.T) - expected).abs() < 5 * error).all()


@pytest.mark.parametrize("layout", ["asset", "panel"])
def test_a_forecaster_of_draws_is_repeatable_and_saved(layout, tmp_path, monkeypatch):
    panel, seen, add = small_panel(), [], Snapshots.add
    monkeypatch.setattr(
        Snapshots, "add", lambda kept, vector: (seen.append(vector.detach().clone()), add(kept, vector))
    )
    model = small_model(0, None, Across(len(SPEC.features)) if layout == "panel" else None)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    swag = Swag.of(model, small_data(panel, layout), **SETTINGS)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert len(seen) == 5
    assert swag.deviations.shape == (len(swag.mean), 3)
    torch.testing.assert_close(swag.mean, torch.stack(seen).double().mean(0))
    torch.testing.assert_close(swag.variance, torch.stack(seen).double().var(0, correction=0), rtol=1e-6, atol=1e-12)

    again = Swag.fit(model, small_data(panel, layout), draws=3, **SETTINGS)
    sure = swag.forecaster(draws=3)
    members = zip(*(part.parameters() for part in (model.network, nn.ModuleList(sure.network.children()))), strict=True)
    assert all(stacked.shape == (3, *one.shape) for one, stacked in members)
    vectors = [
        torch.cat([parameters_to_vector(part.member(k).parameters()) for part in sure.network.children()])
        for k in range(3)
    ]
    torch.testing.assert_close(torch.stack(vectors), swag.draws(3).float())

    save(sure, tmp_path)
    loaded, _ = load(tmp_path, allow=("tests",))
    one, other = (m.forecast(panel, panel.dates[-1:]) for m in (sure, loaded))
    assert torch.equal(one.value_at_risk(0.99).nan_to_num(), other.value_at_risk(0.99).nan_to_num())
    assert (one.decompose().epistemic > 0)[one.mask[:, None].expand(1, 2, 4)].all()
    fresh = again.forecast(panel, panel.dates[-1:])
    assert torch.equal(one.value_at_risk(0.99).nan_to_num(), fresh.value_at_risk(0.99).nan_to_num())


def test_the_rate_is_constant():
    rate = Schedule(1e-3, warm_up=0.0, final=1.0)
    assert {rate.factor(step, 100) for step in range(101)} == {1.0}


def test_what_can_not_be_drawn_is_refused():
    class Normed(Across):
        def __init__(self, in_features):
            super().__init__(in_features)
            self.norm = nn.BatchNorm1d(8)

    data = small_data(small_panel(), "panel")
    with pytest.raises(ValueError, match=r"buffers norm\.num_batches_tracked"):
        Swag.fit(small_model(encoder=Normed(len(SPEC.features))), data, **SETTINGS)
    joint = heads.JointHead(heads.SkewedStudentT(8, SPEC.horizons), heads.CopulaHead(8, 2))
    with pytest.raises(TypeError, match="a JointHead is none"):
        Swag.fit(Forecaster(Across(len(SPEC.features)), joint, SPEC), data, **SETTINGS)
    with pytest.raises(ValueError, match="at most the snapshots, 2"):
        Swag.fit(small_model(encoder=Across(len(SPEC.features))), data, snapshots=2, rank=3)
    with pytest.raises(ValueError, match="number of draws"):
        Swag.fit(small_model(encoder=Across(len(SPEC.features))), data, draws=0)
