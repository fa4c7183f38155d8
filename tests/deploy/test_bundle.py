import json

import pytest
import torch

from qtorch import Forecaster, heads
from qtorch.data import Panel
from qtorch.deploy import BundleError, load, save
from qtorch.nn import build, describe


def test_a_saved_model_forecasts_the_same_bits(model, prices, tmp_path):
    save(model, tmp_path, {"as_of": "2019-08-30"})
    again, about = load(tmp_path)
    panel = Panel.from_frame(prices)
    a, b = (m.forecast(panel, "2019-08-30", min_history=30).value_at_risk(0.99) for m in (model, again))
    assert torch.equal(a, b)
    assert again.spec == model.spec
    assert about == {"as_of": "2019-08-30"}


def damage_weights(folder):
    path = folder / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def truncate_weights(folder):
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:100])


def edit(folder, **changes):
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (damage_weights, "SHA-256 is not the one"),
        (truncate_weights, "SHA-256 is not the one"),
        (lambda f: (f / "weights.safetensors").unlink(), "not a usable model"),
        (lambda f: (f / "model.json").unlink(), "not readable"),
        (lambda f: (f / "model.json").write_text("{"), "not readable"),
        (lambda f: edit(f, format=99), "not a model of format 1"),
        (lambda f: edit(f, head={"class_path": "os.system", "init_args": {}}), "outside the allowed packages"),
        (lambda f: edit(f, head={"class_path": "qtorch.heads.Nothing", "init_args": {}}), "does not exist"),
        (lambda f: edit(f, encoder={"class_path": "qtorch.models.Transformer", "init_args": {}}), "in_features"),
    ],
)
def test_a_harmed_bundle_is_refused(model, tmp_path, harm, words):
    save(model, tmp_path)
    harm(tmp_path)
    with pytest.raises(BundleError, match=words):
        load(tmp_path)


def test_modules_are_described_by_their_arguments():
    head = heads.SkewedStudentT(8, (1, 10))
    spec = describe(head)
    assert spec["init_args"] == {"in_features": 8, "horizons": [1, 10]}
    assert build(spec).horizons == (1, 10)


class Forgetful(torch.nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()


def test_a_module_that_forgets_its_arguments_is_named(model, spec, tmp_path):
    with pytest.raises(TypeError, match="Forgetful does not keep its argument 'size'"):
        describe(Forgetful(3))
    with pytest.raises(TypeError, match="Forgetful"):
        save(Forecaster(Forgetful(3), model.network.head, spec), tmp_path)


def test_arguments_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="unexpected keyword argument 'colour'"):
        build({"class_path": "qtorch.models.Transformer", "init_args": {"colour": 1}}, in_features=3)
    with pytest.raises(ValueError, match="in_features=4, but the windows need 3"):
        build({"class_path": "qtorch.models.Transformer", "init_args": {"in_features": 4}}, in_features=3)
    with pytest.raises(ValueError, match="is not a torch.nn.Module"):
        build({"class_path": "qtorch.data.Panel"})
    with pytest.raises(ValueError, match="needs a class_path"):
        build({})
