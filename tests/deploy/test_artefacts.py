"""Artefacts: the same numbers as the model in other runtimes, and refusals of what is not what was written."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from qtorch import Forecaster, heads, models
from qtorch.data import Panel, WindowSpec
from qtorch.data.errors import DataError
from qtorch.deploy import (
    ArtefactError,
    Signature,
    TensorSpec,
    artefact_file,
    describe_artefact,
    open_artefact,
    pair,
    program_of,
    triton_config,
)
from qtorch.deploy.sealed_json import sealed

ROOT = Path(__file__).parents[2]


def run(*arguments: str, module: str = "artefact_runs") -> None:
    """A function of `artefact_runs` in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.deploy.{module}", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]


class Last(nn.Module):
    """Three tensors of a window's last session: a program that is exported at once."""

    def forward(self, inputs, mask):
        return tuple(inputs[:, -1, :2] * scale for scale in (1.0, 2.0, 3.0))


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A program of torch.export, described as a forecaster's."""
    spec = WindowSpec(context=8, horizons=(1, 3))
    model = Forecaster(models.Transformer(17, width=4, depth=1, heads=1), heads.StudentT(4, spec.horizons), spec)
    program = program_of(model)
    file = tmp_path_factory.mktemp("artefacts") / "model.pt2"
    exported = torch.export.export(Last(), program.example(), dynamic_shapes=program.dynamic_shapes())
    artefact_file.write(
        file,
        artefact_file.about(model, program, "torch.export", {"desk": "rates"}),
        lambda path: torch.export.save(exported, path),
    )
    return file


@pytest.fixture
def copied(written, tmp_path) -> Path:
    for file in written.parent.glob(f"{written.name}*"):
        shutil.copy(file, tmp_path)
    return tmp_path / written.name


def test_a_program_runs_where_it_is_trusted(written, prices):
    said = describe_artefact(written)
    with pytest.raises(ArtefactError, match="holds code, which loading it runs"):
        open_artefact(written)
    with pytest.raises(ArtefactError, match="its SHA-256 is .*, not 00, which is asked for"):
        open_artefact(written, trust=True, sha256="00")
    artefact = open_artefact(written, sha256=said["sha256"])
    assert said["kind"] == artefact.kind == "torch.export"
    assert said["model"]["head"]["class_path"].endswith("StudentT")
    assert artefact.metadata == {"desk": "rates"}
    assert [spec.name for spec in artefact.signature.outputs] == ["df", "loc", "scale"]
    inputs, mask = torch.randn(2, 5, 17), torch.ones(2, 5, dtype=torch.bool)
    for output, scale in zip(artefact(inputs, mask), (1.0, 2.0, 3.0), strict=True):
        assert torch.equal(output, inputs[:, -1, :2] * scale)
    with pytest.raises(ValueError, match="mask is float32, but bool is needed"):
        artefact(inputs, torch.zeros(2, 5))
    with pytest.raises(ValueError, match="mask has the shape .* axis 1 must be 5, not 4"):
        artefact(inputs, torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="of kind Forecaster, and not of a Allocator"):
        artefact.allocate(Panel.from_frame(prices), "2019-07-02")


def test_what_was_altered_is_refused_before_it_is_loaded(copied):
    sidecar = copied.with_name(f"{copied.name}.json")
    content, said = copied.read_bytes(), json.loads(sidecar.read_text())
    for other in (content[:-1], content + b" ", b"", bytes([content[0] ^ 1]) + content[1:]):
        copied.write_bytes(other)
        with pytest.raises(ArtefactError, match="its SHA-256 is not the one in its sidecar"):
            open_artefact(copied, trust=True)
    copied.write_bytes(content)
    for changed, words in (
        (said | {"kind": "onnx"}, "it was altered, as its SHA-256"),
        (said | {"file_sha256": "0" * 64}, "it was altered"),
        (said | {"format": 99}, "of format 99, but this qtorch reads 1"),
        ([said], "it holds a list, not an object"),
    ):
        sidecar.write_text(json.dumps(changed))
        with pytest.raises(ArtefactError, match=words):
            open_artefact(copied, trust=True)
    for text in ("{", '{"format": NaN}', '{"format": 1, "format": 1}', "[" * 100_000, "\x00"):
        sidecar.write_text(text)
        with pytest.raises(ArtefactError, match="not readable"):
            open_artefact(copied, trust=True)
    sidecar.unlink()
    with pytest.raises(ArtefactError, match="not readable"):
        open_artefact(copied, trust=True)


def test_a_file_is_written_whole_or_not_at_all(copied, monkeypatch):
    said = describe_artefact(copied)

    def fails(file):
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        artefact_file.write(copied, said, fails)
    assert describe_artefact(copied) == said
    open_artefact(copied, trust=True)
    assert len(list(copied.parent.iterdir())) == 2
    # Kills between the sidecar's step and the file's: the new file is found aside, after the next attempt too.
    replace = pair.os.replace

    def killed(source, target):
        if Path(target) == copied:
            raise KeyboardInterrupt
        replace(source, target)

    def killed_early(file, content):
        file.write_bytes(content[:2])
        raise KeyboardInterrupt

    for patched, step, content in (
        (pair.os, "replace", b"new"),
        (pair, "_write", b"newer"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(patched, step, killed if step == "replace" else killed_early)
            with pytest.raises(KeyboardInterrupt):
                artefact_file.write(copied, said, lambda file, content=content: file.write_bytes(content))
        assert artefact_file.content_of(copied, describe_artefact(copied)) == b"new"


SPECS = [{"name": "x", "dtype": "float32", "axes": ["B"], "meaning": ""}]
FORGED = {
    "a device that is none": ({"device": "abacus"}, "as device 'abacus', but cpu, cuda"),
    "a device of another type": ({"device": ["cpu"]}, "but cpu, cuda"),
    "no versions": ({"versions": {"torch": 2}}, "as versions .* an object of texts"),
    "a hash that is none": ({"file_sha256": "00"}, "a SHA-256 is needed"),
    "a kind of no text": ({"kind": 3}, "as kind '3', but text"),
    "a kind that is not known": ({"kind": "abacus"}, "which this qtorch does not know"),
    "an unknown field": ({"colour": "red"}, "it has unknown colour"),
    "axes of no number": (
        {"signature": {"inputs": [SPECS[0] | {"axes": [1.5]}], "outputs": SPECS}},
        "is 1.5, no letter",
    ),
    "a dtype that is none": ({"signature": {"inputs": SPECS, "outputs": [SPECS[0] | {"dtype": "nn"}]}}, "dtype 'nn'"),
    "two of a name": ({"signature": {"inputs": SPECS * 2, "outputs": SPECS}}, "a name twice: x, x"),
    "a tensor without a meaning": (
        {"signature": {"inputs": [{"name": "x"}], "outputs": SPECS}},
        "and meaning, and not",
    ),
    "bounds of no number": ({"options": {"most": {"B": "64", "C": 1}}}, "as B '64', but a whole number from 1"),
    "bounds of other axes": ({"options": {"most": {"B": 64}}}, "options' most lacks C"),
}
FORGED_MODELS = {
    "no kind": ({"kind": None}, "of kind None, which is none of Forecaster"),
    "horizons of a text": (
        {"windows": {"context": 8, "horizons": ["1"], "features": {}}},
        "as horizons .* whole numbers",
    ),
    "horizons of one number": ({"windows": {"context": 8, "horizons": 1, "features": {}}}, "a list of whole numbers"),
    "windows without a context": ({"windows": {"horizons": [1], "features": {}}}, "windows lacks context"),
    "a layout that is none": ({"layout": "row"}, "asset or panel is needed"),
    "a head that is none": ({"head": {"class_path": 3, "init_args": {}}}, "a class_path and init_args"),
    "a causal number": ({"causal": 1}, "true or false"),
    "an unknown part": ({"colour": "red"}, "has unknown colour"),
}


def forged(path: Path, **changes: object) -> None:
    """Changes the sidecar, and seals it anew, as one who wants to deceive would."""
    rest = {name: value for name, value in (describe_artefact(path) | changes).items() if name != "sha256"}
    artefact_file.sidecar_of(path).write_text(json.dumps(sealed(rest)))


@pytest.mark.parametrize("case", [*FORGED, *FORGED_MODELS])
def test_a_forged_sidecar_is_refused_with_what_is_wrong(case, copied):
    if case in FORGED:
        changes, words = FORGED[case]
    else:
        (part, words), said = FORGED_MODELS[case], describe_artefact(copied)
        changes = {"model": said["model"] | part}
    forged(copied, **changes)
    with pytest.raises(ArtefactError, match=words):
        open_artefact(copied, trust=True)


def test_what_runs_elsewhere_is_refused(copied):
    forged(copied, device="mps")
    with pytest.raises(ArtefactError, match="made for the device mps, which is not available here"):
        open_artefact(copied, trust=True)
    forged(copied, device="mps", kind="onnx")
    with pytest.raises(ArtefactError, match="artefacts of kind onnx run on the CPU alone"):
        open_artefact(copied)


def test_a_law_that_is_absurd_or_of_other_horizons_is_refused_and_draws_nothing(copied, prices):
    panel, said = Panel.from_frame(prices), describe_artefact(copied)["model"]
    for arguments, words in (
        ({"in_features": 1 << 20, "horizons": list(range(1, 1000))}, "it asks for"),
        ({"in_features": 4, "horizons": [1]}, r"horizons are \(1,\), but the artefact's \(1, 3\)"),
        ({"in_features": "4", "horizons": [1, 3]}, "not a usable description"),
    ):
        forged(copied, model=said | {"head": said["head"] | {"init_args": arguments}})
        with pytest.raises(ValueError, match=words):
            open_artefact(copied, trust=True).forecast(panel, panel.dates[-1])
    forged(copied, model=said)
    state = torch.get_rng_state()
    with pytest.raises(DataError, match="nothing to forecast"):
        open_artefact(copied, trust=True).forecast(panel, panel.dates[-1], min_history=10_000)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_configuration_of_triton_names_types_and_free_axes():
    signature = Signature(
        (TensorSpec("inputs", "float32", ("B", "C", 17), "What\nit is"), TensorSpec("mask", "bool", ("B", "C"), "")),
        (TensorSpec("density", "float32", ("B",), "Nats."),),
    )
    text = triton_config("flow", signature, 32)
    for part in (
        'name: "flow"',
        'platform: "onnxruntime_onnx"',
        "max_batch_size: 32",
        'name: "inputs"\n  data_type: TYPE_FP32\n  dims: [-1, 17]',
        'name: "mask"\n  data_type: TYPE_BOOL\n  dims: [-1]',
        'name: "density"\n  data_type: TYPE_FP32\n  dims: [1]\n  reshape { shape: [] }',
    ):
        assert part in text
    with pytest.raises(ValueError, match="the batch's axis first"):
        triton_config("flow", Signature((TensorSpec("x", "float32", (3,), ""),), ()))
    with pytest.raises(ValueError, match="x=int32: .* give one of bool, float32"):
        triton_config("flow", Signature((TensorSpec("x", "int32", ("B",), ""),), ()))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gru", "panel", "flow", "covariance", "relational", "density of coupling"])
def test_programs_give_the_models_numbers(name, tmp_path):
    sums = {"gru": "1e-6", "covariance": "1e-6", "relational": "1e-6", "flow": "1e-5", "density of coupling": "1e-5"}
    run("held", "export", name, str(tmp_path), sums.get(name, "0"))


@pytest.mark.slow
def test_a_program_forecasts_as_the_model(tmp_path):
    run("forecasts", "export", "transformer", str(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["covariance", "relational"])
def test_a_program_allocates_as_the_model(name, tmp_path):
    run("weights", "export", name, str(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["transformer", "panel", "flow", "gru", "covariance", "coupling"])
def test_packages_give_the_models_numbers(name, tmp_path):
    if not any(map(shutil.which, ("g++", "clang++", "c++"))):
        pytest.skip("AOTInductor needs a C++ compiler")
    run("held", "package", name, str(tmp_path), "1e-5")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["transformer", "flow head"])
def test_what_inductor_compiles_gives_the_models_numbers(name):
    if not any(map(shutil.which, ("g++", "clang++", "c++"))):
        pytest.skip("Inductor needs a C++ compiler")
    run(name, module="inductor_runs")


@pytest.mark.deploy
@pytest.mark.parametrize(
    "name",
    [
        "transformer",
        "patches",
        "gru",
        "lstm",
        "panel",
        "flow head",
        "coupling",
        "flow",
        "covariance",
        "scores",
        "relational",
        "density of panel",
        "density of attentional",
        "density of coupling",
    ],
)
def test_onnx_runtime_gives_the_models_numbers(name, tmp_path):
    run("held", "onnx", name, str(tmp_path), "1e-5")


@pytest.mark.slow
def test_a_lone_asset_is_refused_where_it_must_have_neighbours(tmp_path):
    run("lone_asset", str(tmp_path))


@pytest.mark.deploy
def test_a_density_that_onnx_cannot_say_is_refused(tmp_path):
    run("beyond_onnx", str(tmp_path))


@pytest.mark.deploy
@pytest.mark.parametrize("name", ["gru", "panel", "coupling", "flow head"])
def test_onnx_runtime_forecasts_as_the_model(name, tmp_path):
    run("forecasts", "onnx", name, str(tmp_path))


@pytest.mark.deploy
@pytest.mark.parametrize("name", ["covariance", "scores", "relational"])
def test_onnx_runtime_allocates_as_the_model(name, tmp_path):
    run("weights", "onnx", name, str(tmp_path))


@pytest.mark.deploy
def test_graphs_and_repositories_say_what_tensors_mean(tmp_path):
    run("described", str(tmp_path))
