"""Forecasters of joint laws: shapes, masks, gradients, forecasts, bundles."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

from qtorch.backtest import walk_forward
from qtorch.data import DataModule, Panel, PanelWindowSource, State, WindowSpec
from qtorch.data.features import Features, Label, Scaled
from qtorch.data.synthetic import Absences, SyntheticMarket
from qtorch.deploy import load, save
from qtorch.distributions import (
    GaussianCopula,
    JointDistribution,
    JointMixture,
    StudentT,
    concatenate,
    stack,
    take,
)
from qtorch.heads import AttentionalCopulaHead, CopulaHead, CouplingFlowHead, JointHead, SkewedStudentT
from qtorch.risk import value_at_risk
from qtorch.training import FZ0, Forecaster, LogScore, Schedule, fit, mixed
from tests.training.runs import SPEC, Across, small_data, small_model, small_panel


@pytest.fixture(scope="module")
def panel():
    return small_panel()


KINDS = ("factors", "attentional", "coupling")


def make(kind="factors", objective=None) -> Forecaster:
    """With weights at which no gradient is zero."""
    torch.manual_seed(0)
    encoder = Across(len(SPEC.features))
    if kind == "coupling":
        head = CouplingFlowHead(8, SPEC.horizons, layers=2, width=8, heads=2, bins=4)
    else:
        copula = CopulaHead(8, 2) if kind == "factors" else AttentionalCopulaHead(8, width=8, heads=2, depth=1, bins=4)
        head = JointHead(SkewedStudentT(8, SPEC.horizons), copula)
    learnt = head.copula if kind != "coupling" else head
    for value in () if kind == "factors" else learnt.parameters():
        nn.init.normal_(value, std=0.2)
    if kind == "factors":
        nn.init.normal_(head.copula.tails.weight, std=0.3)
    return Forecaster(encoder, head, SPEC, objective=objective)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("every_position", [False, True])
def test_masked_targets_change_nothing_and_gradients_reach_everything(panel, every_position, kind):
    model = make(kind, LogScore() if kind == "coupling" else LogScore() + 0.1 * FZ0((0.975,))).eval()
    source = PanelWindowSource(panel, SPEC)
    window = source.gather(source.entries()[100:105], every_position=every_position)
    mask = window.target_mask.clone()
    mask[..., 1] = False
    window = dataclasses.replace(window, target_mask=mask)
    losses, weight = model.losses(window)
    assert losses["loss"].shape == weight.shape == window.target.shape[:-1]
    law = model._standardised(window)
    y = window.target / window.scale.unsqueeze(-2)
    torch.testing.assert_close(losses["log_score"] * mask.sum(-1), -law.log_prob(y, mask))
    results = []
    for hole in (0.0, torch.nan):
        model.zero_grad()
        model.mean_loss(dataclasses.replace(window, target=torch.where(mask, window.target, hole))).backward()
        results.append([parameter.grad.clone() for parameter in model.parameters()])
    assert all(torch.equal(a, b) and a.isfinite().all() and a.any() for a, b in zip(*results, strict=True))


def log_scores(model, panel) -> torch.Tensor:
    """Minus joint log densities per asset of the last twenty windows."""
    source = PanelWindowSource(panel, SPEC)
    with torch.no_grad():
        return model.eval().losses(source.gather(source.entries()[-20:]))[0]["loss"]


@pytest.mark.parametrize("kind", KINDS[1:])
def test_neural_laws_train_forecast_and_are_saved(panel, kind, tmp_path):
    """On 4 July New York is closed: its assets are there from their last session, and the law is of all."""
    model, days = make(kind), ["2019-07-03", "2019-07-04", "2019-12-30"]
    before = log_scores(model, panel).mean()
    fit(model, small_data(panel, "panel", batches_per_epoch=6), max_epochs=2)
    assert log_scores(model, panel).mean() < before - 0.01
    forecast = model.forecast(panel, days)
    law = forecast.distribution
    assert (law.batch_shape, law.event_shape, bool(forecast.mask.all())) == ((3, 2), (4,), True)
    x = 0.01 * torch.randn(3, 2, 4)
    source = PanelWindowSource(panel, SPEC)
    with torch.no_grad():
        own = model(source.gather(torch.tensor([panel.row(days[0]), panel.row(days[2])])))
        torch.testing.assert_close(own.log_prob(x[::2]), law.log_prob(x)[::2], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(forecast.select(slice(1, 3)).distribution.log_prob(x[1:]), law.log_prob(x)[1:])
    assert not law.log_prob(x).requires_grad

    scenarios = forecast.scenarios(days[1], 3, count=256)
    assert scenarios.shape == (256, 4)
    assert scenarios.isfinite().all()
    assert torch.equal(scenarios, forecast.select(slice(1, 2)).scenarios(days[1], 3, count=256))
    weights = torch.tensor([0.5, 0.0, 0.3, 0.2])
    profits = forecast.portfolio(weights, count=256).values[1, 1]
    torch.testing.assert_close(profits.double(), (scenarios @ weights.double()).sort().values, rtol=1e-5, atol=1e-7)
    if kind == "attentional":  # an asset's law in the joint law is its marginal as far as training made it so
        for value in model.network.head.copula.network.out.parameters():
            nn.init.zeros_(value)
        forecast = model.forecast(panel, days)
    alone = value_at_risk(forecast.portfolio(torch.eye(4)[2], count=2048), 0.95)
    rtol = 0.2 if kind == "attentional" else 1e-5  # for the flow both are of the same draws
    torch.testing.assert_close(alone, forecast.value_at_risk(0.95)[..., 2], rtol=rtol, atol=1e-5)
    law = forecast.distribution
    assert len(forecast.to_frame()) == 3 * 2 * 4 * 3

    save(model, tmp_path)
    again, _ = load(tmp_path, allow=["tests"])
    assert torch.equal(again.forecast(panel, days).distribution.log_prob(x), law.log_prob(x))
    with torch.no_grad():
        for value in model.network.head.parameters():
            value.add_(1.0)
    assert torch.equal(again.forecast(panel, days).distribution.log_prob(x), law.log_prob(x))  # it is a copy's


@pytest.mark.parametrize("kind", KINDS[1:])
def test_an_asset_without_a_forecast_is_left_out(panel, kind):
    """Of a panel in which one asset has no history."""
    short = panel.state.clone()
    n = panel.assets.index("BBB")
    short[:-10, n] = State.UNLISTED
    values = torch.where((short == State.UNLISTED).unsqueeze(-1), torch.nan, panel.values)
    young = dataclasses.replace(panel, values=values, state=short)
    forecast = make(kind).forecast(young, young.dates[-2:])
    assert torch.equal(forecast.mask, (torch.arange(4) != n).expand(2, 4))
    x = 0.01 * torch.randn(2, 2, 4)
    there, holes = forecast.mask.unsqueeze(1).expand(2, 2, 4), x.clone()
    holes[..., n] = torch.nan
    torch.testing.assert_close(forecast.distribution.log_prob(holes), forecast.distribution.log_prob(x, there))
    assert torch.equal(forecast.scenarios(young.dates[-1], 1, count=8).isnan().all(0), ~forecast.mask[0])
    held = torch.where(torch.arange(4) == n, 0.0, 0.3)
    assert value_at_risk(forecast.portfolio(held, count=64), 0.9).isfinite().all()
    with pytest.raises(ValueError, match="held positions have no forecast, the first BBB"):
        forecast.portfolio(torch.full((4,), 0.25))


@pytest.mark.parametrize("kind", KINDS)
def test_forecasts_of_several_networks_follow_each_other_and_are_mixed(panel, kind):
    models = [make(kind), make(kind)]
    for value in models[1].network.head.parameters():
        nn.init.normal_(value, std=0.1)
    first, second = (model.forecast(panel, panel.dates[-6:]) for model in models)
    x = 0.01 * torch.randn(5, 6, 2, 4)
    mask = torch.rand(6, 2, 4) > 0.3
    laws = [first.distribution, second.distribution]
    walk = concatenate([take(laws[0], slice(0, 4)), take(laws[1], slice(4, None))])
    expected = [law.log_prob(x, mask) for law in laws]
    found = walk.log_prob(x, mask)
    torch.testing.assert_close(found, torch.cat([expected[0][:, :4], expected[1][:, 4:]], dim=1))
    assert walk.batch_shape == (6, 2)
    assert walk.sample((3,)).shape == (3, 6, 2, 4)
    places = torch.tensor([5, 1, 2, 4])
    torch.testing.assert_close(take(walk, places).log_prob(x[:, places], mask[places]), found[:, places])
    torch.testing.assert_close(take(walk, (slice(3, 5), 1)).log_prob(x[:, 3:5, 1], mask[3:5, 1]), found[:, 3:5, 1])
    torch.testing.assert_close(take(walk, (-1, 0)).log_prob(x[:, -1, 0], mask[-1, 0]), found[:, -1, 0])

    both = mixed([first, second], [3.0, 1.0])
    mean = torch.logsumexp(torch.stack(expected) + torch.tensor([0.75, 0.25]).log().reshape(2, 1, 1, 1), 0)
    torch.testing.assert_close(both.distribution.log_prob(x, mask), mean)
    marginal = both.marginals
    assert marginal.batch_shape == (6, 2, 4)
    if kind != "coupling":
        u = [law.marginals.cdf(x) for law in laws]
        torch.testing.assert_close(marginal.cdf(x).float(), 0.75 * u[0] + 0.25 * u[1])
        assert walk.marginals.batch_shape == (6, 2, 4)
    assert both.select(slice(2, 3)).scenarios(panel.dates[-4], 3, count=16).isfinite().all()
    with pytest.raises(ValueError, match="mixed with joint forecasts alone"):
        mixed([first, dataclasses.replace(second, distribution=second.marginals)])


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_walk_of_refits_gives_laws_of_several_networks(panel, kind):
    """Each refit has a network of its own, which goes on from the one before; two seeds are mixed."""
    source, dates = PanelWindowSource(panel, SPEC), panel.dates
    options = {"batches_per_epoch": 1, "batch_size": 4}
    walked = walk_forward(
        panel,
        lambda: make(kind),
        dates[[-9, -4]],
        source=source,
        seeds=(0, 1),
        max_epochs=1,
        warm_epochs=1,
        data=options,
    ).forecast
    assert walked.distribution.batch_shape == (9, 2)
    whole = walked.distribution.log_prob(torch.zeros(9, 2, 4))
    assert whole.isfinite().all()
    for part in (slice(2, 5), slice(4, 7)):
        some = walked.select(part)
        torch.testing.assert_close(some.distribution.log_prob(torch.zeros(3, 2, 4)), whole[part])
    assert walked.scenarios(dates[-2], 1, count=8).isfinite().all()
    assert walked.marginals.batch_shape == (9, 2, 4)


def test_a_scenario_of_a_mixture_is_one_members():
    marginals = StudentT(torch.full((3,), 5.0), 0.0, 0.01)
    up, apart = (GaussianCopula(torch.tensor([[r], [r], [s]])) for r, s in ((0.999, 0.999), (0.999, -0.999)))
    law = JointMixture(torch.tensor([0.25, 0.75]), [JointDistribution(marginals, c) for c in (up, apart)])
    torch.manual_seed(0)
    x = law.sample((4000,))
    together = (x[:, 0] > 0) == (x[:, 2] > 0)
    assert abs(together.float().mean().item() - 0.25) < 0.04  # were coordinates drawn apart, it would be near a half
    assert ((x[:, 0] > 0) == (x[:, 1] > 0)).float().mean() > 0.95
    with pytest.raises(ValueError, match="2 joint laws need as many weights"):
        JointMixture(torch.ones(3), law.laws)
    with pytest.raises(ValueError, match="of one batch and event shape are mixed"):
        JointMixture(torch.ones(2), [law, marginals])


def test_it_trains_forecasts_and_is_saved(panel, tmp_path):
    model = make()
    assert fit(model, small_data(panel, "panel"), max_epochs=2) < 10
    forecast = model.forecast(panel, panel.dates[-5:])
    law = forecast.distribution
    assert isinstance(law, JointDistribution)
    assert (law.batch_shape, law.event_shape) == ((5, 2), (4,))
    assert (forecast.value_at_risk(0.99) > 0).all()
    assert len(forecast.select(slice(1, 3)).to_frame()) == 2 * 2 * 4 * 3
    save(model, tmp_path)
    again, _ = load(tmp_path, allow=["tests"])
    other = again.forecast(panel, panel.dates[-5:])
    torch.testing.assert_close(other.distribution.copula.df, law.copula.df)
    torch.testing.assert_close(other.distribution.copula.loadings, law.copula.loadings)
    for join, laws in ((stack, [law, law]), (concatenate, [law, law.marginals])):
        with pytest.raises(ValueError, match="joint laws can't be mixed, nor joined with others"):
            join(laws)


def test_a_closed_market_has_its_own_rows_loadings_and_the_last_rows_df(panel):
    """On 4 July New York is closed, but Tokyo and Frankfurt are not."""
    model = make().eval()
    law = model.forecast(panel, ["2019-07-03", "2019-07-04"]).distribution
    L, df = law.copula.loadings, law.copula.df
    for name in panel.assets:
        n = panel.assets.index(name)
        assert torch.equal(L[0, :, n], L[1, :, n]) == (name in ("AAA", "BBB"))
    assert df[0, 0] != df[1, 0]
    source = PanelWindowSource(panel, SPEC)
    window = source.gather(torch.tensor([panel.row("2019-07-04")]))
    torch.testing.assert_close(model(window).copula.df[0], df[1])


def test_what_does_not_fit_is_named():
    encoder = small_model().network.encoder
    head = JointHead(SkewedStudentT(encoder.out_features, SPEC.horizons), CopulaHead(encoder.out_features, 2))
    with pytest.raises(ValueError, match="JointHead needs an encoder in panel layout, but Temporal"):
        Forecaster(encoder, head, SPEC)
    flow = CouplingFlowHead(encoder.out_features, SPEC.horizons)
    with pytest.raises(ValueError, match="CouplingFlowHead needs an encoder in panel layout, but Temporal"):
        Forecaster(encoder, flow, SPEC)
    with pytest.raises(ValueError, match="CouplingFlowHead gives no copula"):
        JointHead(SkewedStudentT(8, SPEC.horizons), flow)
    with pytest.raises(ValueError, match=r"head's horizons are \(1,\), but the windows have \(1, 3\)"):
        Forecaster(Across(len(SPEC.features)), CouplingFlowHead(8, (1,)), SPEC)
    with pytest.raises(ValueError, match="trains by LogScore alone"):
        make("coupling", LogScore() + FZ0())
    for head in (AttentionalCopulaHead(8), CopulaHead(8, 2)):
        with pytest.raises(
            ValueError, match=rf"a copula, and no law of returns. Give JointHead\(marginals, {type(head).__name__}"
        ):
            Forecaster(Across(len(SPEC.features)), head, SPEC)
    with pytest.raises(ValueError, match="in_features are 8, the copula's 4"):
        JointHead(SkewedStudentT(8, [1]), CopulaHead(4, 1))


class Embedded(nn.Module):
    """An embedding of each asset, from its label, and nothing else."""

    layout = "panel"

    def __init__(self, in_features: int, labels: int, width: int = 4) -> None:
        super().__init__()
        self.in_features, self.labels, self.out_features = in_features, labels, width
        self.embedding = nn.Linear(labels, width, bias=False)

    def forward(self, inputs, mask):
        return self.embedding(torch.where(mask.unsqueeze(-1), inputs[..., -self.labels :], 0.0))


def simulated(market: float, sector: float) -> Panel:
    """Six assets of two sectors, and the shares of their shocks' variance that all have or a sector has in common."""
    whole = Absences(late=0.0, early=0.0, halts=0.0)
    span = "2018-01-02", "2019-12-30"
    simulation = SyntheticMarket({"XNYS": 6}, *span, sectors=2, market=market, sector=sector, absences=whole, seed=1)
    return Panel.from_frame(simulation.simulate().frame)


def data_of(panel, spec) -> DataModule:
    source = PanelWindowSource(panel, spec)
    options = {"batches_per_epoch": 15, "batch_size": 16, "validation_start": None, "test_start": "2019-08-01"}
    return DataModule(panel, source=source, **options)


def test_a_second_stage_keeps_the_marginals_and_gains_the_dependence():
    """Of normal shocks of correlation 0.6, log det of their matrix says 0.27 nats per asset."""
    panel = simulated(market=0.6, sector=0.0)
    spec = WindowSpec(context=4, horizons=(1,))
    torch.manual_seed(0)
    encoder = Across(len(spec.features))
    first = Forecaster(encoder, SkewedStudentT(8, spec.horizons), spec)
    data = data_of(panel, spec)
    fit(first, data, max_epochs=1, patience=None)
    before = copy.deepcopy(first.network.state_dict())

    encoder, head = first.network.requires_grad_(False).encoder, first.network.head
    second = Forecaster(encoder, JointHead(head, CopulaHead(8, 2)), spec, schedule=Schedule(0.02))
    window = data.source.gather(data.test.entries)
    with torch.no_grad():
        alone, fresh = first.mean_loss(window), second.mean_loss(window)
    fit(second, data, max_epochs=2, patience=None)
    with torch.no_grad():
        joint = second.mean_loss(window)
    torch.testing.assert_close(second.losses(window)[1].sum(), first.losses(window)[1].sum())
    assert joint < fresh
    assert alone - 0.35 < joint < alone - 0.15, (alone, fresh, joint)
    assert all(torch.equal(value, before[name]) for name, value in first.network.state_dict().items())


def test_an_embedding_of_assets_learns_which_go_together():
    """Sectors are by turns: assets 0, 2, 4 and 1, 3, 5."""
    sectors = simulated(market=0.0, sector=0.6)
    label = Label.of_assets("asset", {asset: asset for asset in sectors.assets})
    spec = WindowSpec(context=4, horizons=(1,), features=Features((Scaled(), label)))
    torch.manual_seed(0)
    model = Forecaster(
        Embedded(len(spec.features), 6),
        JointHead(SkewedStudentT(4, spec.horizons), CopulaHead(4, 2)),
        spec,
        schedule=Schedule(0.05),
    )
    fit(model, data_of(sectors, spec), max_epochs=3, patience=None)
    correlation = model.forecast(sectors, sectors.dates[-1:]).distribution.copula.correlation[0, 0]
    same = torch.arange(6)[:, None] % 2 == torch.arange(6) % 2
    off = ~torch.eye(6, dtype=torch.bool)
    assert correlation[same & off].min() > correlation[~same].max() + 0.2, correlation
