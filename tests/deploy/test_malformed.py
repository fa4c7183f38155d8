"""Whatever stands in a bundle, it is loaded as it was saved or refused by a clear error; nothing of it is run."""

import copy
import hashlib
import json
import os
import resource
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from qtorch import Forecaster
from qtorch.deploy import BundleError, bounded, bundle_digest, inspect_bundle, load, model_card, save
from qtorch.training import Allocator
from tests.deploy.conftest import described, edit, reseal
from tests.deploy.test_allocators import allocator

ENCODER = ("encoder", "init_args")
OUTSIDE = "outside the allowed packages"
METRIC = '"test_crps": 0.5'


def reweigh(folder, change):
    """Changes the weights, and seals the bundle anew."""
    file = folder / "weights.safetensors"
    state = load_file(file)
    change(state)
    save_file(state, file)
    edit(folder, "weights_sha256", value=hashlib.sha256(file.read_bytes()).hexdigest())


def raw(folder, old, new):
    file = folder / "model.json"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def replaced_by(make):
    def harm(folder):
        (folder / "model.json").unlink()
        make(folder / "model.json")

    return harm


def link_outside(path):
    other = Path(tempfile.mkdtemp()) / "model.json"
    other.write_text("{}")
    path.symlink_to(other)


def pipe_of_weights(folder):
    (folder / "weights.safetensors").unlink()
    os.mkfifo(folder / "weights.safetensors")


def sealed_json(folder, **changes):
    reseal(folder, described(folder) | changes)


def named(path, **arguments):
    return {"class_path": path, "init_args": arguments}


def without(folder, name):
    about = described(folder)
    del about[name]
    reseal(folder, about)


def nested(depth):
    spec = named("qtorch.models.encoder_ensemble.EncoderEnsemble", members=2)
    for _ in range(depth):
        spec = named("qtorch.models.encoder_ensemble.EncoderEnsemble", members=2, encoder=spec)
    return spec


ALTERED = {  # by accident, or by one who does not seal it anew
    "a horizon": (lambda f: raw(f, '"horizons": [\n        1,', '"horizons": [\n        2,'), "it was altered"),
    "metadata": (lambda f: raw(f, '"rates"', '"equities"'), "it was altered"),
    "the order of features": (lambda f: raw(f, "scaled_return_0.94", "scaled_return_0.95"), "it was altered"),
    "a metric": (lambda f: raw(f, METRIC, '"test_crps": ' + "0.4"), "it was altered"),
    "the digest": (lambda f: raw(f, described(f)["sha256"], "0" * 64), "it was altered"),
    "an earlier format": (lambda f: raw(f, '"format": 2', '"format": 1'), "of format 2 but of 1. Save it anew"),
    "a later format": (lambda f: raw(f, '"format": 2', '"format": 3'), "of format 2 but of 3. Upgrade"),
    "no format": (lambda f: raw(f, '"format": 2', '"format": "2"'), "not a saved model"),
    "a key twice": (lambda f: raw(f, "{", '{"kind": "Forecaster",'), "a key stands twice"),
    "NaN": (lambda f: raw(f, METRIC, '"test_crps": ' + "NaN"), "NaN is no number"),
    "Infinity": (lambda f: raw(f, METRIC, '"test_crps": ' + "-Infinity"), "Infinity is no number"),
    "an overflow": (lambda f: raw(f, METRIC, '"test_crps": ' + "1e999"), "not JSON compliant"),
    "a number of 5,000 digits": (lambda f: raw(f, METRIC, '"test_crps": ' + "9" * 5000), "not readable"),
    "deep nesting": (lambda f: (f / "model.json").write_text("[" * 100_000), "not readable"),
    "sealed nesting": (lambda f: raw(f, '"rates"', "[" * 900 + "]" * 900), "model.json"),
    "a huge file": (lambda f: os.truncate(f / "model.json", 1 << 40), "larger than"),
    "no UTF-8": (lambda f: (f / "model.json").write_bytes(b"\xff\xfe{}"), "not readable"),
    "an empty file": (lambda f: (f / "model.json").write_text(""), "not readable"),
    "a list": (lambda f: (f / "model.json").write_text("[]"), "it holds a list, not an object"),
    "null": (lambda f: (f / "model.json").write_text("null"), "it holds a NoneType, not an object"),
    "a pipe": (replaced_by(os.mkfifo), "no regular file"),
    "a folder": (replaced_by(os.mkdir), "not readable"),
    "a link out of the folder": (replaced_by(link_outside), "a link to a file outside"),
    "a link to itself": (replaced_by(lambda p: p.symlink_to(p)), "not readable"),
    "a device": (replaced_by(lambda p: p.symlink_to("/dev/zero")), "outside"),
    "no description": (lambda f: (f / "model.json").unlink(), "not readable"),
    "no weights": (lambda f: (f / "weights.safetensors").unlink(), "not a usable model"),
    "a pipe for weights": (pipe_of_weights, "no regular file"),
    "weights cut short": (lambda f: os.truncate(f / "weights.safetensors", 100), "SHA-256 is not the one"),
    "huge weights": (lambda f: os.truncate(f / "weights.safetensors", 1 << 22), "SHA-256 is not the one"),
}
FORGED = {  # and sealed anew
    "another class": (lambda f: edit(f, "head", value=named("os.system", command="touch /tmp/no")), OUTSIDE),
    "a class in a list": (lambda f: edit(f, *ENCODER, "dropout", value=[named("os.system")]), OUTSIDE),
    "the command line": (lambda f: edit(f, "head", value=named("qtorch.__main__.main")), OUTSIDE),
    "the nightly job": (lambda f: edit(f, "head", value=named("qtorch.nightly.run", config={})), OUTSIDE),
    "a file's end": (lambda f: edit(f, "head", value=named("qtorch.data.whole_folder.recover", target="/")), OUTSIDE),
    "a module in a module": (lambda f: edit(f, "head", value=named("qtorch.heads.parametric.nn.Linear")), "not exist"),
    "a class from elsewhere": (lambda f: edit(f, "head", value=named("qtorch.nn.gru.Tensor")), "not a torch.nn.Module"),
    "a function": (lambda f: edit(f, "head", value=named("qtorch.nn.specs.describe")), "not a torch.nn.Module"),
    "a method": (lambda f: edit(f, "head", value=named("qtorch.heads.StudentT.modules")), "not a torch.nn.Module"),
    "no class path": (lambda f: edit(f, "head", value={}), "needs a class_path"),
    "a number for a class": (lambda f: edit(f, "head", "class_path", value=3), "a class_path is needed"),
    "no such class": (lambda f: edit(f, "head", "class_path", value="qtorch.heads.Nothing"), "does not exist"),
    "an unknown key of a class": (lambda f: edit(f, "head", "more", value=1), "class_path and init_args"),
    "another feature": (lambda f: edit(f, "windows", "features", "parts", 0, "feature", value="os.system"), OUTSIDE),
    "no such feature": (
        lambda f: edit(f, "windows", "features", "parts", 0, "feature", value="qtorch.data.features.no.No"),
        "no feature",
    ),
    "a huge width": (lambda f: edit(f, *ENCODER, "width", value=10**9), "width=1000000000 is above"),
    "a large width": (lambda f: edit(f, *ENCODER, "width", value=10**6), "bytes, but its weights take"),
    "a width of another type": (lambda f: edit(f, *ENCODER, "width", value="16"), "not a usable model"),
    "a null width": (lambda f: edit(f, *ENCODER, "width", value=None), "not a usable model"),
    "another width": (lambda f: edit(f, *ENCODER, "width", value=32), "has the shape and type"),
    "a lower depth": (lambda f: edit(f, *ENCODER, "depth", value=1), "has unknown"),
    "a higher depth": (lambda f: edit(f, *ENCODER, "depth", value=3), "lacks"),
    "no argument": (lambda f: edit(f, "encoder", "init_args", value={}), "in_features"),
    "an unknown argument": (lambda f: edit(f, *ENCODER, "colour", value=1), "unexpected keyword argument 'colour'"),
    "nested modules": (lambda f: edit(f, "encoder", value=nested(150)), "not a usable model"),
    "a context of a float": (lambda f: edit(f, "windows", "context", value=16.0), "whole numbers"),
    "a true context": (lambda f: edit(f, "windows", "context", value=True), "whole numbers"),
    "a negative context": (lambda f: edit(f, "windows", "context", value=-1), "at least 1 session"),
    "a context without end": (lambda f: edit(f, "windows", "context", value=10**12), "is above 32,768"),
    "a horizon without end": (lambda f: edit(f, "windows", "horizons", value=[1, 10**12]), "is above 32,768"),
    "horizons as text": (lambda f: edit(f, "windows", "horizons", value="15"), "windows have"),
    "other horizons": (lambda f: edit(f, "windows", "horizons", value=[1, 7]), "head's horizons"),
    "no features": (lambda f: edit(f, "windows", "features", value=[]), "not a usable model"),
    "the features in another order": (
        lambda f: edit(f, "inputs", value=described(f)["inputs"][::-1]),
        "the names of its inputs",
    ),
    "an input of no words": (lambda f: edit(f, "inputs", 0, value=7), "its inputs have"),
    "another layout": (lambda f: edit(f, "layout", value="panel"), "layout is 'panel'"),
    "a fit of no assets": (lambda f: edit(f, "trained_on", 0, "assets", value=None), "what a model was trained on"),
    "a fit of numbers": (lambda f: edit(f, "trained_on", value=[1]), "not a usable model"),
    "a metric as text": (lambda f: edit(f, "metrics", "test_crps", value="good"), "no number"),
    "no metadata": (lambda f: without(f, "metadata"), "lacks metadata"),
    "an unknown field": (lambda f: sealed_json(f, more=1), "has unknown more"),
    "a list of metadata": (lambda f: sealed_json(f, metadata=[]), "its metadata is a list"),
    "another kind": (lambda f: sealed_json(f, kind="Panel"), "none of Forecaster, Allocator"),
    "a kind of kinds": (lambda f: sealed_json(f, kind=["Forecaster"]), "none of Forecaster"),
    "a newer qtorch": (lambda f: edit(f, "versions", "qtorch", value="7.0.0"), "newer than .* Upgrade qtorch"),
    "no version": (lambda f: edit(f, "versions", value={}), "Save it anew"),
    "no digest of weights": (lambda f: edit(f, "weights_sha256", value=""), "SHA-256 is not the one"),
    "NaN weights": (
        lambda f: reweigh(f, lambda s: s["head.project.bias"].fill_(torch.nan)),
        "head.project.bias .*1 in",
    ),
    "a tensor less": (
        lambda f: reweigh(f, lambda s: s.pop("head.project.bias")),
        "lacks the weights head.project.bias",
    ),
    "a tensor more": (lambda f: reweigh(f, lambda s: s.update(extra=torch.zeros(1))), "has unknown the weights extra"),
    "weights of another type": (
        lambda f: reweigh(f, lambda s: s.update({"head.project.bias": s["head.project.bias"].double()})),
        "float64",
    ),
    "no safetensors": (
        lambda f: (
            (f / "weights.safetensors").write_bytes(b"\x80\x04pickle"),
            edit(f, "weights_sha256", value=hashlib.sha256(b"\x80\x04pickle").hexdigest()),
        ),
        "not a usable model",
    ),
}


STATES = ("network", "init_args", "states", "init_args")


def first_weight(change):
    """Changes the weight of the first name."""
    return lambda f: reweigh(f, lambda s: change(s, min(s)))


ALLOCATORS = {  # of an allocator; all but the first two sealed anew
    "a setting": (lambda f: raw(f, '"every": 5', '"every": 6'), "it was altered"),
    "weights cut short": (lambda f: os.truncate(f / "weights.safetensors", 100), "SHA-256 is not the one"),
    "another kind": (lambda f: sealed_json(f, kind="Forecaster"), "lacks encoder, head, layout"),
    "no costs": (lambda f: without(f, "costs"), "lacks costs"),
    "an unknown field": (lambda f: sealed_json(f, encoder={}), "has unknown encoder"),
    "a null network": (lambda f: edit(f, "network", value=None), "its network is a NoneType"),
    "a null allocation": (lambda f: edit(f, "allocation", value=None), "its allocation is a NoneType"),
    "a huge width": (lambda f: edit(f, *STATES, "width", value=10**9), "width=1000000000 is above"),
    "another width": (lambda f: edit(f, *STATES, "width", value=16), "give the width of states, 16"),
    "other estimates": (lambda f: edit(f, *STATES, "estimates", value=3), "takes one estimate for each of the 2"),
    "a mixer less": (lambda f: edit(f, *STATES, "mixers", value=[]), "has unknown the weights"),
    "a number of mixers": (lambda f: edit(f, *STATES, "mixers", value=3), r"AssetGraph: (.|\n)*mixers"),
    "a mixer from outside": (lambda f: edit(f, *STATES, "mixers", 1, value=named("os.system")), OUTSIDE),
    "a context without end": (lambda f: edit(f, "windows", "context", value=10**12), "is above 32,768"),
    "an unknown cost": (lambda f: edit(f, "costs", value={"spread": 0.1}), "unexpected keyword argument 'spread'"),
    "constraints of words": (
        lambda f: edit(f, "allocation", "init_args", "constraints", value="all"),
        r"Projected: (.|\n)*constraints",
    ),
    "no decisions": (lambda f: edit(f, "settings", "length", value=0), "length=0"),
    "a true history": (lambda f: edit(f, "settings", "min_history", value=True), "min_history=True"),
    "NaN weights": (first_weight(lambda s, name: s[name].fill_(torch.nan)), "are not finite"),
    "a tensor less": (first_weight(lambda s, name: s.pop(name)), "lacks the weights"),
    "another type": (first_weight(lambda s, name: s.update({name: s[name].double()})), "float64"),
}


@pytest.fixture(scope="session")
def whole_allocator(tmp_path_factory):
    """A saved allocator, which is left as it is."""
    folder = tmp_path_factory.mktemp("allocator")
    save(allocator(), folder)
    return folder


@pytest.mark.parametrize(("harm", "words"), ALLOCATORS.values(), ids=ALLOCATORS)
def test_a_harmed_allocator_is_refused(whole_allocator, tmp_path, harm, words):
    shutil.copytree(whole_allocator, tmp_path, dirs_exist_ok=True)
    before = bundle_digest(tmp_path)
    harm(tmp_path)
    with pytest.raises(BundleError, match=words):
        load(tmp_path, Allocator)
    with pytest.raises(BundleError):
        load(tmp_path, Allocator, sha256=before)


@pytest.mark.parametrize(("harm", "words"), ALTERED.values(), ids=ALTERED)
def test_an_altered_bundle_is_refused(bundle, harm, words):
    harm(bundle)
    with pytest.raises(BundleError, match=words):
        load(bundle)


@pytest.mark.parametrize(("harm", "words"), FORGED.values(), ids=FORGED)
def test_a_forged_bundle_is_refused(bundle, harm, words):
    before = bundle_digest(bundle)
    harm(bundle)
    with pytest.raises(BundleError, match=words):
        load(bundle)
    with pytest.raises(BundleError):
        load(bundle, sha256=before)


def test_folders_that_are_none(bundle, tmp_path):
    for path in (tmp_path / "nothing", bundle / "model.json"):
        with pytest.raises(BundleError, match="not readable"):
            load(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="all may read everything")
def test_a_file_that_may_not_be_read_is_refused(bundle):
    (bundle / "weights.safetensors").chmod(0)
    with pytest.raises(BundleError, match="ermission"):
        load(bundle)


def test_white_space_and_the_order_of_keys_are_no_change(bundle):
    about = described(bundle)
    (bundle / "model.json").write_text(json.dumps(dict(reversed(about.items())), indent=7))
    assert load(bundle, sha256=about["sha256"])[1] == {"desk": "rates"}


def test_an_import_of_the_command_line_is_no_part_of_loading(bundle):
    edit(bundle, "head", value=named("qtorch.__main__.main"))
    with pytest.raises(BundleError, match=OUTSIDE):
        load(bundle)
    assert "qtorch.__main__" not in sys.modules


@pytest.mark.parametrize(("argument", "size"), [("width", 1 << 15), ("width", 10**6), ("depth", 10**6)])
def test_a_large_model_takes_no_memory(bundle, monkeypatch, argument, size):
    """Weights of a few thousand numbers, and a description that wants gigabytes, terabytes or a million layers."""
    monkeypatch.setattr(bounded, "_FREE", 1 << 25)
    edit(bundle, "encoder", "init_args", argument, value=size)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    resource.setrlimit(resource.RLIMIT_AS, (now + (1 << 29), limits[1]))
    try:
        with pytest.raises(BundleError, match="bytes, but its weights take"):
            load(bundle)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 100_000  # kB


def leaves(part, path=()):
    """The places of all values in a description, and of the objects and lists that they stand in."""
    yield path
    for key, value in part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ():
        yield from leaves(value, (*path, key))


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 40),
    st.sampled_from([2**31, 10**30, -1, 0, 1e308, -0.0]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
    st.sampled_from(["os.system", "qtorch.nightly.run", "qtorch.heads.Normal", "qtorch.models.Recurrent"]),
    st.just([]),
    st.just({}),
    st.lists(st.integers(0, 9), max_size=3),
)


def outcome(folder):
    """A model or None: any other error than a BundleError fails the test."""
    try:
        kind = Allocator if inspect_bundle(folder).get("kind") == "Allocator" else Forecaster
        model, metadata = load(folder, kind)
        assert isinstance(metadata, dict)
        assert model_card(folder)
    except BundleError:
        return None
    return model


FEW = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)


@pytest.fixture(params=["whole", "whole_allocator"])
def either(request):
    """A saved forecaster, and a saved allocator."""
    return request.getfixturevalue(request.param)


@FEW
@given(data=st.data())
def test_no_value_of_a_forged_description_escapes(either, data):
    about = described(either)
    places = [place for place in leaves(about) if place]
    place, value = data.draw(st.sampled_from(places)), data.draw(ODD)
    changed = copy.deepcopy(about)
    part = changed
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "weights.safetensors").write_bytes((either / "weights.safetensors").read_bytes())
        (folder / "model.json").write_text(json.dumps(changed))
        if changed != about:
            assert outcome(folder) is None
        reseal(folder, changed)
        outcome(folder)


@FEW
@given(data=st.data())
def test_no_changed_bytes_escape(either, data):
    name = data.draw(st.sampled_from(["model.json", "weights.safetensors"]))
    content = bytearray((either / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        # The first bytes are a header's length and names, where most goes wrong.
        at = data.draw(st.one_of(st.integers(0, 200), st.integers(0, len(content) - 1)))
        match data.draw(st.integers(0, 2)):
            case 0:
                content[at % len(content)] = data.draw(st.integers(0, 255))
            case 1:
                del content[at : at + data.draw(st.integers(1, 50))]
            case _:
                content[at:at] = data.draw(st.binary(max_size=8))
    with tempfile.TemporaryDirectory() as folder:
        for file in either.iterdir():
            (Path(folder) / file.name).write_bytes(file.read_bytes())
        (Path(folder) / name).write_bytes(content)
        model = outcome(folder)
        if model is not None:  # changed nothing, such as white space
            assert inspect_bundle(folder) == inspect_bundle(either)
        if name == "weights.safetensors":
            edit(Path(folder), "weights_sha256", value=hashlib.sha256(content).hexdigest())
            outcome(folder)
