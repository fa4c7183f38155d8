"""Served models against the eager ones: numbers, batches, masks, and refusals of what does not fit."""

import dataclasses
import json
import re
from typing import Any

import numpy as np
import pytest
import torch

from qtorch import Forecaster, heads, models, portfolio
from qtorch.data import WindowSpec
from qtorch.data.window import Window
from qtorch.deploy import save
from qtorch.deploy.server.forecaster_service import MEASURES
from qtorch.deploy.server.protocol import InferRequest, InferResponse, Limits, RequestedOutput, RequestError
from qtorch.deploy.server.served_model import ServedModel
from qtorch.deploy.server.warm_up import warm_up
from qtorch.nn.graph import Graph
from qtorch.risk import expected_shortfall, value_at_risk
from qtorch.training import Allocator
from tests.conftest import make_model

SPEC = WindowSpec(context=8, horizons=(1, 5))
F = len(SPEC.features)
TOLERANCE = 1e-6  # of the volatility: the batch's size decides in which order float32 sums are taken


def of_asset(encoder: torch.nn.Module) -> Forecaster:
    head = heads.StudentT(encoder.out_features, SPEC.horizons)
    torch.nn.init.normal_(head.project.weight, std=0.3)
    return Forecaster(encoder, head, SPEC).eval()


def of_panel(head: str) -> Forecaster:
    marginals = heads.StudentT(8, SPEC.horizons)
    torch.nn.init.normal_(marginals.project.weight, std=0.3)
    made = {
        "marginals": lambda: marginals,
        "copula": lambda: heads.JointHead(marginals, heads.CopulaHead(8, 2)),
        "flow": lambda: heads.CouplingFlowHead(8, SPEC.horizons, 2),
    }
    return Forecaster(models.PanelTransformer(F, width=8, depth=1, heads=2), made[head](), SPEC).eval()


MADE = {
    "asset": lambda: make_model(SPEC),
    "recurrent": lambda: of_asset(models.Recurrent(F, width=8, dropout=0.0)),
    "marginals": lambda: of_panel("marginals"),
    "copula": lambda: of_panel("copula"),
    "flow": lambda: of_panel("flow"),
}


class Served(dict):
    """Models by name, saved and loaded when they are first asked for."""

    def __init__(self, root) -> None:
        self.root = root

    def __missing__(self, name: str) -> ServedModel:
        torch.manual_seed(0)
        save(MADE[name](), self.root / name / "1", {"as_of": "2024-05-03"})
        self[name] = ServedModel(self.root / name / "1", limits=Limits(max_batch=16))
        return self[name]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    return Served(tmp_path_factory.mktemp("models"))


def request(name: str, *shape: int, seed: int = 0, outputs: tuple[str, ...] = (), **parameters: Any) -> InferRequest:
    """Windows with holes; the first is padded where it can be."""
    rng = np.random.default_rng(seed)
    mask = rng.random(shape) < 0.8
    mask[0, : shape[1] // 2] = False
    mask[:, -1] = True
    arrays = {
        "inputs": np.where(mask[..., None], rng.normal(size=(*shape, F)), np.nan).astype(np.float32),
        "mask": mask,
        "scale": rng.uniform(0.005, 0.02, (shape[0], *shape[2:])).astype(np.float32),
    }
    wanted = [RequestedOutput(output) for output in outputs] or None
    return InferRequest(name, None, f"{seed}", parameters, arrays, wanted)


def with_input(given: InferRequest, name: str, value: Any) -> InferRequest:
    return dataclasses.replace(given, inputs=given.inputs | {name: np.asarray(value)})


def eager(model: Forecaster, given: InferRequest, levels=(0.975, 0.99)) -> dict[str, np.ndarray]:
    """By the forecaster's own forward, of windows as they are."""
    inputs, mask, scale = (torch.from_numpy(given.inputs[name]) for name in ("inputs", "mask", "scale"))
    target = torch.zeros(len(inputs), len(SPEC.horizons), *inputs.shape[2:-1])
    index = torch.zeros(len(inputs), dtype=torch.int64)
    window = Window(torch.where(mask.unsqueeze(-1), inputs, 0.0), mask, target, target > 0, scale, index, index)
    with torch.no_grad():
        law: Any = model(window)
    law = getattr(law, "marginals", law)
    measured = {
        "mean": law.mean,
        "volatility": law.variance.sqrt(),
        "value_at_risk": torch.stack([value_at_risk(law, level) for level in levels], -1),
        "expected_shortfall": torch.stack([expected_shortfall(law, level) for level in levels], -1),
    }
    return {name: value.double().numpy() for name, value in measured.items()}


def close(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert list(found) == list(expected)
    unit = np.nanmax(expected.get("volatility", 0.01))
    for name, value in expected.items():
        assert found[name].shape == value.shape
        assert found[name].dtype == np.float64
        np.testing.assert_allclose(found[name], value, rtol=10 * TOLERANCE, atol=TOLERANCE * unit)


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("asset", [(1, 8), (5, 8), (3, 4), (2, 1), (16, 8)]),
        pytest.param("recurrent", [(1, 8), (4, 8), (3, 5), (2, 2)], marks=pytest.mark.slow),
        pytest.param("marginals", [(1, 8, 3), (2, 8, 3), (3, 5, 3), (2, 8, 6), (1, 4, 1)], marks=pytest.mark.slow),
        ("copula", [(1, 8, 3), (2, 8, 3), (3, 5, 3), (2, 8, 6)]),
    ],
)
def test_a_batch_of_requests_equals_the_eager_model_on_each(served, name, shapes):
    model = served[name]
    requests = [request(name, *shape, seed=n) for n, shape in enumerate(shapes)]
    for given, answer in zip(requests, model.run(requests), strict=True):
        assert isinstance(answer, InferResponse), answer
        assert (answer.model, answer.version, answer.id) == (name, "1", given.id)
        close(answer.outputs, eager(model.model, given))


UNIVARIATE = {
    head.__name__: head
    for head in (getattr(heads, name) for name in heads.__all__)
    if isinstance(head, type) and issubclass(head, heads.Parametric) and head is not heads.Parametric
}
LAWS = UNIVARIATE | {
    "Ensemble": lambda D, horizons: heads.Ensemble(heads.StudentT(D, horizons), 3, shared=True),
    "Variational": lambda D, horizons: heads.Variational(heads.StudentT(D, horizons)),
    "DrawnWeights": lambda D, horizons: heads.DrawnWeights(heads.StudentT(D, horizons), 3),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LAWS)
def test_every_head_is_served(name, tmp_path):
    model = Forecaster(models.Recurrent(F, width=8, dropout=0.0), LAWS[name](8, SPEC.horizons), SPEC).eval()
    save(model, tmp_path / name / "1")
    served = ServedModel(tmp_path / name / "1")
    requests = [request(name, *shape, seed=n) for n, shape in enumerate([(1, 8), (5, 8), (2, 3), (3, 8)])]
    for given, answer in zip(requests, served.run(requests), strict=True):
        assert isinstance(answer, InferResponse), answer
        close(answer.outputs, eager(served.model, given))


@pytest.mark.slow
def test_an_attentional_copula_is_served(tmp_path):
    head = heads.JointHead(heads.StudentT(8, SPEC.horizons), heads.AttentionalCopulaHead(8))
    save(Forecaster(models.PanelTransformer(F, width=8, depth=1, heads=2), head, SPEC).eval(), tmp_path / "a" / "1")
    served = ServedModel(tmp_path / "a" / "1")
    given = request("a", 2, 8, 4)
    given.inputs["mask"][1, -1, 2] = False
    (answer,) = served.run([given])
    assert np.isnan(answer.outputs["mean"]).sum() == len(SPEC.horizons)


def test_an_answer_alone_is_that_of_the_batch(served):
    requests = [request("asset", *shape, seed=n) for n, shape in enumerate([(1, 8), (7, 8), (2, 3), (5, 8)])]
    for given, answer in zip(requests, served["asset"].run(requests), strict=True):
        close(served["asset"].run([given])[0].outputs, answer.outputs)


def test_what_is_masked_changes_no_bit(served):
    one = request("asset", 3, 8, seed=1)
    other = with_input(one, "inputs", np.where(one.inputs["mask"][..., None], one.inputs["inputs"], np.inf))
    a, b = served["asset"].run([one])[0], served["asset"].run([other])[0]
    for name, value in a.outputs.items():
        assert np.array_equal(value, b.outputs[name])


def test_assets_whose_last_session_is_masked_have_no_number(served):
    given = request("marginals", 2, 8, 3, seed=1)
    given.inputs["mask"][1, -1, 2] = False
    given.inputs["scale"][1, 2] = np.nan
    (answer,) = served["marginals"].run([given])
    for name in ("mean", "volatility", "value_at_risk", "expected_shortfall"):
        missing = np.isnan(answer.outputs[name])
        assert missing[1, :, 2].all()
        assert missing.sum() == missing[1, :, 2].size


def test_levels_and_outputs_are_those_asked_for(served):
    given = request("asset", 2, 8, outputs=("value_at_risk", "law.df"), levels=[0.5, 0.9, 0.999])
    (answer,) = served["asset"].run([given])
    assert list(answer.outputs) == ["value_at_risk", "law.df"]
    expected = eager(served["asset"].model, given, (0.5, 0.9, 0.999))["value_at_risk"]
    np.testing.assert_allclose(answer.outputs["value_at_risk"], expected, rtol=1e-5, atol=1e-8)
    assert answer.outputs["law.df"].dtype == np.float32
    as_text = dataclasses.replace(given, parameters={"levels": "0.5, 0.9,0.999"})
    assert np.array_equal(served["asset"].run([as_text])[0].outputs["value_at_risk"], answer.outputs["value_at_risk"])


def test_without_a_scale_measures_are_in_its_units(served):
    given = request("asset", 2, 8)
    (answer,) = served["asset"].run([given])
    bare = dataclasses.replace(given, inputs={name: given.inputs[name] for name in ("inputs", "mask")})
    (unit,) = served["asset"].run([bare])
    scale = given.inputs["scale"][:, None, None]
    np.testing.assert_allclose(unit.outputs["value_at_risk"] * scale, answer.outputs["value_at_risk"], rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_floats_are_taken(served, dtype):
    given = request("asset", 2, 8)
    rounded = given.inputs["inputs"].astype(dtype)
    (answer,) = served["asset"].run([with_input(given, "inputs", rounded)])
    (same,) = served["asset"].run([with_input(given, "inputs", rounded.astype(np.float32))])
    assert np.array_equal(answer.outputs["mean"], same.outputs["mean"])


def nan_where_usable(given: InferRequest) -> InferRequest:
    array = given.inputs["inputs"].copy()
    array[1, -1, 3] = np.nan
    return with_input(given, "inputs", array)


GOOD = request("asset", 2, 8)
ONES = np.ones((2, 8), bool)
REFUSED = {
    "no mask": (dataclasses.replace(GOOD, inputs={"inputs": GOOD.inputs["inputs"]}), 422, "input 'mask' is missing"),
    "unknown input": (with_input(GOOD, "x", [1.0]), 422, "no input 'x'. It takes inputs, mask, scale"),
    "unknown output": (request("asset", 2, 8, outputs=("median",)), 422, "no output 'median'"),
    "NaN": (nan_where_usable(GOOD), 422, r"'inputs': nan at \[1, 7, 3\], where the mask is true"),
    "overflow": (
        with_input(GOOD, "inputs", np.full((2, 8, F), 3e38, "f4")),
        422,
        "window 0: the model's numbers overflow",
    ),
    "mask of numbers": (with_input(GOOD, "mask", ONES.astype("u1")), 422, "'mask' is UINT8, but BOOL"),
    "whole numbers": (with_input(GOOD, "inputs", np.ones((2, 8, F), "i8")), 422, "'inputs' is INT64, but FP32"),
    "beyond FP32": (with_input(GOOD, "inputs", np.full((2, 8, F), 1e200)), 400, "beyond what float32|beyond what FP32"),
    "features": (with_input(GOOD, "inputs", np.ones((2, 8, F - 1), "f4")), 422, "axis 2 must be"),
    "axes": (with_input(GOOD, "inputs", np.ones((2, F), "f4")), 422, "is needed"),
    "batch": (with_input(GOOD, "mask", np.ones((3, 8), bool)), 422, "axis 0 must be 2, not 3"),
    "sessions": (with_input(GOOD, "mask", np.ones((2, 7), bool)), 422, "axis 1 must be 8, not 7"),
    "no window": (request("asset", 1, 8), 422, "1 or more"),
    "too many": (request("asset", 17, 8), 413, "17 windows are over the limit of 16"),
    "too long": (request("asset", 2, 9), 422, "9 sessions, but the model sees 8"),
    "last masked": (
        with_input(GOOD, "mask", GOOD.inputs["mask"] & (np.arange(8) < 7)),
        422,
        "of window 0 its last session is not usable",
    ),
    "scale 0": (with_input(GOOD, "scale", np.zeros(2, "f4")), 422, r"'scale': 0.0 at \[0\]"),
    "scale negative": (with_input(GOOD, "scale", np.array([1, -1], "f4")), 422, r"'scale': -1.0 at \[1\]"),
    "scale NaN": (with_input(GOOD, "scale", np.array([1, np.nan], "f4")), 422, r"'scale': nan at \[1\]"),
    "level 1": (request("asset", 2, 8, levels=[1.0]), 422, "levels holds 1.0"),
    "level a whole number": (request("asset", 2, 8, levels=99), 422, "levels holds 99"),
    "level NaN": (request("asset", 2, 8, levels=[float("nan")]), 422, "levels holds nan"),
    "level true": (request("asset", 2, 8, levels=True), 422, "levels holds True"),
    "level of text": (request("asset", 2, 8, levels="high"), 422, "levels is 'high'"),
    "level null": (request("asset", 2, 8, levels=None), 422, "levels holds None"),
    "no parameter": (request("asset", 2, 8, level=0.999), 422, "no parameter 'level'. It has levels"),
    "no level": (request("asset", 2, 8, levels=[]), 422, "between 1 and 32"),
    "levels": (request("asset", 2, 8, levels=[0.5] * 33), 422, "between 1 and 32"),
}
REFUSED["no window"] = (
    dataclasses.replace(GOOD, inputs={name: array[:0] for name, array in GOOD.inputs.items()}),
    422,
    "1 or more",
)


def test_refused_requests_harm_no_other_of_their_batch(served):
    model = served["asset"]
    others = [request("asset", 2, 8, seed=seed, outputs=("mean",)) for seed in (5, 6)]
    refused = [
        bad if bad.outputs else dataclasses.replace(bad, outputs=others[0].outputs) for bad, _, _ in REFUSED.values()
    ]
    first, *found, last = model.run([others[0], *refused, others[1]])
    for (name, (_, status, words)), error in zip(REFUSED.items(), found, strict=True):
        assert isinstance(error, RequestError), name
        assert (name, error.status) == (name, status)
        assert re.search(words, error.message), (name, error.message)
    for given, answer in zip(others, (first, last), strict=True):
        close(answer.outputs, {"mean": model.run([given])[0].outputs["mean"]})


def test_the_levels_of_an_answer_are_told(served):
    told = [
        answer.parameters
        for answer in served["asset"].run([request("asset", 2, 8), request("asset", 2, 8, levels=0.9)])
    ]
    assert told == [{"levels": "0.975,0.99"}, {"levels": "0.9"}]
    of_protocol = {"timeout": 5, "priority": 1, "sequence_id": 7, "binary_data_output": True, "triton_x": "y"}
    (answer,) = served["asset"].run([request("asset", 2, 8, outputs=("mean",), **of_protocol)])
    assert answer.parameters == {}


@pytest.mark.parametrize("scale", [1e-40, 1e-30, 1e30, 3e38])
def test_measures_keep_to_any_scale(served, scale):
    """They are proportional to it: float32 would square it to nothing or to infinity."""
    given = with_input(request("asset", 2, 8), "scale", np.full(2, scale, "f4"))
    unit = with_input(given, "scale", np.ones(2, "f4"))
    answer, expected = served["asset"].run([given, unit])
    for name, value in expected.outputs.items():
        np.testing.assert_allclose(answer.outputs[name], value * np.float64(np.float32(scale)), rtol=1e-6)


def test_an_answer_that_is_no_number_is_refused(served, monkeypatch):
    model = served["asset"]
    whole = model.service.network

    def far(tensors, names):
        """Parameters that float32 holds, but not their squares."""
        return tuple(torch.where(tensors["scale"][:, None] == 0.5, 1e30 * x, x) for x in whole(tensors, names))

    monkeypatch.setattr(model.service, "network", far)
    refused, answer = model.run([with_input(GOOD, "scale", np.full(2, 0.5, "f4")), GOOD])
    assert isinstance(answer, InferResponse)
    assert isinstance(refused, RequestError), refused
    assert refused.status == 422
    assert "the model's numbers overflow" in refused.message


def test_laws_without_marginals_give_parameters_alone(served):
    model = served["flow"]
    (refused,) = model.run([request("flow", 2, 8, 3)])
    assert (refused.status, refused.code) == (422, "INVALID_ARGUMENT")
    assert "CouplingFlowHead has no marginals" in refused.message
    given = request("flow", 2, 8, 3, outputs=("law.df", "law.loc"))
    (answer,) = model.run([given])
    inputs, mask = (torch.from_numpy(given.inputs[name]) for name in ("inputs", "mask"))
    padded = torch.where(mask.unsqueeze(-1), inputs, 0.0)
    with torch.no_grad():
        df, loc, *_ = model.model.network(padded, mask)
    np.testing.assert_allclose(answer.outputs["law.loc"], loc, atol=1e-6)
    np.testing.assert_allclose(answer.outputs["law.df"], df, rtol=1e-6)


def test_a_failure_of_the_model_itself_is_the_one_request_s(served, monkeypatch, caplog):
    model = served["asset"]
    whole = model.service.network

    def failing(tensors, names):
        if (tensors["scale"] == 0.5).any():
            raise RuntimeError("a fault")
        return whole(tensors, names)

    monkeypatch.setattr(model.service, "network", failing)
    bad = with_input(GOOD, "scale", np.full(2, 0.5, "f4"))
    refused, answer = model.run([bad, GOOD])
    assert refused.status == 500
    assert "a fault" not in refused.message
    assert refused.message.split()[-1].rstrip(".") in caplog.text
    close(answer.outputs, eager(model.model, GOOD))


def test_batches_keep_to_the_limit(served, monkeypatch):
    model, sizes = served["asset"], []
    whole = model.service.network
    monkeypatch.setattr(model.service, "network", lambda x, names: sizes.append(len(x["mask"])) or whole(x, names))
    answers = model.run([request("asset", 6, 8, seed=n) for n in range(5)])
    assert sizes == [12, 12, 6]
    assert [answer.id for answer in answers] == ["0", "1", "2", "3", "4"]


def test_metadata_say_what_tensors_are(served):
    told = json.loads(json.dumps(served["marginals"].metadata(["1", "2"])))
    assert (told["name"], told["versions"], told["platform"]) == ("marginals", ["1", "2"], "qtorch")
    assert told["inputs"] == [
        {"name": "inputs", "datatype": "FP32", "shape": [-1, -1, -1, F]},
        {"name": "mask", "datatype": "BOOL", "shape": [-1, -1, -1]},
        {"name": "scale", "datatype": "FP32", "shape": [-1, -1]},
    ]
    outputs = {output["name"]: output for output in told["outputs"]}
    assert outputs["value_at_risk"] == {"name": "value_at_risk", "datatype": "FP64", "shape": [-1, 2, -1, -1]}
    assert outputs["law.df"] == {"name": "law.df", "datatype": "FP32", "shape": [-1, -1, 2]}
    about = told["parameters"]
    assert about["features"] == list(SPEC.features.names)
    assert "True where" in about["meanings"]["mask"]
    assert "decimals" in about["output_meanings"]["value_at_risk"]
    for spec in served["marginals"].service.outputs:  # and what comes has those axes
        answer = served["marginals"].run([request("marginals", 2, 8, 3, outputs=(spec.name,))])[0]
        sizes = {"B": 2, "N": 3, "L": 2}
        assert answer.outputs[spec.name].shape == tuple(sizes.get(axis, axis) for axis in spec.axes)


def market(rows: int, assets: int, seed: int = 0, **more: Any) -> InferRequest:
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(rows, 2, assets, 3))
    covariance = root @ root.swapaxes(-1, -2) + np.eye(assets)
    unit = 1 / np.sqrt(np.einsum("rpnn->rpn", covariance))
    dense = np.abs(rng.normal(size=(rows, assets, assets)))
    universe = np.ones((rows, assets), bool)
    graph = Graph.from_dense(torch.from_numpy(dense).float(), torch.from_numpy(universe))
    arrays = {
        "inputs": rng.normal(size=(rows, assets, 8, F)),
        "mask": rng.random((rows, assets, 8)) < 0.9,
        "universe": universe,
        "correlation": covariance * unit[..., None] * unit[..., None, :],
        "volatility": rng.uniform(0.005, 0.02, (rows, 2, assets)),
        "neighbours": graph.neighbours.numpy(),
        "present": graph.present.numpy(),
        "weights": graph.weights.numpy(),
    }
    arrays = {name: a.astype("f4") if a.dtype == np.float64 else a for name, a in arrays.items()}
    return InferRequest("allocator", None, None, {}, arrays | more, None)


@pytest.fixture(scope="module")
def allocator(tmp_path_factory):
    torch.manual_seed(0)
    encoder = models.Recurrent(F, width=4, dropout=0.0)
    states = models.AssetGraph(encoder, estimates=2, width=8)
    path = tmp_path_factory.mktemp("models") / "allocator" / "1"
    save(Allocator(models.GraphCovariance(states), portfolio.MinimumVariance(upper=0.5), SPEC), path)
    return ServedModel(path)


def warmed(model: ServedModel, monkeypatch) -> list[InferResponse]:
    """What a model answers while it is warmed up."""
    answers, run = [], model.run
    with monkeypatch.context() as patched:
        patched.setattr(model, "run", lambda requests: answers.extend(run(requests)))
        warm_up(model)
    return answers


@pytest.mark.parametrize("name", ["asset", "recurrent", "marginals", "copula"])
def test_a_forecaster_is_warmed_up_by_requests_that_it_answers(served, monkeypatch, name):
    one, several = warmed(served[name], monkeypatch)
    assert one.outputs.keys() == several.outputs.keys() == set(MEASURES)
    assert (len(one.outputs["mean"]), len(several.outputs["mean"])) == (1, 8)


def test_an_allocator_is_warmed_up_by_requests_that_it_answers(allocator, tmp_path, monkeypatch):
    groups = {"exchange": {"A": "XNYS", "B": "XLON"}}
    layer = portfolio.Projected(portfolio.Constraints(upper=0.6, caps={"exchange": 0.7}))
    states = models.AssetGraph(models.Recurrent(F, width=4), estimates=2, width=8)
    save(Allocator(models.GraphScores(states), layer, SPEC, groups=groups), tmp_path / "grouped" / "1")
    grouped = ServedModel(tmp_path / "grouped" / "1")
    for model in (allocator, grouped):
        assert [len(each.outputs["weights"]) for each in warmed(model, monkeypatch)] == [1, 8]
    assert [each.name for each in grouped.service.inputs][-1] == "group_exchange"


def test_weights_of_a_batch_are_those_of_each_alone(allocator):
    requests = [market(1, 4), market(3, 4, seed=1), market(2, 6, seed=2), market(1, 4, seed=3)]
    answers = allocator.run(requests)
    for given, answer in zip(requests, answers, strict=True):
        weights = answer.outputs["weights"]
        assert weights.shape == given.inputs["universe"].shape
        np.testing.assert_allclose(weights.sum(1), 1, atol=1e-5)
        assert (weights <= 0.5 + 1e-5).all()
        t = {name: torch.from_numpy(array) for name, array in given.inputs.items()}
        graph = Graph(t["neighbours"], t["present"], t["universe"], t["weights"])
        state = models.MarketState(t["inputs"], t["mask"], t["universe"], t["correlation"], t["volatility"], graph)
        with torch.no_grad():
            expected = allocator.model.allocation(allocator.model.network(state), t["universe"])
        np.testing.assert_allclose(weights, expected, atol=2e-5)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"universe": np.zeros((1, 4), bool)}, "no asset may be given a weight"),
        ({"volatility": np.full((1, 2, 4), np.nan, "f4")}, "'volatility': nan"),
        ({"neighbours": np.full((1, 4, 3), 9)}, r"'neighbours': 9 at .*, outside \[0, 3\]"),
        ({"tradable": np.ones((1, 4), bool)}, "Give 'holdings' too"),
        ({"holdings": np.full((1, 4), np.inf, "f4")}, "'holdings': inf"),
        ({"universe": np.arange(4)[None] == 1}, "2000-01-01"),
    ],
)
def test_a_market_that_is_none_is_refused(allocator, more, words):
    good = market(1, 4)
    neighbours = good.inputs["neighbours"].shape
    more = {k: np.resize(v, neighbours) if k == "neighbours" else v for k, v in more.items()}
    refused, answer = allocator.run([market(1, 4, **more), good])
    assert isinstance(answer, InferResponse)
    assert isinstance(refused, RequestError), refused
    assert refused.status == 422
    with pytest.raises(RequestError, match=words):
        raise refused
