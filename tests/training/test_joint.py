"""Forecasters of joint laws: shapes, masks, gradients, forecasts, bundles."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

from qtorch.data import DataModule, Panel, PanelWindowSource, WindowSpec
from qtorch.data.features import Features, Label, Scaled
from qtorch.data.synthetic import Absences, SyntheticMarket
from qtorch.deploy import load, save
from qtorch.distributions import JointDistribution, concatenate, stack
from qtorch.heads import AttentionalCopulaHead, CopulaHead, CouplingFlowHead, JointHead, SkewedStudentT
from qtorch.training import FZ0, Forecaster, LogScore, Schedule, fit
from tests.training.runs import SPEC, Across, small_data, small_model, small_panel


@pytest.fixture(scope="module")
def panel():
    return small_panel()


def make(objective=None) -> Forecaster:
    encoder = Across(len(SPEC.features))
    head = JointHead(SkewedStudentT(8, SPEC.horizons), CopulaHead(8, 2))
    torch.nn.init.normal_(head.copula.tails.weight, std=0.3)
    return Forecaster(encoder, head, SPEC, objective=objective)


@pytest.mark.parametrize("every_position", [False, True])
def test_masked_targets_change_nothing_and_gradients_reach_everything(panel, every_position):
    model = make(LogScore() + 0.1 * FZ0((0.975,))).eval()
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
    with pytest.raises(ValueError, match="AttentionalCopulaHead gives no copula of factors"):
        JointHead(SkewedStudentT(8, SPEC.horizons), AttentionalCopulaHead(8))
    for head in (AttentionalCopulaHead(8), CouplingFlowHead(8), CopulaHead(8, 2)):
        with pytest.raises(ValueError, match=f"a {type(head).__name__} gives one joint law and no horizons"):
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
