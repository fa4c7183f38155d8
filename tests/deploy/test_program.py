"""What of each kind of model is exported: names, types and free axes, held against the model itself."""

import pytest
import torch

from qtorch import Forecaster, heads, models, portfolio
from qtorch.data import WindowSpec
from qtorch.deploy import Signature, program_of
from qtorch.models.flows import NeuralSplineFlow
from qtorch.nn.graph import Graph, TreeLSTM
from qtorch.training import Allocator

SPEC = WindowSpec(context=8, horizons=(1, 3))
F = len(SPEC.features)
UNIVARIATE = {
    name: getattr(heads, name)
    for name in heads.__all__
    if isinstance(getattr(heads, name), type)
    and issubclass(getattr(heads, name), heads.Parametric)
    and getattr(heads, name) is not heads.Parametric
}


def transformer(head) -> Forecaster:
    return Forecaster(models.Transformer(F, width=8, depth=1, heads=2), head, SPEC)


def panel(head) -> Forecaster:
    return Forecaster(models.PanelTransformer(F, width=8, depth=1, heads=2), head, SPEC)


def allocator(mixers=None) -> Allocator:
    states = models.AssetGraph(models.Transformer(F, width=8, depth=1, heads=2), estimates=2, width=8, mixers=mixers)
    return Allocator(models.GraphCovariance(states), portfolio.MinimumVariance())


@pytest.mark.parametrize("name", UNIVARIATE)
def test_every_head_names_its_parameters(name):
    program = program_of(transformer(UNIVARIATE[name](8, SPEC.horizons)))
    outputs = program(*program.example(B=2, C=3))
    assert len(program.function.head.names) == len(outputs)
    for spec, value in zip(program.signature.outputs, outputs, strict=True):
        assert spec.axes[:2] == ("B", 2)
        assert tuple({"B": 2}.get(axis, axis) for axis in spec.axes) == value.shape


@pytest.mark.parametrize(
    "head",
    [
        heads.VariationalStudentT(8, (1, 3)),
        heads.Variational(heads.Normal(8, (1, 3))),
        heads.Ensemble(heads.StudentT(8, (1, 3)), 3, shared=True),
        heads.DrawnWeights(heads.StudentT(8, (1, 3)), 3),
    ],
    ids=lambda head: type(head).__name__,
)
def test_posteriors_name_theirs(head):
    names = [spec.name for spec in program_of(transformer(head)).signature.outputs]
    assert set(names) - {"weights"} == (
        {"mean", "volatility"} if isinstance(head, heads.Variational) else {"df", "loc", "scale"}
    )


def test_a_forecasters_program_gives_the_laws_parameters():
    model = panel(heads.JointHead(heads.StudentT(8, (1, 3)), heads.CopulaHead(8, 2)))
    program = program_of(model)
    assert program.letters == ("B", "C", "N")
    assert [(spec.name, spec.axes) for spec in program.signature.outputs] == [
        ("copula_df", ("B", "N", 2)),
        ("copula_loadings", ("B", "N", 2, 2)),
        ("df", ("B", "N", 2)),
        ("loc", ("B", "N", 2)),
        ("scale", ("B", "N", 2)),
    ]
    inputs, mask = program.example(B=2, N=4)
    for a, b in zip(program(inputs, mask), model.network(inputs, mask), strict=True):
        assert torch.equal(a, b)
    assert SPEC.features.names[0] in program.signature.inputs[0].meaning


def test_the_density_of_a_joint_law():
    model = panel(heads.CouplingFlowHead(8, (1, 3), layers=2, width=8, heads=2))
    program = program_of(model, density=True)
    inputs, mask, outcomes, known = program.example(B=2, N=4)
    (density,) = program(inputs, mask, outcomes, known)
    hidden = model.network.encoder(inputs, mask)[:, -1]
    law = model.network.head(hidden, mask[:, -1])
    torch.testing.assert_close(density, law.log_prob(outcomes, known))
    with pytest.raises(ValueError, match="a StudentT gives a law of each asset alone"):
        program_of(transformer(heads.StudentT(8, (1, 3))), density=True)


def test_an_allocators_program_gives_what_its_layer_takes():
    model = allocator()
    program = program_of(model)
    given = program.example(B=3, N=5, C=6, K=2)
    network = model.network
    inputs, mask, universe, correlation, volatility, neighbours, present, weights = given
    market = models.MarketState(
        inputs, mask, universe, correlation, volatility, Graph(neighbours, present, universe, weights)
    )
    torch.testing.assert_close(network.views(*program(*given)), network(market), rtol=0, atol=0)
    with pytest.raises(ValueError, match="OverTree walks over each date's dendrogram"):
        program_of(allocator([models.OverTree(TreeLSTM(8, 8))]))


def test_the_density_of_a_flow():
    flow = NeuralSplineFlow(3, 2, transforms=2, hidden=[8])
    program = program_of(flow)
    values, context = program.example(B=4)
    assert torch.equal(program(values, context)[0], flow(context).log_prob(values))


def test_a_signature_refuses_what_does_not_fit_and_survives_json():
    signature = program_of(panel(heads.StudentT(8, (1, 3)))).signature
    assert Signature.from_dict(signature.to_dict()) == signature
    inputs, mask = torch.zeros(2, 5, 3, F), torch.ones(2, 5, 3, dtype=torch.bool)
    assert signature.check((inputs, mask)) == {"B": 2, "C": 5, "N": 3}
    for given, words in (
        ((inputs,), r"2 tensors are needed \(inputs, mask\), not 1"),
        ((inputs.double(), mask), "inputs is float64, but float32 is needed"),
        ((inputs[0], mask), r"inputs has the shape \[5, 3, \d+\], but \[B, C, N, \d+\] is needed"),
        ((inputs, mask[:, :4]), r"mask has the shape \[2, 4, 3\], .* axis 1 must be 5, not 4"),
        ((inputs[:0], mask[:0]), "axis 0 must be 1 or more, not 0"),
    ):
        with pytest.raises(ValueError, match=words):
            signature.check(given)
    program = program_of(transformer(heads.StudentT(8, (1, 3))))
    with pytest.raises(ValueError, match="there is no axis 'N'"):
        program.example(N=3)
