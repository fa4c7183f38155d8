"""Artefacts against their models, in a process of its own: run-time checks of annotations can't be exported."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from qtorch import Forecaster, models, portfolio
from qtorch.data import Panel, load_sample
from qtorch.deploy import (
    Artefact,
    Program,
    Signature,
    export,
    load,
    open_artefact,
    package,
    program_of,
    save,
    to_onnx,
    to_triton,
    triton_config,
)
from qtorch.deploy.parity import hold, probes
from qtorch.nn.graph import RelationalGCN
from qtorch.portfolio.graphs import GraphBuilder
from qtorch.training import Allocator
from tests.deploy.exported import ENCODERS, FLOWS, GRAPHS, HEADS, JOINT, SPEC, D, moved


def forecaster(encoder: str, head: str) -> Forecaster:
    return Forecaster(ENCODERS[encoder](), (HEADS | JOINT)[head](), SPEC)


def allocator(network: Any = models.GraphCovariance, layer: Any = portfolio.MinimumVariance) -> Allocator:
    states = models.AssetGraph(ENCODERS["temporal"](), estimates=2, width=D, mixers=[GRAPHS["transformer"]()])
    return Allocator(network(states), layer(), SPEC)


def relational() -> Allocator:
    """One that asks for three kinds of edges: of correlations, of labels and of relations."""
    mixers = [models.OverGraph(RelationalGCN(D, D, kinds=3))]
    states = models.AssetGraph(ENCODERS["temporal"](), estimates=2, width=D, mixers=mixers)
    graphs = GraphBuilder(labels={"AAPL": "shares", "KO": "shares", "XOM": "shares"}, relations=[("KO", "XOM", 0)])
    return Allocator(models.GraphCovariance(states), portfolio.MinimumVariance(), SPEC, graphs=graphs)


MODELS: dict[str, Callable[[], Any]] = {
    "transformer": lambda: forecaster("temporal", "student"),
    "patches": lambda: forecaster("patch", "mixture"),
    "gru": lambda: forecaster("gru", "skewed"),
    "lstm": lambda: forecaster("lstm", "student"),
    "panel": lambda: forecaster("panel", "copula"),
    "flow head": lambda: forecaster("temporal", "flow"),
    "coupling": lambda: forecaster("panel", "coupling"),
    "attentional": lambda: forecaster("panel", "attentional"),
    "flow": FLOWS["NeuralSplineFlow"],
    "covariance": allocator,
    "relational": relational,
    "scores": lambda: allocator(models.GraphScores, portfolio.Projected),
}
WRITERS = {"export": (export, "pt2"), "package": (package, "pt2"), "onnx": (to_onnx, "onnx")}


def held(kind: str, name: str, folder: str, tolerance: str) -> None:
    """An artefact gives what its model gives at other sizes than the example's, whatever stands behind the masks."""
    writer, ending = WRITERS[kind]
    torch.manual_seed(0)
    model = moved(MODELS[name.removeprefix("density of ")]())
    options = {"density": True} if name.startswith("density of ") else {}
    path = Path(folder) / f"{kind}_{name}.{ending}"
    writer(model, path, **options)
    agree(open_artefact(path, trust=True), program_of(model, **options), float(tolerance), f"{name} by {kind}")


def agree(artefact: Artefact, program: Program, tolerance: float, what: str) -> None:
    assert artefact.signature == program.signature
    hold(program, artefact, probes(program), tolerance, what)
    strided = [tensor.mT.contiguous().mT if tensor.ndim > 1 else tensor for tensor in program.example()]
    for a, b in zip(artefact(*strided), artefact(*program.example()), strict=True):
        assert torch.equal(a, b), f"{what}: the layout of memory changes outputs"
    for edges, words in ((("neighbours", 99), "but nodes are 0 to"), (("weights", torch.nan), "must be finite")):
        name, value = edges
        given = dict(zip([spec.name for spec in program.signature.inputs], program.example(), strict=True))
        if name in given:
            given[name][given["present"]] = value
            for each in (program, artefact):
                with pytest.raises(ValueError, match=words):
                    each(*given.values())
    if "kinds" in given:
        given = dict(zip(given, program.example(), strict=True))
        given["kinds"][given["present"]] = 99
        with pytest.raises(ValueError, match="is 99, but kinds are 0 to 2"):
            artefact(*given.values())


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float, where: str) -> None:
    """Relative to the largest number of the tensor, since float32 sums of terms of that size are rounded so."""
    assert a.dtype == b.dtype, where
    assert a.shape == b.shape, where
    off = ((a.double() - b.double()).abs().max() / b.double().abs().max().clamp(min=1e-6)).item()
    assert off <= tolerance, f"{where}: {off:.1e} apart"


def small_panel() -> Panel:
    return Panel.from_frame(load_sample().query("asset in ['AAPL', 'KO', 'XOM', 'EURUSD'] and date > '2021-06'"))


def beyond_onnx(folder: str) -> None:
    """A density of functions that ONNX cannot say is refused in a sentence, and no file is left."""
    path = Path(folder) / "density.onnx"
    with pytest.raises(ValueError, match=r"ONNX has no aten.special_scaled_modified_bessel_k1, .* take deploy.export"):
        to_onnx(forecaster("panel", "copula, nig"), path, density=True)
    assert not list(path.parent.iterdir())


def lone_asset(folder: str) -> None:
    """A program over a learned graph says what it does not take, where one asset has none to hear from."""
    states = models.AssetGraph(ENCODERS["temporal"](), estimates=2, width=D, mixers=[GRAPHS["learned"]()])
    model = moved(Allocator(models.GraphCovariance(states), portfolio.MinimumVariance(), SPEC))
    export(model, Path(folder) / "learned.pt2")
    artefact, program = open_artefact(Path(folder) / "learned.pt2", trust=True), program_of(model)
    hold(program, artefact, [sizes for sizes in probes(program) if sizes["N"] > 1], 1e-6, "learned")
    with pytest.raises(ValueError, match=r"exported for other sizes \(Guard failed: .*\)\. Give larger ones"):
        artefact(*program.example(B=1, N=1, C=1, K=1))


def forecasts(kind: str, name: str, folder: str) -> None:
    """An artefact forecasts a panel as its model does."""
    writer, ending = WRITERS[kind]
    torch.manual_seed(0)
    model = moved(MODELS[name]())
    path = Path(folder) / f"forecasts_{name}.{ending}"
    writer(model, path, metadata={"desk": "rates"})
    artefact, panel = open_artefact(path, trust=True), small_panel()
    assert artefact.metadata == {"desk": "rates"}
    agree(artefact, program_of(model), 0.0 if kind == "export" else 1e-5, f"{name} by {kind}")
    dates = panel.dates[-3:]
    options = {}
    if name == "coupling":
        with pytest.raises(ValueError, match="the law of this CouplingFlowHead evaluates a network"):
            artefact.forecast(panel, dates)
        save(model, Path(folder) / "bundle")
        options = {"head": load(Path(folder) / "bundle")[0].network.head}
    mine, other = artefact.forecast(panel, dates, **options), model.forecast(panel, dates)
    assert torch.equal(mine.mask, other.mask)
    if name == "coupling":
        a, b = (each.portfolio(each.mask.double() / each.mask.sum(1, keepdim=True)) for each in (mine, other))
        close(a.mean, b.mean, 1e-4, "the law of a portfolio")
    else:
        torch.testing.assert_close(mine.value_at_risk(0.99), other.value_at_risk(0.99), rtol=2e-5, atol=1e-7)


def weights(kind: str, name: str, folder: str) -> None:
    """An artefact allocates as its model does."""
    writer, ending = WRITERS[kind]
    torch.manual_seed(0)
    model = moved(MODELS[name]())
    path = Path(folder) / f"weights_{name}.{ending}"
    writer(model, path)
    panel = small_panel()
    mine, other = (each.allocate(panel, panel.dates[-2:]) for each in (open_artefact(path, trust=True), model))
    assert ((mine - other).abs() < 2e-5).all(axis=None)
    assert (mine.sum(axis=1) - 1).abs().max() < 1e-5


def described(folder: str) -> None:
    """An ONNX graph says what its tensors mean, and so does the repository of Triton that it is put into."""
    import onnx

    model = moved(MODELS["panel"]())
    home = to_triton(model, folder, "risk", 1)
    graph = onnx.load(home / "1" / "model.onnx")
    signature = program_of(model).signature
    names = {"B": "batch", "C": "context", "N": "assets"}
    for values, specs in ((graph.graph.input, signature.inputs), (graph.graph.output, signature.outputs)):
        for value, spec in zip(values, specs, strict=True):
            shape = [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
            assert (value.name, value.doc_string) == (spec.name, spec.meaning)
            assert shape == [names.get(axis, axis) for axis in spec.axes]
    said = {each.key: json.loads(each.value) for each in graph.metadata_props}
    assert Signature.from_dict(said["qtorch.signature"]) == signature
    assert said["qtorch.windows"]["horizons"] == [1, 3]
    assert said["qtorch.units"]["mask"].startswith("True where")
    assert (home / "config.pbtxt").read_text() == triton_config("risk", signature)
    to_triton(home / "1" / "model.onnx", folder, "risk", 2)
    assert (home / "2" / "model.onnx").read_bytes() == (home / "1" / "model.onnx").read_bytes()
    assert open_artefact(home / "2" / "model.onnx").signature == signature
    with pytest.raises(ValueError, match="version 1 of 'risk' means something else"):
        to_triton(MODELS["transformer"](), folder, "risk", 3)
    with pytest.raises(ValueError, match="name=../up"):
        to_triton(model, folder, "../up")


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
