"""One small model for each encoder, head, flow and allocation network of the library, by name, for tests of exports."""

from collections.abc import Callable

import torch
from torch import nn

from qtorch import Forecaster, heads, models, portfolio
from qtorch.data import WindowSpec
from qtorch.deploy import Program, program_of
from qtorch.models.flows import (
    AffineFlow,
    BernsteinFlow,
    GaussianisationFlow,
    MonotoneFlow,
    NeuralSplineFlow,
    StudentTBase,
)
from qtorch.nn.graph import GCN, GATv2, GraphSAGE, GraphTransformer, RelationalGCN
from qtorch.portfolio.graphs import LearnedGraph
from qtorch.training import Allocator

HORIZONS = (1, 3)
SPEC = WindowSpec(context=8, horizons=HORIZONS)
F = len(SPEC.features)
SMALL = {"width": 8, "depth": 1, "heads": 2}
D = 8

ENCODERS: dict[str, Callable[[], nn.Module]] = {
    "temporal": lambda: models.TemporalTransformer(F, **SMALL),
    "temporal, patches": lambda: models.TemporalTransformer(F, **SMALL, gap_input=1, patch=3),
    "temporal, bounded": lambda: models.TemporalTransformer(F, **SMALL, context=8),
    "gru": lambda: models.Recurrent(F, width=8, depth=2),
    "lstm": lambda: models.Recurrent(F, width=8, cell="lstm"),
    "panel": lambda: models.PanelTransformer(F, **SMALL),
    "panel, induced": lambda: models.PanelTransformer(F, **SMALL, gap_input=1, inducing=2),
    "patch": lambda: models.PatchTransformer(F, context=8, **SMALL, patch=4, stride=2),
    "inverted": lambda: models.InvertedTransformer(F, context=8, **SMALL),
    "inverted inputs": lambda: models.InvertedTransformer(F, context=8, layout="asset", **SMALL),
    "distance aware": lambda: models.DistanceAware(models.Recurrent(F, width=8), features=D),
}
SEVERAL: dict[str, Callable[[], nn.Module]] = {
    "ensemble": lambda: models.EncoderEnsemble(models.TemporalTransformer(F, **SMALL), 3),
    "ensemble of recurrent": lambda: models.EncoderEnsemble(models.Recurrent(F, width=8), 3),
    "ensemble of lstm": lambda: models.EncoderEnsemble(models.Recurrent(F, width=8, cell="lstm"), 3),
    "ensemble of panel": lambda: models.EncoderEnsemble(models.PanelTransformer(F, **SMALL), 3),
    "batch ensemble": lambda: models.BatchEnsemble(models.TemporalTransformer(F, **SMALL), 3),
    "batch ensemble of recurrent": lambda: models.BatchEnsemble(models.Recurrent(F, width=8), 3),
    "dropout": lambda: models.MonteCarloDropout(models.TemporalTransformer(F, **SMALL), 3),
    "dropout of recurrent": lambda: models.MonteCarloDropout(models.Recurrent(F, width=8), 3),
}
HEADS: dict[str, Callable[[], nn.Module]] = {
    "normal": lambda: heads.Normal(D, HORIZONS),
    "student": lambda: heads.StudentT(D, HORIZONS),
    "skewed": lambda: heads.SkewedStudentT(D, HORIZONS),
    "hansen": lambda: heads.HansenSkewedT(D, HORIZONS),
    "johnson": lambda: heads.JohnsonSU(D, HORIZONS),
    "nig": lambda: heads.NormalInverseGaussian(D, HORIZONS),
    "mixture": lambda: heads.Mixture(D, HORIZONS),
    "spliced": lambda: heads.SplicedTails(D, HORIZONS),
    "flow": lambda: heads.FlowHead(D, HORIZONS),
    "variational": lambda: heads.Variational(heads.StudentT(D, HORIZONS)),
    "variational normal": lambda: heads.VariationalNormal(D, HORIZONS),
    "variational student": lambda: heads.VariationalStudentT(D, HORIZONS),
    "several": lambda: heads.Ensemble(heads.StudentT(D, HORIZONS), 3, shared=True),
    "drawn": lambda: heads.DrawnWeights(heads.StudentT(D, HORIZONS), 3),
}
JOINT: dict[str, Callable[[], nn.Module]] = {
    "copula": lambda: heads.JointHead(heads.StudentT(D, HORIZONS), heads.CopulaHead(D, 2)),
    "attentional": lambda: heads.JointHead(heads.StudentT(D, HORIZONS), heads.AttentionalCopulaHead(D)),
    "attentional, skewed": lambda: heads.JointHead(heads.SkewedStudentT(D, HORIZONS), heads.AttentionalCopulaHead(D)),
    "coupling": lambda: heads.CouplingFlowHead(D, HORIZONS, layers=2, width=8, heads=2),
} | {
    f"copula, {name}": lambda make=make: heads.JointHead(make(), heads.CopulaHead(D, 2))
    for name, make in HEADS.items()
    if name in ("normal", "skewed", "hansen", "johnson", "nig", "mixture", "spliced", "flow")
}
FLOWS: dict[str, Callable[[], nn.Module]] = {
    f"{kind.__name__}{', autoregressive' if auto else ''}{'' if tails else ', plain'}": (
        lambda kind=kind, auto=auto, tails=tails: kind(4, 2, transforms=2, hidden=[8], autoregressive=auto, tails=tails)
    )
    for kind in (AffineFlow, BernsteinFlow, NeuralSplineFlow, MonotoneFlow)
    for auto in (False, True)
    for tails in (True, False)
} | {
    "GaussianisationFlow": lambda: GaussianisationFlow(4, 2),
    "no context": lambda: NeuralSplineFlow(4, transforms=2, hidden=[8]),
    "student base": lambda: AffineFlow(4, 2, transforms=2, hidden=[8], tails=False, base=StudentTBase(4)),
}
GRAPHS: dict[str, Callable[[], nn.Module]] = {
    "transformer": lambda: models.OverGraph(GraphTransformer(D, D, weighted=True)),
    "gatv2": lambda: models.OverGraph(GATv2(D, D, weighted=True)),
    "gcn": lambda: models.OverGraph(GCN(D, D)),
    "relational": lambda: models.OverGraph(RelationalGCN(D, D, kinds=3)),
    "relational, bases": lambda: models.OverGraph(RelationalGCN(D, D, kinds=3, bases=2)),
    "gatv2, kinds": lambda: models.OverGraph(GATv2(D, D, weighted=True, kinds=2)),
    "transformer, kinds": lambda: models.OverGraph(GraphTransformer(D, D, weighted=True, kinds=2)),
    "sage": lambda: models.OverGraph(GraphSAGE(D, D)),
    "learned": lambda: models.OverLearnedGraph(LearnedGraph(D, k=2), GATv2(D, D, weighted=True)),
}


def programs() -> dict[str, Callable[[], Program]]:
    """What makes each program, by name."""

    def forecaster(encoder, head, density=False):
        return lambda: program_of(moved(Forecaster(encoder(), head(), SPEC)), density=density)

    def panel():
        return models.PanelTransformer(F, **SMALL)

    def temporal():
        return models.TemporalTransformer(F, **SMALL)

    made = {f"encoder {name}": forecaster(make, HEADS["student"]) for name, make in ENCODERS.items()}
    each = lambda: heads.EachDraw(heads.StudentT(D, HORIZONS))  # noqa: E731
    made |= {f"encoder {name}": forecaster(make, each) for name, make in SEVERAL.items()}
    made |= {f"head {name}": forecaster(temporal, make) for name, make in HEADS.items()}
    made |= {"head members": forecaster(SEVERAL["ensemble"], lambda: heads.Ensemble(heads.StudentT(D, HORIZONS), 3))}
    made |= {f"joint {name}": forecaster(panel, make) for name, make in JOINT.items()}
    made |= {f"density {name}": forecaster(panel, make, True) for name, make in JOINT.items()}
    made |= {f"flow {name}": lambda make=make: program_of(moved(make())) for name, make in FLOWS.items()}

    def allocator(mixer, encoder=temporal, kind="covariance"):
        def make():
            states = models.AssetGraph(encoder(), estimates=2, width=D, mixers=[mixer()])
            if kind == "covariance":
                return program_of(moved(Allocator(models.GraphCovariance(states), portfolio.MinimumVariance())))
            return program_of(moved(Allocator(models.GraphScores(states), portfolio.Projected())))

        return make

    made |= {f"allocator {name}": allocator(make) for name, make in GRAPHS.items()}
    made["allocator over gru"] = allocator(GRAPHS["gatv2"], ENCODERS["gru"])
    made["allocator of scores"] = allocator(GRAPHS["gatv2"], kind="scores")
    return made


@torch.no_grad()
def moved(model):
    """With weights that are not at their start, so that every output depends on every input."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model
