"""Laplace's approximation of the last layer: exact where the posterior is Gaussian."""

import pytest
import torch
from torch import nn

from qtorch import Forecaster, heads
from qtorch.deploy import load, save
from qtorch.distributions import StudentT
from qtorch.heads.fisher import fisher
from qtorch.training import Laplace
from qtorch.training.last_layer import LastLayer, affine_map
from tests.heads.linear_gaussian import LinearGaussian, exact_posterior, regression, with_one
from tests.training.runs import SPEC, Across, small_data, small_model, small_panel


def fitted(prior_scale=0.8, count=60, horizons=(1, 3)):
    """A linear-Gaussian head at its most probable weights, its data, and the exact posterior's moments."""
    hidden, outcome, weight = regression(count, horizons=horizons)
    mean, covariance = exact_posterior(hidden, outcome, weight, horizons, prior_scale)
    head = LinearGaussian(3, horizons).double()
    with torch.no_grad():
        head.project.weight.copy_(mean[:, :-1])
        head.project.bias.copy_(mean[:, -1])
    return head, LastLayer(hidden, torch.where(weight > 0, outcome, torch.nan), weight), mean, covariance


def covariance_of(posterior):
    H, P = posterior.curvature.shape
    moved = posterior.moved(torch.eye(H * P, dtype=torch.float64).unflatten(-1, (H, P))).flatten(1)
    return moved.mT @ moved


@pytest.mark.parametrize("structure", ["full", "kronecker", "diagonal"])
def test_it_is_exact_in_the_linear_gaussian_model(structure):
    head, data, mean, covariance = fitted()
    posterior = Laplace.of(head, data, structure, 0.8)
    torch.testing.assert_close(posterior.weights.squeeze(1), mean, rtol=1e-12, atol=0)
    if structure == "diagonal":
        covariance = torch.stack([torch.diag(1 / c.inverse().diag()) for c in covariance])
    torch.testing.assert_close(covariance_of(posterior), torch.block_diag(*covariance), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("ours", "theirs"), [("full", "full"), ("kronecker", "kron")])
def test_it_is_that_of_laplace_torch(ours, theirs):
    """On the same weights, not at their most probable; theirs keep a bias apart in a Kronecker product, so it is given
    as an input of ones."""
    peer = pytest.importorskip("laplace")
    hidden, outcome, _ = regression(60, horizons=(1,))
    head = LinearGaussian(3, (1,)).double()
    nn.init.normal_(head.project.weight, generator=torch.Generator().manual_seed(1))
    posterior = Laplace.of(head, LastLayer(hidden, outcome, torch.ones_like(outcome)), ours, 0.8)
    network = nn.Sequential(nn.Identity(), nn.Linear(4, 1, bias=False)).double()
    network[1].weight.data.copy_(affine_map(head)[0])
    rows = torch.utils.data.TensorDataset(with_one(hidden), outcome)
    fit_of_theirs = peer.Laplace(
        network, "regression", "last_layer", theirs, sigma_noise=1.0, prior_precision=0.8**-2, last_layer_name="1"
    )
    fit_of_theirs.fit(torch.utils.data.DataLoader(rows, batch_size=20))
    covariance = (
        fit_of_theirs.posterior_covariance
        if theirs == "full"
        else fit_of_theirs.posterior_precision.to_matrix(exponent=-1)
    )
    torch.testing.assert_close(covariance_of(posterior), covariance.double(), rtol=1e-5, atol=1e-8)
    evidence = float(fit_of_theirs.log_marginal_likelihood())
    assert posterior.log_marginal_likelihood == pytest.approx(evidence, rel=1e-5)


def test_the_marginal_likelihood_is_the_exact_one_and_chooses_the_prior():
    """Against the Normal law of all outcomes together; of one horizon, where weights are 1 or 0."""
    evidence = {}
    for scale in (0.3, 0.8, 2.0):
        head, data, _, _ = fitted(scale, horizons=(1,))
        seen = data.weight[:, 0] > 0
        x = with_one(data.hidden[seen])
        whole = torch.distributions.MultivariateNormal(
            torch.zeros(len(x), dtype=torch.float64), scale**2 * x @ x.mT + torch.eye(len(x), dtype=torch.float64)
        )
        evidence[scale] = Laplace.of(head, data, "full", scale).log_marginal_likelihood
        assert evidence[scale] == pytest.approx(float(whole.log_prob(data.outcome[seen, 0])), rel=1e-9)
    chosen = Laplace.of(head, data, "full")
    for factor in (0.9, 1.1):
        other = Laplace.of(head, data, "full", chosen.prior_scale * factor)
        assert other.log_marginal_likelihood < chosen.log_marginal_likelihood
    head.project.requires_grad_(False).weight.zero_()
    head.project.bias.zero_()
    assert Laplace.of(head, data, "full").prior_scale == 1e-6


def test_information_is_that_of_closed_forms():
    """A normal law's, 1 / s^2; and Student's t's, about df, location and log scale at its raw numbers."""
    head = LinearGaussian(3, (1, 3))
    raw = torch.randn(4, 2, 1, dtype=torch.float64)
    expected = torch.tensor([1.0, 1 / 3], dtype=torch.float64).expand(4, 2)
    torch.testing.assert_close(fisher(head, raw)[..., 0, 0], expected, rtol=1e-6, atol=0)

    class LocationOfStudentT(heads.Parametric):
        def constrain(self, raw):
            return raw[..., 0], torch.exp(raw[..., 1])

        def distribution(self, *parameters):
            return StudentT(torch.tensor(5.0, dtype=torch.float64), *parameters)

    raw = torch.randn(4, 1, 2, dtype=torch.float64)
    information = fisher(LocationOfStudentT(3, (1,), size=2), raw)
    nu = 5.0
    of_location = (nu + 1) / (nu + 3) / torch.exp(2 * raw[..., 1])
    torch.testing.assert_close(information[..., 0, 0], of_location, rtol=1e-3, atol=0)
    of_scale = torch.full((4, 1), 2 * nu / (nu + 3), dtype=torch.float64)
    torch.testing.assert_close(information[..., 1, 1], of_scale, rtol=1e-3, atol=0)
    assert (torch.linalg.eigvalsh(information) > 0).all()


@pytest.mark.parametrize(("structure", "layout"), [("full", "asset"), ("kronecker", "panel")])
def test_a_fitted_forecaster_knows_how_sure_it_is(structure, layout, tmp_path):
    panel = small_panel()
    model = small_model(0, None, Across(len(SPEC.features)) if layout == "panel" else None)
    data = small_data(panel, layout, batch_size=64)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    settings = {"structure": structure, "draws": 8, "by_date": structure == "full"}
    sure, same, other = (Laplace.fit(model, data, seed=seed, **settings) for seed in (0, 0, 1))
    offsets = [each.network.head.offsets for each in (sure, same, other)]
    assert torch.equal(offsets[0], offsets[1])
    assert not torch.equal(offsets[0], offsets[2])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    save(sure, tmp_path)
    again, _ = load(tmp_path, allow=("tests",))
    one, other = (m.forecast(panel, panel.dates[-3:]) for m in (sure, again))
    assert torch.equal(one.value_at_risk(0.99).nan_to_num(), other.value_at_risk(0.99).nan_to_num())
    assert (one.decompose().epistemic > 0)[one.mask[:, None].expand(3, 2, 4)].all()


def test_targets_count_once_and_masked_ones_not():
    panel, dates = small_panel(), []
    for layout in ("asset", "panel"):
        model = small_model(0, None, Across(len(SPEC.features)) if layout == "panel" else None)
        data = small_data(panel, layout, every_position=False)
        seen = LastLayer.of(model, data)
        assert seen.observations == pytest.approx(data.observations(), rel=1e-6)
        assert (seen.weight.sum(-1) > 0).all()
        dates.append(seen.date[seen.weight[:, 0] > 0])
    returns = panel.returns()
    assert torch.equal(dates[0].bincount(), dates[1].bincount())
    assert returns[dates[0].unique()].isfinite().any(1).all()


def test_what_has_no_affine_map_is_refused():
    model = small_model()
    data = small_data(small_panel())
    drawn = Forecaster(model.network.encoder, heads.DrawnWeights(model.network.head, 2), SPEC)
    with pytest.raises(ValueError, match="a DrawnWeights has none"):
        Laplace.fit(drawn, data)
    with pytest.raises(ValueError, match="even number"):
        Laplace.fit(model, data, draws=3)
    with pytest.raises(ValueError, match="positive number"):
        Laplace.fit(model, data, prior_scale=-1.0)


@pytest.mark.parametrize("correlation", [0.0, 0.4])
def test_by_date_a_pooled_means_deviation_is_the_estimates(correlation):
    """Of 10 assets whose returns have a common part, over sessions of one and, overlapping, of three."""
    assets, dates, horizons = 10, 5000, (1, 3)
    generator = torch.Generator().manual_seed(3)
    common, own = (torch.randn(n, dates + 2, generator=generator, dtype=torch.float64) for n in (1, assets))
    returns = correlation**0.5 * common + (1 - correlation) ** 0.5 * own
    sums = returns.unfold(-1, 3, 1)
    outcome = torch.stack((sums[..., 0], sums.sum(-1)), -1).flatten(0, 1)
    weight = torch.tensor([1.0, 1 / 3], dtype=torch.float64).expand_as(outcome)
    head = LinearGaussian(1, horizons).double()
    with torch.no_grad():
        head.project.weight.zero_()
        head.project.bias.copy_(outcome.mean(0))
    date = torch.arange(dates).repeat(assets)
    data = LastLayer(torch.zeros(len(outcome), 1, dtype=torch.float64), outcome, weight, date)

    def deviations(by_date):
        return covariance_of(Laplace.of(head, data, "full", 10.0, by_date=by_date)).diag()[[1, 3]].sqrt()

    exact = torch.tensor(horizons) * ((1 + (assets - 1) * correlation) / (assets * dates)) ** 0.5
    torch.testing.assert_close(deviations(True), exact.double(), rtol=0.1, atol=0)
    narrow = deviations(False) / exact
    assert narrow[0] == pytest.approx(1.0 if correlation == 0 else 1 / 2.145, rel=0.01)


def test_by_date_asks_for_dates_and_the_whole_curvature():
    head, data, _, _ = fitted()
    with pytest.raises(ValueError, match="dates of targets are not known"):
        Laplace.of(head, data, "full", 0.8, by_date=True)
    with pytest.raises(ValueError, match='"full" with by_date'):
        Laplace.of(head, data, "diagonal", 0.8, by_date=True)
