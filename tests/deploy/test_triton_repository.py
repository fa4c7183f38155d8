"""Model repositories of Triton: an operator's settings stay, and one name keeps one meaning."""

import pytest

from qtorch import Forecaster, heads, models
from qtorch.data import WindowSpec
from qtorch.deploy import to_onnx, to_triton, triton_config
from qtorch.deploy.program import program_of

pytestmark = pytest.mark.deploy
ADDED = """
# ours
instance_group [ { count: 2 kind: KIND_CPU }, { count: 1 kind: KIND_GPU gpus: [ 0 ] } ]
parameters: { key: "note" value: { string_value: "a \\"desk\\"" } }
"""


def model(horizons, context=8) -> Forecaster:
    spec = WindowSpec(context=context, horizons=horizons)
    encoder = models.Transformer(len(spec.features), width=4, depth=1, heads=1)
    return Forecaster(encoder, heads.StudentT(4, horizons), spec)


def test_versions_of_one_name_mean_the_same(tmp_path):
    ours, repository = model((1, 3)), tmp_path / "repository"
    to_onnx(ours, path := tmp_path / "risk.onnx")
    config = to_triton(path, repository, "risk") / "config.pbtxt"
    written = config.read_text()
    assert written == triton_config("risk", program_of(ours).signature)
    config.write_text(written + ADDED)
    to_triton(path, repository, "risk", 2)
    assert config.read_text() == written + ADDED
    to_triton(path, repository, "risk", 2, max_batch=16)
    assert config.read_text() == written.replace("max_batch_size: 64", "max_batch_size: 16") + ADDED
    for other, words in (
        (model((1, 5)), "version 1 of 'risk' means something else: windows: horizons: "),
        (model((1, 3), context=9), "windows: context: 8 there, and 9 here"),
    ):
        with pytest.raises(ValueError, match=words):
            to_triton(other, repository, "risk", 3)
    assert not (repository / "risk" / "3").exists()
    for changed, words in (
        (written.replace("TYPE_BOOL", "TYPE_UINT8"), "other inputs or outputs: input mask: data_type: 'TYPE_UINT8'"),
        (written.replace("[-1, 17]", "[-1, 16]"), "input inputs: dims: "),
        (written + "instance_group [ {", "its end stands where"),
        (written + "?", "is not readable at"),
    ):
        config.write_text(changed)
        with pytest.raises(ValueError, match=words):
            to_triton(path, repository, "risk", 3)
        assert config.read_text() == changed
