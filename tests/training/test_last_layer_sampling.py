"""Stochastic-gradient Monte Carlo of the last layer draws from the known posterior of the linear-Gaussian model."""

from dataclasses import replace

import pytest
import torch

from qtorch.deploy import load, save
from qtorch.training import SGHMC, SGLD, sample_last_layer
from qtorch.training.last_layer import LastLayer
from qtorch.training.last_layer_sampling import sampled
from tests.heads.linear_gaussian import LinearGaussian, exact_posterior, regression
from tests.training.runs import SPEC, Across, small_data, small_model, small_panel


@pytest.mark.parametrize("method", [SGLD(0.15), SGLD(0.15, preconditioned=True), SGHMC(0.03, 0.2)])
def test_draws_have_the_posteriors_mean_and_variance(method):
    """Many chains at once, each of a horizon of its own: their spread tells the Monte Carlo error."""
    chains = 200
    hidden, outcome, weight = regression(60, horizons=(1,))
    mean, covariance = exact_posterior(hidden, outcome, weight, (1,), 0.8)
    head = LinearGaussian(3, (1,) * chains).double()
    data = LastLayer(hidden, outcome.expand(-1, chains), weight.expand(-1, chains))
    settings = {"prior_scale": 0.8, "batch_size": 60, "seed": 1}

    # The unit of a step is one over the observations of all chains together, but for a preconditioned one.
    scaled = replace(method, step=method.step * (1 if method.preconditioned else chains))
    draws = sampled(head, data, scaled, burn_in=150, thin=10, draws=20, **settings).squeeze(2)
    each = draws.mean(0)
    error = each.std(0) / chains**0.5
    assert ((each.mean(0) - mean[0]).abs() < 4.5 * error).all()
    spread = (draws - mean[0]).square()
    error = spread.mean(0).std(0) / chains**0.5
    assert ((spread.mean((0, 1)) - covariance[0].diag()).abs() < 4.5 * error + 0.06 * covariance[0].diag()).all()


@pytest.mark.parametrize("layout", ["asset", "panel"])
def test_a_sampled_forecaster_is_saved(layout, tmp_path):
    panel = small_panel()
    model = small_model(0, None, Across(len(SPEC.features)) if layout == "panel" else None)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    settings = {"batch_size": 32, "burn_in": 3, "thin": 2, "draws": 5}
    sure = sample_last_layer(model, small_data(panel, layout, batch_size=64), SGLD(decay=0.6), **settings)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    save(sure, tmp_path)
    again, _ = load(tmp_path, allow=("tests",))
    one, other = (m.forecast(panel, panel.dates[-3:]) for m in (sure, again))
    assert torch.equal(one.value_at_risk(0.99).nan_to_num(), other.value_at_risk(0.99).nan_to_num())
    assert (one.decompose().epistemic > 0)[one.mask[:, None].expand(3, 2, 4)].all()


def test_a_chain_that_diverges_is_refused():
    hidden, outcome, weight = regression(60)
    data, settings = LastLayer(hidden, outcome, weight), {"prior_scale": 1.0, "batch_size": 60, "seed": 0}
    with pytest.raises(FloatingPointError, match="smaller step"):
        sampled(LinearGaussian(3, (1, 3)), data, SGLD(1e4), burn_in=0, thin=400, draws=1, **settings)
    with pytest.raises(ValueError, match="thin"):
        sampled(LinearGaussian(3, (1, 3)), data, SGLD(), burn_in=0, thin=0, draws=1, **settings)
