"""Stochastic-gradient Monte Carlo of the last layer draws from the known posterior of the linear-Gaussian model."""

from dataclasses import replace

import pytest
import torch

from qtorch.deploy import load, save
from qtorch.training import SGHMC, SGLD, sample_last_layer
from qtorch.training.last_layer import LastLayer
from qtorch.training.last_layer_sampling import drift, sampled
from tests.heads.linear_gaussian import LinearGaussian, exact_posterior, regression
from tests.training.runs import SPEC, Across, small_data, small_model, small_panel


@pytest.mark.parametrize("method", [SGLD(0.15, preconditioner=None), SGLD(0.15), SGHMC(0.03, 0.2)])
def test_draws_have_the_posteriors_mean_and_variance(method):
    """Many chains at once, each of a horizon of its own: their spread tells the Monte Carlo error."""
    chains = 200
    hidden, outcome, weight = regression(60, horizons=(1,))
    mean, covariance = exact_posterior(hidden, outcome, weight, (1,), 0.8)
    head = LinearGaussian(3, (1,) * chains).double()
    data = LastLayer(hidden, outcome.expand(-1, chains), weight.expand(-1, chains))
    settings = {"prior_scale": 0.8, "batch_size": 60, "seed": 1}

    # The unit of a step is one over the observations of all chains together, but for a preconditioned one.
    scaled = replace(method, step=method.step * (chains if method.preconditioner is None else 1))
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


def unequal(chains, count=150):
    """Hidden states most of whose variance is common to all, of sizes from 1 to 80, at their most probable map."""
    hidden, outcome, weight = regression(count, width=6, horizons=(1,))
    common = torch.randn(count, 1, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    hidden = (hidden + 3 * common) * torch.tensor([0.05, 0.2, 0.5, 1.0, 2.0, 4.0], dtype=torch.float64)
    mean, covariance = exact_posterior(hidden, outcome, weight, (1,), 1.0)
    head = LinearGaussian(6, (1,) * chains).double()
    with torch.no_grad():
        head.project.weight.copy_(mean[:, :-1].expand(chains, -1))
        head.project.bias.copy_(mean[:, -1].expand(chains))
    return head, LastLayer(hidden, outcome.expand(-1, chains), weight.expand(-1, chains)), covariance[0]


@pytest.mark.parametrize("method", [SGLD(), SGHMC()])
def test_draws_mix_where_hidden_states_are_unequal_and_correlated(method):
    """Of chains that all start at the mode: the variance is the exact posterior's, in all directions and in sum."""
    head, data, covariance = unequal(chains=100)
    settings = {"prior_scale": 1.0, "batch_size": 1024, "seed": 0}
    draws = sampled(head, data, method, burn_in=60, thin=20, draws=12, **settings).flatten(0, 2)
    found = draws.mT.cov()
    assert found.trace().item() == pytest.approx(covariance.trace().item(), rel=0.15)
    _, axes = torch.linalg.eigh(covariance)
    ratio = (axes.mT @ found @ axes).diag() / (axes.mT @ covariance @ axes).diag()
    torch.testing.assert_close(ratio, torch.ones_like(ratio), rtol=0.15, atol=0)


def test_draws_that_have_not_mixed_are_told():
    head, data, _ = unequal(chains=5)
    settings = {"prior_scale": 1.0, "batch_size": 1024, "seed": 0}
    with pytest.warns(RuntimeWarning, match="has not mixed"):
        sampled(head, data, SGLD(0.001, preconditioner=None), burn_in=50, thin=5, draws=32, **settings)
    independent = torch.randn(400, 32, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drifts = torch.tensor([drift(one) for one in independent])
    assert drifts.mean() == pytest.approx(1.0, abs=0.15)
    assert drifts.max() < 9
