"""Models as packages of CoreML, for Apple's devices."""

import json
import tempfile
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qtorch.deploy.artefact_file import Model, about, write
from qtorch.deploy.coreml_operators import operators
from qtorch.deploy.coreml_recurrence import know_recurrence
from qtorch.deploy.edge_program import bounds_of, edge_program, sizes_within
from qtorch.deploy.extras import needed
from qtorch.deploy.parity import hold, probes
from qtorch.deploy.program import Program, program_of
from qtorch.errors import ArgumentError

KIND = "coreml"


def to_coreml(
    model: Model,
    path: str | Path,
    *,
    most: Mapping[str, int] | None = None,
    density: bool = False,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Writes a model as an ML program of CoreML: a zip of an ``.mlpackage``, which Xcode takes once unpacked.

    It computes in float32 and wants iOS 18 or macOS 15. CoreML's interface has neither bools nor 64-bit integers, so
    masks are int32, 0 for False, and so are neighbours. Units and the masks' meaning are in the package's descriptions
    of inputs and outputs, the signature in its user-defined metadata.

    CoreML runs on Apple's devices alone. What coremltools is given is held against the model at four sizes before it is
    converted; that the package has the signature's names and shapes is tested, its numbers are not. CoreML has no
    float64: the tails of flows, which are computed in it elsewhere, have fewer digits there. coremltools 9 was made for
    torch 2.7 and warns of later ones.

    Args:
        model: in evaluation mode afterwards.
        path: of the file, such as ``risk.mlpackage.zip``; one that is there is replaced.
        most: the largest sizes of axes by their letters, as of `to_executorch`.
        density: as of `program_of`.
        metadata: plain values to keep beside the model.

    Raises:
        ValueError: the model has no such program, coremltools does not take it, or its rewritten program does not hold.
        TypeError: a part of the model or of the metadata is not of plain values.
        ImportError: coremltools is not installed.
    """
    coremltools = needed("coremltools", "coreml", "to_coreml")
    program = program_of(model, density=density)
    bounds = bounds_of(program, most)
    example = tuple(_as_number(value) for value in program.example(**sizes_within(program, bounds)))
    exported = edge_program(program, bounds, _OfNumbers(program).eval(), example).run_decompositions(operators())
    graph = exported.module()
    cause = "qtorch's own rewriting for coremltools is at fault. Use deploy.export or deploy.to_onnx."
    hold(program, lambda *tensors: graph(*map(_as_number, tensors)), probes(program, bounds), 1e-5, cause)
    know_recurrence()
    signature = program.signature
    try:
        with warnings.catch_warnings():
            # A bound beyond float32 becomes infinite there, which is as much of a bound.
            warnings.filterwarnings("ignore", "overflow encountered in cast", RuntimeWarning)
            package = coremltools.convert(
                exported,
                inputs=[coremltools.TensorType(name=spec.name) for spec in signature.inputs],
                outputs=[coremltools.TensorType(name=spec.name) for spec in signature.outputs],
                convert_to="mlprogram",
                compute_precision=coremltools.precision.FLOAT32,
                minimum_deployment_target=coremltools.target.iOS18,
                skip_model_load=True,
            )
    except (NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        raise ArgumentError(
            f"coremltools does not take this model ({str(error).strip()[:300]}). Use deploy.export or deploy.to_onnx."
        ) from error
    description = about(model, program, KIND, metadata, most=bounds)
    for spec in signature.inputs:
        number = "" if spec.dtype == "float32" else f" As int32{', 0 for False' if spec.dtype == 'bool' else ''}."
        package.input_description[spec.name] = spec.meaning + number
    for spec in signature.outputs:
        package.output_description[spec.name] = spec.meaning
    for name in ("signature", "options", "versions", "metadata"):
        package.user_defined_metadata[f"qtorch.{name}"] = json.dumps(description[name], sort_keys=True)
    write(path, description, lambda file: _zipped(package, file, Path(path).name.split(".")[0]))


def _as_number(value: Tensor) -> Tensor:
    return value if value.is_floating_point() else value.to(torch.int32)


class _OfNumbers(nn.Module):
    """A program whose masks and numbers of neighbours are given as int32."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.program = program
        self.kinds = [getattr(torch, spec.dtype) for spec in program.signature.inputs]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        given = (
            value != 0 if kind == torch.bool else value.to(kind) for kind, value in zip(self.kinds, inputs, strict=True)
        )
        outputs: tuple[Tensor, ...] = self.program(*given)
        return outputs


def _zipped(package: Any, file: Path, stem: str) -> None:
    from coremltools.models.utils import save_spec

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / f"{stem}.mlpackage"
        # Its own way to save refuses programs with loops.
        save_spec(package.get_spec(), str(folder), weights_dir=package.weights_dir)
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for part in sorted(folder.rglob("*")):
                archive.write(part, part.relative_to(scratch))
