"""Models as programs of torch.export, the canonical artefact."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from qtorch.deploy.artefact_file import Model, about, write
from qtorch.deploy.program import Program, program_of
from qtorch.errors import ArgumentError

KIND = "torch.export"


def export(model: Model, path: str | Path, *, density: bool = False, metadata: Mapping[str, Any] | None = None) -> None:
    """Writes a model as a program of torch.export, a ``.pt2`` file, with batch, context and assets free.

    It computes what the model does, to the last bit, without the model's classes; with a `Recurrent` encoder to 1e-6,
    where qtorch is installed, and over graphs to 1e-6, whose sums eager mode takes by matrices where there are many
    neighbours. Its outputs are those of `program_of`: the parameters of a forecaster's law, what an
    allocator's layer takes, a flow's log density.

    Args:
        model: in evaluation mode afterwards.
        path: of the file; one that is there is replaced.
        density: as of `program_of`.
        metadata: plain values to keep beside the model.

    Raises:
        ValueError: the model has no such program.
        TypeError: a part of the model or of the metadata is not of plain values.

    Example:
        >>> from qtorch.deploy import open_artefact
        >>> from qtorch.models.flows import NeuralSplineFlow
        >>> export(NeuralSplineFlow(3), "flow.pt2")  # doctest: +SKIP
        >>> open_artefact("flow.pt2", trust=True)(torch.zeros(5, 3))  # doctest: +SKIP
    """
    program = program_of(model, density=density)
    exported = exported_program(program)
    write(path, about(model, program, KIND, metadata), lambda file: torch.export.save(exported, file))


def exported_program(program: Program) -> ExportedProgram:
    """A program as torch.export sees it, with every axis free that may vary."""
    with torch.no_grad():
        return torch.export.export(program, program.example(), dynamic_shapes=(program.dynamic_shapes(),))


def runner(content: bytes, description: Mapping[str, Any]) -> Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]:
    """The function of a ``.pt2`` file; it holds code."""
    module = torch.export.load(io.BytesIO(content)).module()

    def run(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        try:
            return tuple(module(*tensors))
        except AssertionError as error:
            raise ArgumentError(
                f"the program was exported for other sizes ({str(error)[:200]}). Give larger ones, such as two assets "
                "or more to a network over a learned graph."
            ) from error

    return run
