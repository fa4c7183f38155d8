"""No model of the library knows the future; one without a case here fails."""

from functools import partial

import pytest
import torch
from torch import nn

from qtorch import backtest, heads, models
from qtorch.backtest import WalkForward, check_lookahead, walk_forward
from qtorch.data import WindowSpec
from qtorch.nn.graph import GCN, GATv2, TreeLSTM
from qtorch.portfolio import Constraints, MinimumVariance, Projected, ScenarioProgram, TailRisk
from qtorch.portfolio.graphs import LearnedGraph
from qtorch.training import Allocator, Ensemble, Forecaster
from tests.backtest.lookahead.markets import market

SPEC = WindowSpec(8, (1, 3))
F, D = len(SPEC.features), 8
SMALL = {"width": D, "depth": 1, "heads": 2}
HISTORY = {"spec": SPEC, "min_history": 40}


@pytest.fixture(scope="module")
def small():
    return market()


def stirred(module):
    """With weights at which its outputs depend on its inputs."""
    with torch.no_grad():
        for value in module.parameters():
            value += 0.2 * torch.randn_like(value)
    return module.eval()


def forecaster(encoder: nn.Module, head: nn.Module | None = None) -> Forecaster:
    torch.manual_seed(0)
    head = heads.StudentT(encoder.out_features, SPEC.horizons) if head is None else head
    return stirred(Forecaster(encoder, head, SPEC))


def transformer() -> nn.Module:
    return models.Transformer(F, **SMALL)


def several(encoder: nn.Module) -> Forecaster:
    return forecaster(encoder, heads.EachDraw(heads.StudentT(D, SPEC.horizons)))


def states(*mixers: nn.Module) -> models.AssetGraph:
    return models.AssetGraph(models.Recurrent(F, width=4), estimates=1, width=D, mixers=mixers or None)


def allocator(network: nn.Module, layer: nn.Module) -> Allocator:
    return stirred(Allocator(network, layer, SPEC, half_lives=(40.0,), min_history=65))


def covariance(*mixers: nn.Module) -> Allocator:
    return allocator(models.GraphCovariance(states(*mixers)), MinimumVariance(upper=0.6, inertia=1.0))


MODELS = {
    "HAR": lambda: models.HAR(window=60, least=40, refit_every=5, spec=SPEC),
    "AssetGraph": covariance,
    "BatchEnsemble": lambda: several(models.BatchEnsemble(transformer(), 2)),
    "DistanceAware": lambda: forecaster(models.DistanceAware(transformer(), features=D)),
    "EncoderEnsemble": lambda: several(models.EncoderEnsemble(models.Recurrent(F, width=D), 2)),
    "Ewma": lambda: models.FilteredHistoricalSimulation(models.Ewma(), window=60, paths=50, **HISTORY),
    "FilteredHistoricalSimulation": lambda: models.FilteredHistoricalSimulation(window=60, paths=50, **HISTORY),
    "Garch": lambda: models.Garch(window=60, least=50, refit_every=5, **HISTORY),
    "GraphCovariance": covariance,
    "GraphScores": lambda: allocator(models.GraphScores(states()), Projected(Constraints(upper=0.6))),
    "HistoricalSimulation": lambda: models.HistoricalSimulation(60, **HISTORY),
    "InvertedTransformer": lambda: forecaster(models.InvertedTransformer(F, context=8, **SMALL)),
    "MonteCarloDropout": lambda: several(models.MonteCarloDropout(models.Recurrent(F, width=D, dropout=0.3), 2)),
    "OverGraph": lambda: covariance(models.OverGraph(GCN(D, D))),
    "OverLearnedGraph": lambda: covariance(
        models.OverLearnedGraph(LearnedGraph(D, k=2, width=4), GATv2(D, D, weighted=True))
    ),
    "OverTree": lambda: covariance(models.OverTree(TreeLSTM(D, 4))),
    "PanelTransformer": lambda: forecaster(models.PanelTransformer(F, **SMALL)),
    "PatchTransformer": lambda: forecaster(models.PatchTransformer(F, context=8, **SMALL, patch=4, stride=2)),
    "Recurrent": lambda: forecaster(models.Recurrent(F, width=D)),
    "RiskMetrics": lambda: models.RiskMetrics(**HISTORY),
    "TemporalTransformer": lambda: forecaster(models.TemporalTransformer(F, **SMALL)),
    "Transformer": lambda: forecaster(transformer()),
    "default_ensemble": lambda: Ensemble(
        [forecaster(models.Recurrent(F, width=D)), models.Garch(window=60, least=50, spec=SPEC)]
    ),
    "default_forecaster": lambda: stirred(models.default_forecaster(market(), horizons=(1, 3), context=8)),
}
NO_MODELS = {
    "MarketState": "what an allocator's network is given",
    "SessionCache": "what a TemporalTransformer keeps",
    "default_windows": "settings of the default forecaster",
}


def headed(name: str) -> Forecaster:
    return forecaster(transformer(), getattr(heads, name)(D, SPEC.horizons))


HEADS = {
    name: partial(headed, name)
    for name in (
        "FlowHead",
        "GaussianProcessNormal",
        "GaussianProcessStudentT",
        "HansenSkewedT",
        "JohnsonSU",
        "Mixture",
        "Normal",
        "NormalInverseGaussian",
        "SkewedStudentT",
        "SplicedTails",
        "StudentT",
        "VariationalNormal",
        "VariationalStudentT",
    )
}


def across(head: nn.Module) -> Forecaster:
    return forecaster(models.PanelTransformer(F, **SMALL), head)


def joint(copula: nn.Module) -> Forecaster:
    return across(heads.JointHead(heads.StudentT(D, SPEC.horizons), copula))


HEADS |= {
    "AttentionalCopulaHead": lambda: joint(heads.AttentionalCopulaHead(D, width=8, heads=2, depth=1, bins=4)),
    "CopulaHead": lambda: joint(heads.CopulaHead(D, 2)),
    "CouplingFlowHead": lambda: across(heads.CouplingFlowHead(D, SPEC.horizons, layers=2, width=8, heads=2, bins=4)),
    "DrawnWeights": lambda: forecaster(transformer(), heads.DrawnWeights(heads.StudentT(D, SPEC.horizons), 2)),
    "EachDraw": lambda: several(models.EncoderEnsemble(models.Recurrent(F, width=D), 2)),
    "Ensemble": lambda: forecaster(transformer(), heads.Ensemble(heads.StudentT(D, SPEC.horizons), 2, shared=True)),
    "JointHead": lambda: joint(heads.CopulaHead(D, 1)),
    "Variational": lambda: forecaster(transformer(), heads.Variational(heads.StudentT(D, SPEC.horizons), draws=2)),
}
NO_HEADS = {"Parametric": "the base of others", "decompose": "a function of a law"}


def walk(make, **options):
    """An allocator's walk: it is made of each panel anew."""
    walks = WalkForward(20, "2019-05-15", **options)
    return lambda panel: walks.run(panel, make(panel))


ALLOCATORS = {
    "EqualWeight": lambda: walk(lambda panel: backtest.EqualWeight(10)),
    "InverseVolatility": lambda: walk(lambda panel: backtest.InverseVolatility(30)),
    "ScenarioAllocator": lambda: walk(
        lambda panel: backtest.ScenarioAllocator(
            models.RiskMetrics(**HISTORY),
            ScenarioProgram(TailRisk(0.9), Constraints(upper=0.6)),
            panel,
            horizon=3,
            scenarios=64,
            lookback=40,
            factors=1,
        )
    ),
    "Walked": lambda: walked(covariance()),
}
SKFOLIO = {"equal_risk", "hierarchical_risk_parity", "maximum_diversification", "minimum_variance"}


def of_skfolio(name: str):
    return walk(lambda panel: getattr(backtest, name)(30))


ALLOCATORS |= {name: partial(of_skfolio, name) for name in SKFOLIO}


def walked(model: Allocator):
    return walk(lambda panel: backtest.Walked(model, panel))


@pytest.mark.parametrize(
    ("room", "cases", "others"), [(models, MODELS, NO_MODELS), (heads, HEADS, NO_HEADS)], ids=["models", "heads"]
)
def test_there_is_a_case_for_each(room, cases, others):
    assert set(room.__all__) == cases.keys() | others.keys()
    assert not cases.keys() & others.keys()


def test_there_is_a_case_for_each_allocator():
    """What is called with a panel, a row and holdings, or makes that."""
    from inspect import isclass, signature

    def allocates(thing) -> bool:
        made = signature(thing).return_annotation if not isclass(thing) else thing
        call = getattr(made, "__call__", None) if isclass(made) else None  # noqa: B004
        return call is not None and list(signature(call).parameters)[1:4] == ["panel", "row", "holdings"]

    of_skfolio = {"SklearnAllocator"}  # an estimator
    named = {name: getattr(backtest, name) for name in set(backtest.__all__) - {"Allocate"} - of_skfolio}
    found = {name for name, thing in named.items() if callable(thing) and allocates(thing)}
    assert found - {"SkfolioAllocator"} == ALLOCATORS.keys()  # its own makers are there


EVERY = [
    *(pytest.param(make, id=f"models.{name}") for name, make in MODELS.items()),
    *(pytest.param(make, id=f"heads.{name}") for name, make in HEADS.items()),
]
FAST = {"models.RiskMetrics", "models.Transformer"}


@pytest.mark.parametrize("make", [case for case in EVERY if case.id in FAST])
def test_a_model_of_each_kind_knows_nothing_of_the_future(small, make):
    report = check_lookahead(make(), small, cuts=2, starts=0).require()
    assert report.compared > 0
    assert report.notes == ()


@pytest.mark.slow
@pytest.mark.parametrize("make", EVERY)
def test_models_know_nothing_of_the_future(small, make):
    report = check_lookahead(make(), small, cuts=8, starts=0, seed=1).require()
    assert report.notes == ()


@pytest.mark.slow
@pytest.mark.parametrize("make", ALLOCATORS.values(), ids=ALLOCATORS)
def test_allocators_know_nothing_of_the_future(small, make):
    if make in [ALLOCATORS[name] for name in SKFOLIO]:
        pytest.importorskip("skfolio")
    report = check_lookahead(make(), small, cuts=12, starts=0, first="2019-06-03").require()
    assert report.notes == ()


def test_a_walk_of_refits_is_left_in_peace(small):
    make = partial(models.RiskMetrics, **HISTORY)
    options = {"cuts": 2, "starts": 0, "first": "2019-06-03"}
    report = check_lookahead(lambda panel: walk_forward(panel, make, "quarter", start="2019-05-15"), small, **options)
    assert report.require().compared > 0
    assert report.notes == ()


def test_a_model_that_learns_at_given_dates_is_left_in_peace(small):
    refits = small.dates[[small.row("2019-05-15"), small.row("2019-06-28")]]
    make = partial(models.HAR, window=60, least=40, refit_every=1000, spec=WindowSpec(8, (1,)))

    def learning(panel):
        return walk_forward(panel, make, [date for date in refits if date <= panel.dates[-1]], end="2019-07-05")

    check_lookahead(learning, small, cuts=refits[1:], starts=0).require()


def test_a_model_that_only_allocates_is_asked_for_weights(small):
    class Inverse:
        """Without a `min_history` of its own."""

        def __init__(self, ahead: int) -> None:
            self.ahead = ahead

        def allocate(self, panel, dates):
            weights = 1 / panel.to_wide("return", by="row").rolling(20, min_periods=5).std()
            return weights.shift(-self.ahead).loc[dates]

    assert check_lookahead(Inverse(0), small, cuts=2, starts=0).require().compared > 0
    assert not check_lookahead(Inverse(1), small, cuts=2, starts=0).ok


def test_a_forecaster_that_looks_ahead_is_found(small):
    """It is told of the scale of the whole panel."""

    class Peeking:
        min_history = 40

        def forecast(self, panel, dates):
            forecast = models.RiskMetrics(**HISTORY).forecast(panel, dates)
            factor = panel.returns().nan_to_num().abs().max()
            law = torch.distributions.Normal(forecast.distribution.loc, forecast.distribution.scale * (1 + factor))
            return type(forecast)(
                law, forecast.mask, forecast.state, forecast.dates, forecast.assets, forecast.horizons
            )

    report = check_lookahead(Peeking(), small, cuts=1, starts=0)
    assert set(report.findings["column"]) >= {"value_at_risk(0.99), horizon 1", "value_at_risk(0.05), horizon 3"}
    assert report.findings["rows_ahead"].min() >= 1
