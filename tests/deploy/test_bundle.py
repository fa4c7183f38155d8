import pandas as pd
import pytest
import torch

from qtorch import Forecaster, heads, models
from qtorch.data import Panel
from qtorch.deploy import BundleError, bundle_digest, inspect_bundle, load, pair, save, weights
from qtorch.nn import build, describe
from tests.deploy.conftest import edit


def test_a_saved_model_forecasts_the_same_bits(model, prices, tmp_path):
    save(model, tmp_path, {"as_of": "2019-08-30"})
    again, about = load(tmp_path)
    panel = Panel.from_frame(prices)
    a, b = (m.forecast(panel, "2019-08-30", min_history=30).value_at_risk(0.99) for m in (model, again))
    assert torch.equal(a, b)
    assert again.spec == model.spec
    assert about == {"as_of": "2019-08-30"}


def test_a_class_not_of_qtorch_must_be_allowed(tmp_path, spec, model):
    save(Forecaster(Plain(len(spec.features)), heads.StudentT(4, spec.horizons), spec), tmp_path)
    with pytest.raises(BundleError, match="outside the allowed packages"):
        load(tmp_path)
    with pytest.raises(ValueError, match="allow='tests': give a list"):
        load(tmp_path, allow="tests")
    assert isinstance(load(tmp_path, allow=["tests"])[0].network.encoder, Plain)


class Plain(torch.nn.Module):
    """Makes its weights in a way that depends on their values."""

    layout, causal = "asset", True

    def __init__(self, in_features: int) -> None:
        super().__init__()
        self.in_features = in_features
        size = int(torch.ones(4).nonzero().shape[0])
        self.project = torch.nn.Linear(in_features, size)

    def forward(self, inputs, mask):
        return self.project(inputs)


def test_a_bundle_can_be_pinned(whole):
    digest = bundle_digest(whole)
    assert load(whole, sha256=digest)[1] == {"desk": "rates"}
    assert inspect_bundle(whole)["sha256"] == digest
    with pytest.raises(BundleError, match="but 0000 is wanted"):
        load(whole, sha256="0000")


def test_loading_leaves_the_generator_as_it_was(whole):
    before = torch.get_rng_state()
    load(whole)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_older_torch_is_warned_of(bundle):
    edit(bundle, "versions", "torch", value="9.0.1")
    with pytest.warns(UserWarning, match=r"written with torch 9.0.1, and read with"):
        load(bundle)


def test_what_a_fit_saw_is_kept(prices, spec, tmp_path):
    encoder = models.Recurrent(len(spec.features), width=4)
    model = Forecaster(encoder, heads.Normal(4, spec.horizons), spec)
    panel = Panel.from_frame(prices)
    model.fit(panel, until="2019-08-20", validation_start="2019-08-01", max_epochs=1)
    model.fit(panel, until="2019-08-20", max_epochs=1)
    first, second = model.trained_on
    assert first.assets == {"AAA": "XNYS", "BBB": "XNYS", "EEE": "XECB"}
    assert first.exchanges == ("XECB", "XNYS")
    assert (first.first, first.through, first.validated_through) == ("2019-06-03", "2019-07-31", "2019-08-20")
    assert first.scores.keys() == {"val_loss"}
    assert (second.through, second.validated_through, second.scores) == ("2019-08-20", None, {})
    save(model, tmp_path)
    assert load(tmp_path)[0].trained_on == model.trained_on
    about = inspect_bundle(tmp_path)
    assert about["calendars"] == {"exchanges": ["XECB", "XNYS"], "effects": ["gap_days", "next_gap_days"]}
    assert [each["name"] for each in about["inputs"]] == list(spec.features.names)


def test_what_cannot_be_kept_is_refused_and_nothing_is_written(model, tmp_path):
    for metadata, error, words in (
        ({"loss": float("nan")}, ValueError, "finite numbers"),
        ({"date": pd.Timestamp("2020-01-01")}, TypeError, "such as str"),
    ):
        with pytest.raises(error, match=words):
            save(model, tmp_path / "bad", metadata)
    with torch.no_grad():
        model.network.head.project.bias.fill_(torch.nan)
    with pytest.raises(ValueError, match="head.project.bias .* not finite"):
        save(model, tmp_path / "bad")
    assert not (tmp_path / "bad").exists()


@pytest.mark.parametrize("moment", range(4))
def test_a_killed_save_leaves_the_old_model_or_the_new_one(bundle, model, monkeypatch, moment):
    """The process ends before the n-th of the four steps that change the folder."""
    (bundle / "notes.txt").write_text("mine")
    calls = []

    class Killed(BaseException):
        pass

    def dying(original):
        def step(*arguments):
            if len(calls) == moment:
                raise Killed
            calls.append(arguments)
            return original(*arguments)

        return step

    monkeypatch.setattr(pair, "_write", dying(pair._write))
    monkeypatch.setattr(pair.os, "replace", dying(pair.os.replace))
    with pytest.raises(Killed):
        save(model, bundle, {"desk": "new"})
    monkeypatch.undo()
    again, about = load(bundle)
    assert about == {"desk": "new" if moment == 3 else "rates"}
    if moment == 3:
        assert torch.equal(again.network.head.project.weight, model.network.head.project.weight)
    save(model, bundle, {"desk": "newer"})
    assert load(bundle)[1] == {"desk": "newer"}
    assert sorted(file.name for file in bundle.iterdir()) == ["model.json", "notes.txt", "weights.safetensors"]


def test_weights_that_are_swapped_after_they_were_hashed_are_not_read(bundle, whole, monkeypatch):
    content_of = weights.content_of

    def swapped(folder, sha256, root):
        content = content_of(folder, sha256, root)
        (folder / weights.FILE).write_bytes(b"other")
        return content

    wanted = load(whole)[0].network.state_dict()
    monkeypatch.setattr(weights, "content_of", swapped)
    read = load(bundle)[0].network.state_dict()
    assert all(torch.equal(read[name], wanted[name]) for name in wanted)


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
