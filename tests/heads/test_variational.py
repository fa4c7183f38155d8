"""Variational last layers: the bound is exact, its weights are right, and masks count for nothing."""

import os
import subprocess
import sys

import lightning
import pytest
import torch
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from qtorch import Forecaster, heads
from qtorch.data import DataModule, WindowSpec
from qtorch.deploy import load, save
from qtorch.distributions import StudentT, decompose
from qtorch.heads.gaussian_weights import GaussianWeights, antithetic
from qtorch.heads.noise import NormalNoise
from qtorch.nn import build, describe
from qtorch.training import LogScore, fit
from qtorch.training.optimisation import parameter_groups
from tests.heads.linear_gaussian import LinearGaussian, exact_posterior, regression, with_one
from tests.training.runs import SPEC, Across, small_data, small_model, small_panel


def random_weights(covariance, prior_scale=0.7, groups=2, size=5):
    weights = GaussianWeights(groups, size, covariance, prior_scale).double()
    for parameter in weights.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return weights


def with_head(head, encoder=None, **options):
    model = small_model(0, LogScore(), encoder)
    return Forecaster(model.network.encoder, head(model.network.encoder.out_features, SPEC.horizons), SPEC, **options)


def variational(width, horizons, **options):
    return heads.Variational(heads.SkewedStudentT(width, horizons), **options)


KINDS = [variational, heads.VariationalNormal, heads.VariationalStudentT]
GAUSSIAN_PROCESSES = [heads.GaussianProcessNormal, heads.GaussianProcessStudentT]
every_kind = pytest.mark.parametrize("kind", [*KINDS, heads.GaussianProcessStudentT])
in_layouts = pytest.mark.parametrize(
    ("kind", "layout"),
    [
        (variational, "asset"),
        (heads.VariationalNormal, "asset"),
        (heads.VariationalStudentT, "panel"),
        (heads.GaussianProcessNormal, "panel"),
        (heads.GaussianProcessStudentT, "asset"),
    ],
)


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_the_divergence_is_that_of_torch(covariance):
    weights = random_weights(covariance)
    wide = 0.7 * torch.ones(2, 5, dtype=torch.float64)
    q = MultivariateNormal(weights.mean, scale_tril=weights.factor())
    prior = MultivariateNormal(torch.zeros_like(wide), scale_tril=torch.diag_embed(wide))
    torch.testing.assert_close(weights.penalty(), kl_divergence(q, prior).sum(), rtol=1e-12, atol=0)
    if covariance == "diagonal":
        q = Independent(Normal(weights.mean, weights.log_scale.exp()), 2)
        prior = Independent(Normal(torch.zeros_like(wide), wide), 2)
        torch.testing.assert_close(weights.penalty(), kl_divergence(q, prior), rtol=1e-12, atol=0)


def test_a_learned_prior_is_the_best_one():
    weights = random_weights("full", None)
    learned = weights.penalty()
    around = []
    for scale in torch.linspace(0.2, 2.0, 181).tolist():
        weights.prior_scale = scale
        around.append(weights.penalty())
    assert learned <= min(around)
    torch.testing.assert_close(learned, min(around), rtol=1e-3, atol=0)


@pytest.mark.parametrize("start", [0.01, 0.1, 1.0])
def test_a_learned_prior_has_no_preference_among_scales_of_a_posterior_that_is_the_prior(start):
    """So that data which say little leave it where it started."""
    weights = GaussianWeights(2, 5, "full", None, start).double()
    torch.testing.assert_close(weights.penalty(), torch.zeros((), dtype=torch.float64), rtol=0, atol=1e-6)


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_draws_have_the_posteriors_moments(covariance):
    weights = random_weights(covariance)
    noise = torch.eye(10, dtype=torch.float64).unflatten(-1, (2, 5))
    moved = (weights.draws(noise) - weights.mean).flatten(1)
    expected = torch.block_diag(*(weights.factor() @ weights.factor().mT))
    torch.testing.assert_close(moved.mT @ moved, expected)
    direction = torch.randn(4, 5, dtype=torch.float64)
    along = torch.einsum("np,gpq,nq->ng", direction, weights.factor() @ weights.factor().mT, direction)
    torch.testing.assert_close(weights.variance_along(direction), along)
    assert (antithetic(6, 2, 5).unflatten(0, (2, 3)).sum(0) == 0).all()


def test_the_data_term_is_unbiased():
    """Against the closed form of a Normal law with several outputs: log N(y; m, h) - v / (2 h), summed."""
    head = heads.Variational(LinearGaussian(3, (1, 3)), prior_scale=1.0)
    for parameter in head.weights.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model = Forecaster(torch.nn.Identity(), head, SPEC)
    hidden, outcome = torch.randn(20, 3), torch.randn(20, 2)
    losses = []
    for _ in range(200):
        with torch.no_grad():
            law = head(hidden)
        losses.append(-law.components.log_prob(outcome.unsqueeze(-1)).mean(-1).sum())
    assert law.components.batch_shape == (20, 2, heads.variational.TRAINING_DRAWS)
    x = with_one(hidden)
    mean, spread = x @ head.weights.mean.mT, head.weights.variance_along(x)
    h = torch.tensor([1.0, 3.0])
    expected = -(Normal(mean, h.sqrt()).log_prob(outcome) - spread / (2 * h)).sum()
    estimate = torch.stack(losses)
    assert (estimate.mean() - expected).abs() < 4 * estimate.std() / 200**0.5
    assert model.training


@pytest.mark.parametrize("layout", ["asset", "panel"])
@pytest.mark.parametrize("every_position", [True, False])
def test_observations_are_the_distinct_targets(layout, every_position):
    settings = {"every_position": every_position, "batches_per_epoch": None, "batch_size": 128}
    data = small_data(small_panel(), layout, **settings)
    number = data.source.panel.mask.long().cumsum(0)  # of each asset's own sessions
    seen = []
    for window in data.train_dataloader():
        mask = window.target_mask if every_position else window.target_mask.unsqueeze(1)
        b, position, horizon, *asset = mask.nonzero().unbind(-1)
        back = (SPEC.context - 1 if every_position else 0) - position
        if layout == "panel":
            seen.append(torch.stack((asset[0], window.row_index[b] - back, horizon), -1))
        else:
            of = window.asset_index[b]
            seen.append(torch.stack((of, number[window.row_index[b], of] - back, horizon), -1))
    different = torch.cat(seen).unique(dim=0)
    expected = (1 / torch.tensor(SPEC.horizons).double())[different[:, -1]].sum().item()
    assert data.observations() == pytest.approx(expected, rel=1e-12)


def test_observations_are_counted_where_windows_begin_before_an_asset():
    """A context longer than the warm-up: every session after that has its target counted once."""
    panel = small_panel()
    spec = WindowSpec(context=40, horizons=(1,))
    data = DataModule(panel, spec, validation_start=None, test_start="2019-08-15")
    source = data.source
    entries = torch.arange(len(source.table.asset) - spec.context + 1)
    there = entries[source.table.usable[entries + spec.context - 1]]
    known = source.gather(there, known_by=data.training.known_by).target_mask
    assert data.observations() == known.sum().item() > 1000


@in_layouts
def test_training_adds_the_divergence_over_the_observations(kind, layout):
    encoder = Across(len(SPEC.features)) if layout == "panel" else None
    data = small_data(small_panel(), layout, batches_per_epoch=1)
    model = with_head(kind, encoder)
    fit(model, data, max_epochs=1, averaging=None, accelerator="cpu")
    model.train()
    window = next(iter(data.train_dataloader()))
    model.log = lambda *_, **__: None
    torch.manual_seed(3)
    loss = model.training_step(window, 0)
    torch.manual_seed(3)
    expected = model.mean_loss(window) + model.network.head.penalty() / data.observations()
    torch.testing.assert_close(loss, expected)
    decayed, _ = parameter_groups(model)
    assert not {id(p) for p in decayed} & {id(p) for p in model.network.head.parameters()}


def test_without_a_number_of_observations_training_is_refused():
    model = with_head(variational).train()
    window = next(iter(small_data(small_panel()).train_dataloader()))
    model.log = lambda *_, **__: None
    with pytest.raises(ValueError, match="give Forecaster\\(observations"):
        model.training_step(window, 0)
    assert with_head(variational, observations=10.0).train()._penalty() > 0


@every_kind
def test_masked_targets_add_nothing(kind):
    model = with_head(kind, observations=100.0).train()
    model.log = lambda *_, **__: None
    data = small_data(small_panel())
    window = next(iter(data.train_dataloader()))
    hidden = window.target_mask.clone()
    hidden[::2] = False
    results = []
    for value in (0.0, torch.nan, torch.inf):
        model.zero_grad()
        target = torch.where(hidden, window.target, value)
        torch.manual_seed(0)
        changed = type(window)(**{**vars(window), "target": target, "target_mask": hidden})
        loss = model.training_step(changed, 0)
        loss.backward()
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        results.append(torch.cat([loss.reshape(1), *(g.flatten() for g in grads)]))
    assert results[0].isfinite().all()
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@in_layouts
def test_it_trains_forecasts_and_is_saved(kind, layout, tmp_path):
    panel = small_panel()
    encoder = Across(len(SPEC.features)) if layout == "panel" else None
    model = with_head(kind, encoder)
    fit(model, small_data(panel, layout, batches_per_epoch=2), max_epochs=1, accelerator="cpu", precision="bf16-mixed")
    save(model, tmp_path)
    again, _ = load(tmp_path, allow=("tests",))
    forecasts = [m.forecast(panel, panel.dates[-3:]) for m in (model, model, again)]
    var = [forecast.value_at_risk(0.99).nan_to_num() for forecast in forecasts]
    assert torch.equal(var[0], var[1])
    assert torch.equal(var[0], var[2])
    parts = forecasts[0].decompose()
    assert (parts.epistemic > 0)[forecasts[0].mask[:, None].expand(3, 2, 4)].all()
    low, high = forecasts[0].epistemic_interval(0.99)
    assert (low < high)[forecasts[0].mask[:, None].expand(3, 2, 4)].all()


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_described_by_its_arguments(kind):
    head = kind(8, (1, 10), covariance="diagonal", prior_scale=None, draws=6)
    again = build(describe(head))
    assert {name: value.shape for name, value in again.state_dict().items()} == {
        name: value.shape for name, value in head.state_dict().items()
    }
    assert again.prior_scale is None


@pytest.mark.slow
def test_it_compiles_whole():
    done = subprocess.run(
        [sys.executable, "-m", "tests.heads.compiled_posterior"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-4000:]


def test_epistemic_variance_falls_as_one_over_n():
    """A diagonal posterior of a Monte Carlo bound, trained by Adam on a regular model with more and more data."""
    sizes, spreads = [40, 2000], []
    for count in sizes:
        lightning.seed_everything(0, verbose=False)
        hidden, outcome = torch.randn(count, 3), torch.randn(count, 1)
        head = heads.Variational(LinearGaussian(3, (1,)), covariance="diagonal", prior_scale=3.0, draws=64)
        optimizer = torch.optim.Adam(head.parameters(), lr=0.15)
        rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 80)
        for _ in range(80):
            optimizer.zero_grad()
            law = head(hidden)
            loss = -law.components.log_prob(outcome.unsqueeze(-1)).mean(-1).sum() + head.penalty()
            (loss / count).backward()
            optimizer.step()
            rate.step()
        head.eval()
        spreads.append(decompose(head(torch.eye(3))).epistemic.mean().item())
    logs = torch.tensor(spreads).log()
    slope = (logs[-1] - logs[0]) / torch.log(torch.tensor(sizes[-1] / sizes[0]))
    assert abs(slope + 1) < 0.1


def closed_form(horizons=(1, 3), count=50):
    """A VariationalNormal in float64 with its noise held, and its data."""
    hidden, outcome, weight = regression(count, horizons=horizons)
    head = heads.VariationalNormal(3, horizons, prior_scale=0.8).double()
    head.project.requires_grad_(False)
    return head, hidden, outcome, weight


def bound(head, hidden, outcome, weight):
    """Minus the evidence bound, as training computes it: each draw scored, and the divergence added."""
    law = head.train()(hidden)
    each = (law.weights * law.components.log_prob(outcome.unsqueeze(-1))).sum(-1)
    return head.penalty() - (weight * each).sum()


def test_the_optimum_is_the_exact_posterior():
    head, hidden, outcome, weight = closed_form()
    trained = [parameter for parameter in head.parameters() if parameter.requires_grad]
    optimizer = torch.optim.LBFGS(
        trained, max_iter=300, tolerance_grad=1e-9, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        loss = bound(head, hidden, outcome, weight)
        loss.backward()
        return loss

    optimizer.step(closure)
    mean, covariance = exact_posterior(hidden, outcome, weight, (1, 3), 0.8)
    factor = head.location.factor().detach()
    torch.testing.assert_close(head.location.mean.detach(), mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(factor @ factor.mT, covariance, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [heads.VariationalNormal, heads.VariationalStudentT, *GAUSSIAN_PROCESSES])
def test_the_closed_forms_agree_with_monte_carlo_and_quadrature(kind):
    """Of several outputs; and a normal head's with log N(y; m, s^2) - v / (2 s^2)."""
    head = kind(3, (1, 3), prior_scale=0.8).double()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    head.location.log_scale.data -= 2.0
    hidden, outcome, _ = regression(6)
    law = head(hidden)
    expected = (law.weights * law.components.log_prob(outcome.unsqueeze(-1))).sum(-1)
    noise, (mean, variance) = head.noise_of(hidden), head.location.moments(hidden)
    quantiles = torch.special.ndtri((torch.arange(20_000).double() + 0.5) / 20_000)
    loc = mean.unsqueeze(-1) + variance.sqrt().unsqueeze(-1) * quantiles
    many = head.noise.around(loc, *(part.unsqueeze(-1) for part in noise)).log_prob(outcome.unsqueeze(-1)).mean(-1)
    torch.testing.assert_close(expected, many, rtol=0, atol=1e-3)
    forecast = head.eval()(hidden)
    torch.testing.assert_close(decompose(forecast).epistemic, variance, rtol=1e-5, atol=0)
    torch.testing.assert_close(forecast.mean, mean, rtol=1e-5, atol=1e-6)
    if kind is heads.VariationalNormal:
        torch.testing.assert_close(mean, with_one(hidden) @ head.location.mean.mT)
        torch.testing.assert_close(variance, head.location.variance_along(with_one(hidden)))
    if isinstance(head.noise, NormalNoise):
        closed = Normal(mean, noise[0]).log_prob(outcome) - variance / (2 * noise[0] ** 2)
        torch.testing.assert_close(expected, closed, rtol=1e-5, atol=1e-6)
        predictive = Normal(mean, (noise[0] ** 2 + variance).sqrt())
        torch.testing.assert_close(forecast.cdf(outcome), predictive.cdf(outcome), rtol=0, atol=2e-3)


@pytest.mark.parametrize(("df", "errors"), [(2.1, (1.3e-4, 9.5e-3)), (3.0, (3.5e-5, 5.2e-3)), (6.0, (1.6e-6, 1.1e-3))])
def test_the_training_nodes_are_as_near_as_stated(df, errors):
    """Against the trapezoidal rule, which is exact to rounding for a Gaussian's integrals."""
    (node, weight), outcome = heads.VariationalStudentT(3, (1,)).double().exact, torch.linspace(0, 8, 161).double()
    fine = torch.linspace(-10, 10, 4001).double()
    density = torch.exp(-fine.square() / 2)
    noise = StudentT(torch.tensor(df).double())
    for spread, error in zip((1.0, 2.0), errors, strict=True):
        ours, exact = (
            noise.log_prob(outcome.unsqueeze(-1) - spread * at) @ (mass / mass.sum())
            for at, mass in ((node, weight), (fine, density))
        )
        assert 0.8 * error < (ours - exact).abs().amax() < 1.03 * error


def test_the_forecast_nodes_are_as_near_as_stated():
    head, at = heads.VariationalNormal(3, (1,)), torch.linspace(-8, 8, 1601)
    for spread, error in ((1.0, 1.9e-3), (2.0, 3.9e-3)):
        mixture = Normal(spread * head.even[0], 1.0).cdf(at.unsqueeze(-1)).mean(-1)
        exact = Normal(0.0, (1 + spread**2) ** 0.5).cdf(at)
        assert 0.9 * error < (mixture - exact).abs().amax() < 1.03 * error


def test_the_data_term_is_that_of_vbll():
    """For one output, on the same weights; for several vbll weighs each variance by all precisions."""
    regression_layer = pytest.importorskip("vbll.layers.regression").Regression
    layer = regression_layer(3, 1, regularization_weight=0.0, parameterization="dense").double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    layer.noise_mean.data.zero_()
    head = heads.VariationalNormal(3, (1,)).double()
    head.location.log_scale.data.fill_(-40.0)  # vbll has no bias
    scale = layer.W_logdiag.detach().exp()
    head.location.mean.data[:, :3] = layer.W_mean.detach()
    head.location.log_scale.data[:, :3] = scale.log()
    head.location.below.data[:, :3, :3] = layer.W_offdiag.detach().tril(-1) / scale.unsqueeze(-1)
    level = layer.noise().scale.detach().log() / torch.log(torch.tensor(8.0, dtype=torch.float64))
    head.project.bias.data.copy_(torch.atanh(level) * torch.log(torch.tensor(8.0, dtype=torch.float64)))
    hidden, outcome, _ = regression(50, horizons=(1,))
    law = head(hidden)
    each = (law.weights * law.components.log_prob(outcome.unsqueeze(-1))).sum(-1)
    theirs = layer(hidden).train_loss_fn(outcome)
    torch.testing.assert_close(-each.mean(), theirs, rtol=1e-6, atol=0)
    predictive = layer(hidden).predictive
    torch.testing.assert_close(head.eval()(hidden).variance.sqrt(), predictive.scale, rtol=1e-6, atol=0)


def test_bad_arguments_are_refused():
    head = heads.SkewedStudentT(8, (1,))
    with pytest.raises(ValueError, match="even number"):
        heads.Variational(head, draws=3)
    with pytest.raises(ValueError, match="positive number"):
        heads.Variational(head, prior_scale=0.0)
    with pytest.raises(ValueError, match="give at least 1"):
        heads.DrawnWeights(head, 0)
