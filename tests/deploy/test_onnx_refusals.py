"""Graphs and sidecars that were forged and sealed anew: refused with what is wrong, before anything runs."""

import hashlib
import json

import pytest
import torch

from qtorch import Forecaster, heads, models
from qtorch.data import Panel, WindowSpec
from qtorch.deploy import ArtefactError, describe_artefact, open_artefact, program_of, to_onnx, to_triton
from qtorch.deploy.sealed_json import sealed
from tests.conftest import make_prices

pytestmark = pytest.mark.deploy
SPEC = WindowSpec(context=8, horizons=(1, 3))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    encoder = models.Transformer(len(SPEC.features), width=8, depth=1, heads=2)
    return Forecaster(encoder, heads.StudentT(8, SPEC.horizons), SPEC)


@pytest.fixture(scope="module")
def written(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "risk.onnx"
    to_onnx(model, path)
    return path


@pytest.fixture
def forged(written, tmp_path):
    """Writes a graph and a sidecar with hashes that fit."""

    def write(content: bytes, **changes: object):
        path = tmp_path / "forged.onnx"
        said = describe_artefact(written) | changes | {"file_sha256": hashlib.sha256(content).hexdigest()}
        said.pop("sha256")
        path.write_bytes(content)
        path.with_name("forged.onnx.json").write_text(json.dumps(sealed(said)))
        return path

    return write


def elsewhere(content: bytes, where: str) -> bytes:
    """A graph some of whose numbers are in another file."""
    import onnx

    graph = onnx.load_model_from_string(content)
    if where == "a weight":
        tensor = graph.graph.initializer[0]
    else:
        node = graph.graph.node.add(op_type="Constant", output=["unused"])
        tensor = node.attribute.add(name="value", type=onnx.AttributeProto.TENSOR).t
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../other.bin")
    return graph.SerializeToString()


@pytest.mark.parametrize("where", ["a weight", "a constant in a node"])
def test_numbers_in_other_files_are_refused(written, forged, tmp_path, where):
    path = forged(elsewhere(written.read_bytes(), where))
    with pytest.raises(ArtefactError, match="are in another file"):
        open_artefact(path)
    with pytest.raises(ValueError, match="are in another file"):
        to_triton(path, tmp_path / "repository", "risk")
    assert not list(tmp_path.rglob("model.onnx"))


def test_what_is_no_graph_is_refused(forged):
    with pytest.raises(ArtefactError, match="no graph that ONNX Runtime takes"):
        open_artefact(forged(b"garbage"))


def test_a_sidecar_of_another_graph_is_refused(written, forged):
    content, signature = written.read_bytes(), describe_artefact(written)["signature"]
    renamed = [signature["outputs"][0] | {"name": "other"}, *signature["outputs"][1:]]
    for changed, words in (
        (signature | {"inputs": signature["inputs"][:1]}, "the graph has 'mask' of 2 axes"),
        (signature | {"outputs": renamed}, "the graph has 'df' of 2 axes, which its sidecar has not"),
        ({}, "a signature has lists of inputs and of outputs"),
        (signature | {"inputs": 3}, "a signature has lists of inputs and of outputs"),
    ):
        with pytest.raises(ArtefactError, match=words):
            open_artefact(forged(content, signature=changed))


def test_outputs_are_taken_by_their_names(model, written, forged):
    signature = describe_artefact(written)["signature"]
    swapped = signature | {"outputs": signature["outputs"][::-1]}
    inputs = program_of(model).example(B=2, C=5)
    other = open_artefact(forged(written.read_bytes(), signature=swapped))(*inputs)
    for ours, theirs in zip(program_of(model)(*inputs), other[::-1], strict=True):
        torch.testing.assert_close(theirs, ours)


def test_absurd_windows_are_refused_before_they_are_made(written, forged):
    said = describe_artefact(written)["model"]
    path = forged(written.read_bytes(), model=said | {"windows": said["windows"] | {"context": 1 << 33}})
    panel = Panel.from_frame(make_prices({"AAA": "XNYS"}, "2018-01-04", "2018-12-28", 2))
    with pytest.raises(ValueError, match=r"8,589,934,592 sessions is above 32,768"):
        open_artefact(path).forecast(panel, panel.dates[-1])


def test_the_file_alone_forecasts(model, written):
    panel = Panel.from_frame(make_prices({"AAA": "XNYS", "TTT": "XTKS"}, "2018-01-04", "2018-12-28", 2))
    dates = panel.dates[-3:]
    ours, theirs = model.forecast(panel, dates), open_artefact(written).forecast(panel, dates)
    torch.testing.assert_close(theirs.value_at_risk(0.99), ours.value_at_risk(0.99), rtol=1e-5, atol=0)
