"""What leaves for phones: it computes the model's numbers, keeps its bounds, and says what it is."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from qtorch import Forecaster, heads, models, portfolio
from qtorch.data import WindowSpec
from qtorch.deploy import (
    ArtefactError,
    describe_artefact,
    open_artefact,
    program_of,
    to_coreml,
    to_executorch,
    to_torchscript,  # noqa: F401 of TRACES
)
from qtorch.deploy.edge_program import bounds_of
from qtorch.deploy.parity import differences, hold, probes
from qtorch.models.flows import NeuralSplineFlow
from qtorch.nn.graph import GATv2
from qtorch.portfolio.graphs import LearnedGraph
from qtorch.training import Allocator

SPEC = WindowSpec(context=8, horizons=(1, 3))
F = len(SPEC.features)


def trained(model):
    """With weights unlike fresh ones, by which layers may do nothing."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weights in model.parameters():
            weights += 0.2 * torch.randn(weights.shape, generator=generator)
    return model


def transformer(context=None) -> Forecaster:
    encoder = models.Transformer(F, width=8, depth=1, heads=2, context=context)
    return trained(Forecaster(encoder, heads.StudentT(8, (1, 3)), SPEC))


def flow_head() -> Forecaster:
    encoder = models.Transformer(F, width=8, depth=1, heads=2)
    return trained(Forecaster(encoder, heads.FlowHead(8, (1, 3)), SPEC))


def patches() -> Forecaster:
    encoder = models.PatchTransformer(F, context=8, width=8, depth=1, heads=2, patch=4, stride=2)
    return trained(Forecaster(encoder, heads.StudentT(8, (1, 3)), SPEC))


def patch_inputs() -> Forecaster:
    encoder = models.Transformer(F, width=8, depth=1, heads=2, patch=3)
    return trained(Forecaster(encoder, heads.StudentT(8, (1, 3)), SPEC))


def panel() -> Forecaster:
    encoder = models.PanelTransformer(F, width=8, depth=1, heads=2)
    return trained(Forecaster(encoder, heads.JointHead(heads.StudentT(8, (1, 3)), heads.CopulaHead(8, 2)), SPEC))


def gru() -> Forecaster:
    return trained(Forecaster(models.Recurrent(F, width=8, depth=2), heads.StudentT(8, (1, 3)), SPEC))


def lstm() -> Forecaster:
    return trained(Forecaster(models.Recurrent(F, width=8, cell="lstm"), heads.StudentT(8, (1, 3)), SPEC))


def distance_aware() -> Forecaster:
    encoder = models.DistanceAware(models.Transformer(F, width=8, depth=1, heads=2), features=8)
    return Forecaster(encoder, heads.StudentT(8, (1, 3)), SPEC)


def states() -> models.AssetGraph:
    return models.AssetGraph(models.Transformer(F, width=8, depth=1, heads=2), estimates=2, width=8)


def graph() -> Allocator:
    return trained(Allocator(models.GraphCovariance(states()), portfolio.MinimumVariance()))


def scores() -> Allocator:
    return trained(Allocator(models.GraphScores(states()), portfolio.Projected()))


def flow() -> NeuralSplineFlow:
    return trained(NeuralSplineFlow(3, 2, transforms=2, hidden=[8]))


# In a process of its own: while it traces, sizes are tensors, which the checks of types at run time refuse.
TRACES = """
import warnings, sys
from pathlib import Path
from tests.deploy.test_edge import *

folder = Path(sys.argv[1])
for make in (transformer, graph, flow):
    program = program_of(model := make())
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        to_torchscript(model, path := folder / f"{make.__name__}.pt")
    assert any("torch has deprecated TorchScript; deploy.export" in str(one.message) for one in told)
    with pytest.raises(ArtefactError, match="holds code"):
        open_artefact(path)
    artefact = open_artefact(path, trust=True)
    for sizes in ({"B": 1}, {"B": 9, "C": 2}, {"B": 4, "C": 30, "N": 12}, {"B": 2, "C": 1, "N": 2, "K": 1}):
        given = {letter: size for letter, size in sizes.items() if letter in program.letters}
        assert differences(program, artefact, given)[1] < 1e-5
with pytest.raises(ValueError, match="C=21 it differs .* the trace has sizes in it. Use deploy.export"):
    to_torchscript(transformer(context=8), folder / "baked.pt")
assert not (folder / "baked.pt").exists()
print("held")
"""


@pytest.mark.deploy
def test_a_trace_holds_at_other_sizes_or_is_refused(tmp_path):
    done = subprocess.run([sys.executable, "-c", TRACES, str(tmp_path)], capture_output=True, text=True)
    assert done.stdout.strip() == "held", done.stderr[-3000:]


def test_parity_sees_a_wrong_number_a_wrong_shape_and_a_nan():
    program = program_of(flow())
    assert differences(program, program, {"B": 3}) == (0, 0)
    absolute, relative = differences(program, lambda *x: (program(*x)[0] * 1.001,), {"B": 3})
    assert 0.9e-3 < relative < 1.1e-3 < absolute
    for wrong in (lambda *x: (program(*x)[0][:1],), lambda *x: (program(*x)[0] * torch.nan,)):
        assert differences(program, wrong, {"B": 3}) == (torch.inf, torch.inf)

    def fails(*_):
        raise RuntimeError("no room")

    with pytest.raises(ValueError, match=r"does not run at B=2 \(no room\): why"):
        hold(program, fails, [{"B": 2}], 1e-5, "why")


def test_bounds_are_of_the_axes_that_vary():
    program = program_of(transformer())
    assert bounds_of(program, {"B": 8}) == {"B": 8, "C": 256}
    assert max(max(sizes.values()) for sizes in probes(program, {"B": 4, "C": 6})) == 6
    with pytest.raises(ValueError, match="there is no axis 'N'"):
        bounds_of(program, {"N": 8})
    with pytest.raises(ValueError, match="'B' is 1, but must be 2 or more"):
        bounds_of(program, {"B": 1})


def test_a_missing_extra_is_named(monkeypatch, tmp_path):
    for name, write, extra in (
        ("executorch", to_executorch, "executorch"),
        ("coremltools", to_coreml, "coreml"),
    ):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ImportError, match=rf"qtorch-finance\[{extra}\]"):
            write(transformer(), tmp_path / "model")


@pytest.mark.deploy
@pytest.mark.parametrize(
    "make",
    [
        transformer,
        flow,
        *(pytest.param(one, marks=pytest.mark.slow) for one in (patches, panel, flow_head, graph, scores)),
    ],
)
def test_executorch_computes_the_models_numbers(make, tmp_path):
    program = program_of(model := make())
    to_executorch(model, path := tmp_path / "model.pte", most={"B": 8})
    artefact = open_artefact(path, trust=True)
    for sizes in (
        {"B": 1, "N": 1, "K": 2},
        {"B": 8, "C": 2, "N": 3},
        {"B": 3, "C": 40, "N": 12, "K": 1},
        {"B": 2, "C": 1, "N": 5},
    ):
        given = {letter: size for letter, size in sizes.items() if letter in program.letters}
        assert differences(program, artefact, given)[1] < 1e-5
    assert describe_artefact(path)["options"]["portable"]
    with pytest.raises(ValueError, match="the axis 'B' has 9, but this program was made for 8"):
        artefact(*program.example(B=9))
    inputs = program.example()
    first = artefact(*inputs)
    kept = [output.clone() for output in first]
    artefact(*program.example(B=2))
    assert all(torch.equal(a, b) for a, b in zip(first, kept, strict=True))


@pytest.mark.deploy
def test_executorch_refuses_recurrent_layers(tmp_path):
    with pytest.raises(ValueError, match=r"no kernel of recurrent layers.*Use deploy\.export"):
        to_executorch(gru(), tmp_path / "model.pte")
    assert not list(tmp_path.iterdir())


CONVERT = (panel, patches, patch_inputs, gru, lstm, flow_head, flow, graph, scores)


def taken(described) -> list[tuple[int, int]]:
    """The least and the largest size of each axis of an input."""
    array = described.type.multiArrayType
    ranges = [(axis.lowerBound, axis.upperBound) for axis in array.shapeRange.sizeRanges]
    return ranges or [(size, size) for size in array.shape]


@pytest.mark.deploy
@pytest.mark.parametrize("make", [transformer, *(pytest.param(one, marks=pytest.mark.slow) for one in CONVERT)])
def test_coreml_converts(make, tmp_path):
    program = program_of(model := make())
    to_coreml(model, path := tmp_path / "model.mlpackage.zip", most={"B": 8})
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path)
    import coremltools

    spec = coremltools.utils.load_spec(str(tmp_path / "model.mlpackage"))
    for ours, theirs in (
        (program.signature.inputs, spec.description.input),
        (program.signature.outputs, spec.description.output),
    ):
        assert [one.name for one in ours] == [one.name for one in theirs]
        assert all(b.shortDescription.startswith(a.meaning) for a, b in zip(ours, theirs, strict=True))
    bounds = bounds_of(program, {"B": 8})
    for ours, theirs in zip(program.signature.inputs, spec.description.input, strict=True):
        assert taken(theirs) == [(1, bounds[axis]) if axis in bounds else (axis, axis) for axis in ours.axes]
    assert json.loads(spec.description.metadata.userDefined["qtorch.signature"]) == program.signature.to_dict()
    with pytest.raises(ArtefactError, match="Apple's devices alone"):
        open_artefact(Path(path))


@pytest.mark.deploy
def test_coreml_names_what_it_does_not_take(tmp_path):
    with pytest.raises(ValueError, match=r"coremltools does not take .*_linalg_svd.*Use deploy\.export"):
        to_coreml(distance_aware(), tmp_path / "model.mlpackage.zip")
    assert not list(tmp_path.iterdir())


@pytest.mark.deploy
@pytest.mark.parametrize("write", [to_executorch, to_coreml])
def test_axes_that_are_not_free_are_refused(write, tmp_path):
    mixer = models.OverLearnedGraph(LearnedGraph(8, k=2), GATv2(8, 8, weighted=True))
    states = models.AssetGraph(models.Transformer(F, width=8, depth=1, heads=2), estimates=2, width=8, mixers=[mixer])
    model = Allocator(models.GraphCovariance(states), portfolio.MinimumVariance())
    with pytest.raises(ValueError, match=r"(?s)not every axis .* is free .*Use deploy\.export"):
        write(model, tmp_path / "model")
    assert not list(tmp_path.iterdir())
